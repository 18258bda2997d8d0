/**
 * What the agent decides: which machine a task gets, what an ending means for the result, what to do with what an earlier
 * agent left. Pure.
 */
import { createHash } from 'node:crypto';
import type { MachineEnd } from '../helper/verb.ts';
import type { Machine } from '../machines/enumerate.ts';
import { cleanText, ManifestError } from '../manifests/manifest.ts';
import { isWorse, parseResult } from '../manifests/result.ts';
import type { Result } from '../manifests/result.ts';
import type { Task } from '../manifests/task.ts';
import type { ResultRecord, TaskRecord } from './record.ts';

/** How a build's machine ended. */
export type Ending =
  /** It wrote a result. */
  | { readonly kind: 'result'; readonly text: string }
  /** It ended without one. */
  | { readonly kind: 'ended'; readonly end: MachineEnd; readonly asked: boolean }
  /** It never asked for its task. */
  | { readonly kind: 'silent'; readonly seconds: number }
  | { readonly kind: 'timeout'; readonly seconds: number }
  /** The agent was told to stop. */
  | { readonly kind: 'interrupted' }
  /** The machine could not be made or started. */
  | { readonly kind: 'failed'; readonly message: string; readonly hint?: string };

/** The operation that stands for what happened outside the worker's own. */
const MACHINE_OPERATION = 'machine';

/**
 * The machine for a task.
 *
 * @param pattern - a machine's name, or its first dash components
 */
export function chooseMachine(machines: readonly Machine[], pattern: string): Machine | undefined {
  return (
    machines.find(({ manifest }) => manifest.name === pattern) ??
    machines.find(({ manifest }) => manifest.name.startsWith(`${pattern}-`))
  );
}

/**
 * The result of a build.
 *
 * @param logTail - the end of what the machine logged, for results that it did not make itself
 */
export function makeResult(task: Task, ending: Ending, logTail: string): Result {
  const own = (status: Result['status'], ...lines: readonly string[]): Result => ({
    name: task.name,
    version: task.version,
    status,
    operations: [
      { operation: MACHINE_OPERATION, status, log: cleanText([...lines, ...tailLines(logTail)].join('\n')) },
    ],
  });
  switch (ending.kind) {
    case 'result':
      return readResult(task, ending.text, own);
    case 'interrupted':
      return { name: task.name, version: task.version, status: 'interrupt', operations: [] };
    case 'silent':
      return own(
        'abnormal',
        `The machine did not ask for its task within ${ending.seconds} s and was stopped.`,
        'hint: does its worker start? See the journal of the host, unit buildos-machine-<build>',
      );
    case 'timeout':
      return own('abort', `The build had no result after ${ending.seconds} s, its time limit, and was stopped.`);
    case 'ended':
      return own(
        'abnormal',
        `The machine ended without a result: ${describeEnd(ending.end)}.`,
        ...(ending.asked ? [] : ['It had not asked for its task.']),
      );
    case 'failed':
      return own(
        'abnormal',
        `The machine could not be started: ${ending.message}`,
        ...(ending.hint === undefined ? [] : [`hint: ${ending.hint}`]),
      );
    default:
      return ending satisfies never;
  }
}

/** The id under which a result is kept: sessions may hold characters that file names may not. */
export function resultId(session: string): string {
  const plain = session.replaceAll(/[^A-Za-z0-9]+/g, '-').replaceAll(/^-+|-+$/g, '');
  const digest = createHash('sha256').update(session).digest('hex').slice(0, 16);
  return plain === '' ? digest : `${plain.slice(0, 40).replace(/-$/, '')}-${digest}`;
}

/** What to do at the start with one task that an earlier agent had taken. */
export type Recovery =
  /** Its result is kept already: only the record is left. */
  | { readonly kind: 'forget'; readonly record: TaskRecord }
  /** It was running: the controller gets it back. */
  | { readonly kind: 'interrupt'; readonly record: TaskRecord };

/** What is left to do for tasks that an earlier agent had taken. */
export function planRecovery(tasks: readonly TaskRecord[], results: readonly ResultRecord[]): readonly Recovery[] {
  const delivered = new Set(results.map((result) => result.session));
  return tasks.map((record) => ({ kind: delivered.has(record.session) ? 'forget' : 'interrupt', record }));
}

/** Folders of finished builds that stay readable over TFTP. */
const KEPT_BUILDS = 8;

/**
 * The folders of builds to remove.
 *
 * @param found - builds that have a folder, with their numbers
 */
export function planPrune(
  found: readonly { readonly build: string; readonly number: number }[],
  running: ReadonlySet<string>,
): readonly string[] {
  return found
    .filter(({ build }) => !running.has(build))
    .toSorted((a, b) => b.number - a.number)
    .slice(KEPT_BUILDS)
    .map(({ build }) => build);
}

function readResult(task: Task, text: string, own: (status: 'abnormal', ...lines: string[]) => Result): Result {
  try {
    const result = parseResult(text, { name: 'result.manifest of the machine' });
    if (result.name !== task.name || result.version !== task.version) {
      return own(
        'abnormal',
        `The machine gave the result of ${result.name} ${result.version}, which was not its task.`,
      );
    }
    return result;
  } catch (error) {
    if (!(error instanceof ManifestError)) throw error;
    return own('abnormal', `The machine gave a result that is none: ${error.message}`);
  }
}

/** A result whose upload was lost on the way: no success any more, and it says so. */
export function withoutUpload(result: Result, reason: string): Result {
  const lost = { operation: 'deliver', status: 'abnormal', log: cleanText(reason) } as const;
  return {
    ...result,
    status: isWorse(lost.status, result.status) ? lost.status : result.status,
    operations: [...result.operations, lost],
  };
}

const describeEnd = (end: MachineEnd): string => {
  switch (end.result) {
    case 'success':
      return 'its worker ended with status 0';
    case 'exit-code':
      return `its worker ended with status ${end.status}`;
    case 'signal':
    case 'core-dump':
      return `its worker was killed by signal ${end.status}`;
    case 'oom-kill':
      return 'it ran out of memory';
    case 'timeout':
      return 'it reached its time limit';
    case 'absent':
      return 'it disappeared (killed, or cleaned up by someone else)';
    default:
      return `systemd says ${end.result}, status ${end.status}`;
  }
};

function tailLines(logTail: string): readonly string[] {
  return logTail === '' ? ['It logged nothing.'] : ['The end of its log:', '', logTail];
}
