/**
 * Applies a host definition over a connection, one property after the other.
 *
 * Before connecting: static facts, data that is needed, and whether every property can run there ({@link checkHost}).
 * Then what left the definition is taken back, the last first; each property is looked at, left alone if it holds, else
 * applied; and what was asked for at the end is done. The top level goes on after a failure, so that one report tells all
 * that is wrong.
 */
import type { Connection } from '../connections/connection.ts';
import { DataStore } from './data.ts';
import type { HostAttrs } from './host-attrs.ts';
import { type HostDefinition, hostAttrs } from './host-definition.ts';
import {
  type Memory,
  STATE_FOLDER,
  memoryAfter,
  memoryBefore,
  memoryFacts,
  memoryPath,
  planLeaving,
  readMemory,
  writeMemory,
} from './memory.ts';
import type { PropertyApplication } from './property.ts';
import type { PropertyResult } from './attempt.ts';
import { type DeployProgress, type Run, Work, checkKind } from './work.ts';

/** What became of a host. */
export interface DeployReport {
  readonly host: string;
  /** `failed` or `aborted` if any property was, else `changed` if any was, else `ok`. */
  readonly outcome: 'changed' | 'ok' | 'failed' | 'aborted';
  readonly durationMs: number;
  /** What left the definition and was taken back. */
  readonly left: readonly PropertyResult[];
  /** One for each property of the definition, in its order. */
  readonly results: readonly PropertyResult[];
  /** What was done at the end. */
  readonly atEnd: readonly PropertyResult[];
  /** What a person should know, such as a property that left the definition and cannot be taken back. */
  readonly warnings: readonly string[];
}

/** What deploy and plan may be told. */
export interface HostOptions {
  /** Aborting ends the running command; what was not tried is reported as skipped. */
  readonly signal?: AbortSignal;
  /** Where prerequisite data comes from; without it there is none. */
  readonly data?: DataStore;
  /** `none`: what was applied is not kept on the host, and nothing is known of earlier runs. Default `keep`. */
  readonly memory?: 'keep' | 'none';
  /** Folder on the host for memory and debts; default /var/lib/buildos. */
  readonly state?: string;
}

/** How to deploy. */
export interface DeployOptions extends HostOptions {
  readonly onProgress?: (progress: DeployProgress) => void;
}

/** A report with failures, as an error. */
export class DeployError extends Error {
  override readonly name = 'DeployError';
  readonly report: DeployReport;
  readonly hint: string | undefined;

  constructor(report: DeployReport) {
    const bad = failures(report);
    const list = bad
      .map(({ description, error }) => `\n- ${description}: ${error?.message ?? 'unknown reason'}`)
      .join('');
    super(`Cannot deploy "${report.host}": ${bad.length} properties failed${list}`, { cause: bad[0]?.error });
    this.report = report;
    const first = bad[0]?.error;
    this.hint = first !== undefined && 'hint' in first && typeof first.hint === 'string' ? first.hint : undefined;
  }
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
 * Makes the properties of a host hold.
 *
 * @returns a report; a failed property is in it, not thrown
 * @throws {InapplicablePropertyError | MissingDataError} before anything is contacted
 * @throws {FailedChangeError} when the host's memory cannot be read or written
 */
export async function deploy(
  definition: HostDefinition,
  connection: Connection,
  options: DeployOptions = {},
): Promise<DeployReport> {
  const started = performance.now();
  const data = options.data ?? new DataStore();
  const attrs = await checkHost(definition, connection.kind, data);
  const state = options.state ?? STATE_FOLDER;
  const ends = new Map<string, PropertyApplication>();
  const run: Run = {
    attrs,
    data,
    state,
    mayAsk: true,
    signal: options.signal,
    onProgress: options.onProgress ?? (() => undefined),
    ends,
    deployInner: async (host, at) => {
      const { onProgress: _own, ...inner } = options;
      const { left, results, atEnd } = await deploy(host, at, inner);
      return [...left, ...results, ...atEnd];
    },
  };
  const work = new Work(run, connection);
  work.pending = definition.properties;
  const log = await openLog(definition, connection, work, options);
  const { unapply, warnings } = planLeaving(log.memory, definition);

  const left: PropertyResult[] = [];
  for (const [index, application] of unapply.entries()) {
    left.push(await work.top(application, { index, count: unapply.length }, 'unapply'));
  }
  const results: PropertyResult[] = [];
  for (const [index, application] of definition.properties.entries()) {
    work.pending = definition.properties.slice(index);
    results.push(await work.top(application, { index, count: definition.properties.length }, 'apply'));
  }
  const atEnd: PropertyResult[] = [];
  for (const [key, application] of work.aborted ? [] : ends) {
    const result = await work.top(application, { index: atEnd.length, count: ends.size }, 'apply');
    atEnd.push(result);
    if (result.outcome === 'changed' || result.outcome === 'ok') await work.debts.payEnd(key);
  }
  const stuck = left
    .filter(({ outcome }) => outcome !== 'changed' && outcome !== 'ok')
    .map(({ application }) => application);
  if (!work.aborted) await log.close(stuck);
  const outcome = outcomeOf([...left, ...results, ...atEnd]);
  return { host: definition.name, outcome, durationMs: performance.now() - started, left, results, atEnd, warnings };
}

/**
 * Throws when a report tells of failures.
 *
 * @throws {DeployError}
 */
export function checkReport(report: DeployReport): void {
  if (report.outcome === 'failed' || report.outcome === 'aborted') throw new DeployError(report);
}

/** The results that failed or gave up: of a failed combinator, the children that did. */
export function failures(report: Pick<DeployReport, 'left' | 'results' | 'atEnd'>): PropertyResult[] {
  const bad = ({ outcome }: PropertyResult): boolean => outcome === 'failed' || outcome === 'aborted';
  const inner = (result: PropertyResult): PropertyResult[] => {
    const below = result.children.filter(bad).flatMap(inner);
    return below.length > 0 ? below : [result];
  };
  return [...report.left, ...report.results, ...report.atEnd].filter(bad).flatMap(inner);
}

/** The host's own record of a run: what it remembers, and how to write what it shall remember. */
interface Log {
  readonly memory: Memory | undefined;
  close(stuck: readonly PropertyApplication[]): Promise<void>;
}

/** Looks memory and debts up, together with the facts of all properties, and writes what may be there from now on. */
async function openLog(
  definition: HostDefinition,
  connection: Connection,
  work: Work,
  options: DeployOptions,
): Promise<Log> {
  if (options.memory === 'none' && !work.needsDebts()) return { memory: undefined, close: async () => undefined };
  const where = { state: options.state ?? STATE_FOLDER, name: definition.name };
  const wants = options.memory === 'none' ? [] : memoryFacts(where.state, where.name);
  await work.loadDebts(wants);
  if (options.memory === 'none') return { memory: undefined, close: async () => undefined };
  const memory = await readMemory(work.facts, where.state, where.name);
  const known = work.facts.text(memoryPath(where.state, where.name));
  const run: Connection['run'] = (argv, runOptions) => connection.run(argv, runOptions);
  const before = memoryBefore(memory, definition);
  const text = before === memory ? known : await writeMemory(run, work.facts, where, before, known);
  return {
    memory,
    close: async (stuck) => {
      await writeMemory(run, work.facts, where, memoryAfter(definition, stuck), text);
    },
  };
}

function outcomeOf(results: readonly PropertyResult[]): DeployReport['outcome'] {
  const has = (outcome: PropertyResult['outcome']): boolean => results.some((result) => result.outcome === outcome);
  if (has('failed')) return 'failed';
  if (has('aborted') || has('skipped')) return 'aborted';
  return has('changed') ? 'changed' : 'ok';
}
