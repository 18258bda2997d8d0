/** What one deploy or plan has in common at all places. */
import type { Connection } from '../connections/connection.ts';
import type { PropertyResult } from './attempt.ts';
import { DataStore } from './data.ts';
import { FarSide } from './far-side.ts';
import type { HostAttrs } from './host-attrs.ts';
import { type HostDefinition, hostAttrs } from './host-definition.ts';
import { STATE_FOLDER } from './memory.ts';
import type { PropertyApplication } from './property.ts';
import type { PlannedProperty } from './walk.ts';
import { checkKind } from './tree.ts';

/** Where one of several stands. */
export interface Place {
  readonly index: number;
  readonly count: number;
}

/** What deploy tells while it works. */
export type DeployProgress =
  | ({ readonly kind: 'started'; readonly description: string; readonly depth: number } & Place)
  | { readonly kind: 'line'; readonly line: string }
  | ({ readonly kind: 'ended'; readonly result: PropertyResult; readonly depth: number } & Place);

/** What one deploy or plan has in common at all places. */
export interface Run {
  readonly attrs: HostAttrs;
  /** Whether anybody has asked for the static facts, which are those of all properties. */
  readonly attrsUsed: boolean;
  readonly data: DataStore;
  /** Folder on the host for memory and debts. */
  readonly state: string;
  /** Whether a person may be asked for data. */
  readonly mayAsk: boolean;
  readonly signal: AbortSignal | undefined;
  readonly onProgress: (progress: DeployProgress) => void;
  /** What was asked for by `atEnd`, by its key. */
  readonly ends: Map<string, PropertyApplication>;
  /** Deploys another host at another place; given by deploy.ts, which knows how. */
  readonly deployInner?: (host: HostDefinition, at: Connection) => Promise<readonly PropertyResult[]>;
  /** Plans another host at another place; given by plan.ts. */
  readonly planInner?: (host: HostDefinition, at: Connection) => Promise<readonly PlannedProperty[]>;
}

/** What deploy and plan may be told. */
export interface HostOptions {
  /** Aborting ends the running command; what was not tried is reported as skipped. */
  readonly signal?: AbortSignal;
  /** Where prerequisite data comes from; without it there is none. */
  readonly data?: DataStore;
  /**
   * What is kept on the host of what was applied, for the next run. `keep` (default): before the first change what was there
   * and will be, at the end what is. `at-end`: the latter only, for a root that nobody uses if this run dies. `none`:
   * nothing, and nothing is known of earlier runs.
   */
  readonly memory?: 'keep' | 'at-end' | 'none';
  /** Folder on the host for memory and debts; default /var/lib/buildos. */
  readonly state?: string;
}

/**
 * Checks all that can be checked before connecting.
 *
 * @param kind - of the connection that it will be
 * @returns the static facts
 * @throws {InapplicablePropertyError} for a property that makes no sense there
 * @throws {MissingDataError} for data that no source has
 */
export async function checkHost(
  definition: HostDefinition,
  kind: Connection['kind'],
  data: DataStore = new DataStore(),
): Promise<HostAttrs> {
  const attrs = hostAttrs(definition);
  for (const application of definition.properties) checkKind(application, kind);
  await data.check(attrs.data);
  return attrs;
}

/**
 * Checks a definition, and begins a run of it.
 *
 * @param own - how a deploy is not a plan
 * @throws {InapplicablePropertyError | MissingDataError} before anything is contacted
 */
export async function beginRun(
  definition: HostDefinition,
  connection: Connection,
  options: HostOptions,
  own: Pick<Run, 'mayAsk' | 'onProgress' | 'deployInner' | 'planInner'>,
): Promise<FarSide> {
  const data = options.data ?? new DataStore();
  const attrs = await checkHost(definition, connection.kind, data);
  const state = options.state ?? STATE_FOLDER;
  let attrsUsed = false;
  const run: Run = {
    get attrs() {
      attrsUsed = true;
      return attrs;
    },
    get attrsUsed() {
      return attrsUsed;
    },
    data,
    state,
    signal: options.signal,
    ends: new Map(),
    ...own,
  };
  const at = new FarSide(run, connection);
  at.pending = definition.properties;
  return at;
}
