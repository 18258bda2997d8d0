/**
 * Starts the programs of a build, inside its machine. The one file outside connections/ that starts programs: here there
 * is no other host to reach, and the worker's bundle stays small.
 *
 * Standard output and standard error are one pipe, so that lines keep their order. The program is the leader of a process
 * group of its own: on a time limit, and after it ended, what is left of the group is killed.
 */
import { spawn as spawnChild } from 'node:child_process';

/** What to run, and within which bounds. */
export interface SpawnOptions {
  readonly cwd: string;
  /** The whole environment; nothing is inherited. */
  readonly env: Readonly<Record<string, string>>;
  readonly timeLimitMs: number;
  readonly onOutput: (chunk: Uint8Array) => void;
}

/** How it ended. */
export type SpawnResult =
  | { readonly kind: 'exited'; readonly status: number }
  | { readonly kind: 'killed'; readonly signal: string }
  | { readonly kind: 'timed-out' }
  | { readonly kind: 'not-started'; readonly reason: string };

/** How long output is awaited after the program ended, for children that still hold the pipe. */
const DRAIN_MS = 1000;

/**
 * Runs a program to its end. Never throws: every way to end is a value.
 */
export function spawn(argv: readonly string[], options: SpawnOptions): Promise<SpawnResult> {
  const { promise, resolve } = Promise.withResolvers<SpawnResult>();
  // sh joins the two streams; it is replaced by the program at once.
  const child = spawnChild('/bin/sh', ['-c', 'exec "$@" 2>&1', 'sh', ...argv], {
    cwd: options.cwd,
    env: { ...options.env },
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
  });
  let timedOut = false;
  const timer = setTimeout(() => {
    timedOut = true;
    killGroup(child.pid);
  }, options.timeLimitMs);
  child.stdout.on('data', options.onOutput);
  child.stderr.on('data', options.onOutput);
  child.on('error', (error) => {
    clearTimeout(timer);
    resolve({ kind: 'not-started', reason: error.message });
  });
  child.on('exit', (status, signal) => {
    clearTimeout(timer);
    const result: SpawnResult = timedOut
      ? { kind: 'timed-out' }
      : status === null
        ? { kind: 'killed', signal: signal ?? 'unknown' }
        : { kind: 'exited', status };
    const end = (): void => {
      clearTimeout(drain);
      killGroup(child.pid);
      child.stdout.destroy();
      child.stderr.destroy();
      resolve(result);
    };
    const drain = setTimeout(end, DRAIN_MS);
    child.on('close', end);
  });
  return promise;
}

const killGroup = (pid: number | undefined): void => {
  if (pid === undefined) return;
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // ESRCH: nobody is left in the group, which is what was wanted.
  }
};
