/** The steps of stage 1 as data: what plan.ts decides and run.ts does. */
import { type Mount, describeMount } from '../host/mount.ts';

/** User and group by number: names mean nothing before the switch to the new root. */
export interface Owner {
  readonly uid: number;
  readonly gid: number;
}

/** A folder to make; one that is there gets this mode and owner too. */
export interface Folder {
  readonly path: string;
  readonly mode: number;
  readonly owner: Owner;
}

/** One change. */
export type Action =
  | { readonly kind: 'mount'; readonly mounts: readonly Mount[] }
  | { readonly kind: 'check-digest'; readonly file: string; readonly sha256: string }
  | { readonly kind: 'make-folders'; readonly folders: readonly Folder[] }
  | {
      readonly kind: 'write-file';
      readonly path: string;
      readonly content: string;
      readonly mode: number;
      readonly owner?: Owner;
    };

/** Changes that belong together, with a name for the console, the boot chart and the blame. */
export interface Step {
  readonly name: string;
  /** What a person may try when this step fails. */
  readonly hint: string;
  readonly actions: readonly Action[];
}

/** Stage 1 cannot go on. */
export class InitError extends Error {
  override readonly name = 'InitError';
  /** The step that failed. */
  readonly step: string;
  readonly hint: string;

  constructor(step: string, reason: string, options: { readonly hint: string; readonly cause?: unknown }) {
    super(reason, options.cause === undefined ? undefined : { cause: options.cause });
    this.step = step;
    this.hint = options.hint;
  }
}

/** A line per change, for the log. */
export function describe(step: Step): string[] {
  return step.actions.flatMap((action) => describeAction(action).map((line) => `${step.name}: ${line}`));
}

function describeAction(action: Action): string[] {
  switch (action.kind) {
    case 'mount':
      return action.mounts.map((mount) => `mount ${describeMount(mount)}`);
    case 'check-digest':
      return [`check that ${action.file} has SHA-256 ${action.sha256}`];
    case 'make-folders':
      return action.folders.map(({ path, mode, owner }) => `folder ${path} ${describeMode(mode, owner)}`);
    case 'write-file':
      return [`file ${action.path} ${describeMode(action.mode, action.owner)}, ${action.content.length} characters`];
    default:
      return action satisfies never;
  }
}

function describeMode(mode: number, owner: Owner = { uid: 0, gid: 0 }): string {
  return `${mode.toString(8).padStart(4, '0')} ${owner.uid}:${owner.gid}`;
}
