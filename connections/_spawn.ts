/**
 * Children of this process: how they start, and how a whole process group ends.
 *
 * node:child_process rather than execa: we need the process group (`detached`, kill of the negative pid), raw bytes of
 * both streams as they come, and a small bundle for PID 1; what execa adds (shell-like pipes, verbose modes, line
 * decoding) is not used here.
 */
import { type ChildProcess, type IOType, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import type { Stream, Writable } from 'node:stream';

/** How long a group that got SIGTERM has before SIGKILL. */
export const TERM_GRACE_MS = 1000;

const SETPRIV = ['/usr/bin/setpriv', '/bin/setpriv'].find((path) => existsSync(path));

/** What spawnGroup needs to know. */
export interface SpawnOptions {
  readonly env?: Readonly<Record<string, string>>;
  /** Start from an empty environment instead of ours. */
  readonly cleanEnv?: boolean;
  readonly cwd?: string;
  readonly stdio: readonly (IOType | Stream | number)[];
  /** The kernel kills it when this process dies, whatever kills us (prctl PR_SET_PDEATHSIG, by setpriv when there is one). */
  readonly dieWithParent: boolean;
  /** The guard's input: the group is announced there before anything of the program runs. */
  readonly announceTo?: Writable;
}

/** Says our group to the guard and becomes the program. */
const ANNOUNCE = 'echo "+ $$" >&3; exec "$@" 3>&-';

/** Whether this host has what a guard needs. */
export const CAN_ANNOUNCE: boolean = SETPRIV !== undefined && existsSync('/bin/sh');

/** Starts a program as the leader of a process group (and session) of its own. */
export function spawnGroup(argv: readonly string[], options: SpawnOptions): ChildProcess {
  const mortal =
    options.dieWithParent && SETPRIV !== undefined ? [SETPRIV, '--pdeathsig', 'KILL', '--', ...argv] : argv;
  const { announceTo } = options;
  const words = announceTo === undefined ? mortal : ['/bin/sh', '-c', ANNOUNCE, 'sh', ...mortal];
  const [program = '', ...args] = words;
  const base = options.cleanEnv === true ? {} : process.env;
  return spawn(program, args, {
    stdio: announceTo === undefined ? [...options.stdio] : [...options.stdio, announceTo],
    detached: true,
    env: options.env === undefined ? base : { ...base, ...options.env },
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
  });
}

/**
 * Sends a signal to a process group.
 *
 * A group that belongs to another user (a command under sudo) is out of our reach; then sudo is asked to send it.
 *
 * @returns false when nothing is left of the group
 */
export function signalGroup(groupId: number, signal: 'SIGTERM' | 'SIGKILL'): boolean {
  try {
    process.kill(-groupId, signal);
    return true;
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (code !== 'EPERM') return false;
    const killer = spawn('sudo', ['-n', 'kill', `-${signal.slice(3)}`, '--', `-${groupId}`], { stdio: 'ignore' });
    killer.on('error', () => {}); // no sudo either: there is nothing more that we may do
    return true;
  }
}
