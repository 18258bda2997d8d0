/**
 * What a service says to systemd and gets from it: sd_notify(3), sd_watchdog_enabled(3), sd_listen_fds(3).
 *
 * Messages go through libsystemd, called with `node:ffi`: a message then comes from the main process itself, which is
 * what `NotifyAccess=main` accepts, and costs no process. Where node:ffi or the library is missing, the program
 * `systemd-notify` sends them; it is a child, so the unit then needs `NotifyAccess=all`.
 *
 * The protocol is made of environment variables, so this file reads them (and nothing else of the environment).
 * Leaves out: file descriptor store, barriers.
 */
import { openLocal } from '../connections/local.ts';

const LIBSYSTEMD = 'libsystemd.so.0';
/** sd_listen_fds(3): SD_LISTEN_FDS_START in sd-daemon.h. */
const LISTEN_FDS_START = 3;
/** More descriptors than this is a corrupt LISTEN_FDS: no unit of ours has more than a few sockets. */
const LISTEN_FDS_LIMIT = 64;
/** Messages that may wait for the program; more means that systemd is not reading, and the oldest is dropped. */
const WAITING_LIMIT = 16;
const PROGRAM_TIMEOUT_MS = 5000;

type Send = (state: string) => void;
type Environment = Readonly<Record<string, string | undefined>>;

let send: Send | undefined;

/**
 * Sends a message to systemd: lines `NAME=value`, such as `READY=1\nSTATUS=Serving`. Does nothing when the process
 * was not started by a service manager (`NOTIFY_SOCKET` is unset). Never throws: a service must not fail because its
 * manager does not listen. libsystemd sends and does not poll, so it waits while the socket's queue is full (10
 * messages by net.unix.max_dgram_qlen, which only a manager that hangs lets fill up).
 *
 * @param state - one or more assignments, joined by line feeds; a value holds no line feed (see {@link statusLine})
 */
export function notify(state: string): void {
  if (process.env['NOTIFY_SOCKET'] === undefined) return;
  send ??= libsystemd() ?? programSender();
  send(state.replaceAll('\0', ' '));
}

/**
 * Makes a `STATUS=` assignment of a text: one line, at most 200 characters, as `systemctl status` shows it.
 */
export function statusLine(text: string): string {
  // oxlint-disable-next-line no-control-regex -- control characters are just what must not reach a terminal
  const line = text.replaceAll(/[\u0000-\u001f\u007f]+/g, ' ').trim();
  return `STATUS=${line.length > 200 ? `${line.slice(0, 199)}…` : line}`;
}

/**
 * The time within which the service must send `WATCHDOG=1` again and again (`WatchdogSec=`).
 *
 * @returns microseconds, or undefined when no watchdog is set, or it is set for another process
 */
export function watchdogUsec(environment: Environment = process.env): number | undefined {
  const pid = environment['WATCHDOG_PID'];
  if (pid !== undefined && pid !== String(process.pid)) return undefined;
  const usec = parseCount(environment['WATCHDOG_USEC']);
  return usec === undefined || usec === 0 ? undefined : usec;
}

/**
 * The sockets that systemd opened for this process, in the order of the `.socket` unit.
 *
 * @returns descriptors 3, 4, …; empty when the sockets are for another process or there are none
 */
export function listenFds(environment: Environment = process.env): readonly number[] {
  if (environment['LISTEN_PID'] !== String(process.pid)) return [];
  const count = parseCount(environment['LISTEN_FDS']) ?? 0;
  if (count > LISTEN_FDS_LIMIT) return [];
  return Array.from({ length: count }, (_, index) => LISTEN_FDS_START + index);
}

function parseCount(text: string | undefined): number | undefined {
  if (text === undefined || !/^[0-9]{1,15}$/.test(text)) return undefined;
  return Number(text);
}

/** The sender through libsystemd, or undefined when node:ffi or the library is not there. */
function libsystemd(): Send | undefined {
  try {
    const { functions } = loadFfi().dlopen(LIBSYSTEMD, {
      sd_notify: { arguments: ['i32', 'string'], return: 'i32' },
    });
    // The first argument 0 keeps NOTIFY_SOCKET; a negative result (errno) is a manager that went away.
    return (state) => void functions.sd_notify(0, state);
  } catch {
    return undefined;
  }
}

/**
 * Loads node:ffi without its ExperimentalWarning: the choice is recorded, and a line in every service's log helps
 * nobody. Only this warning, and only while the module loads, is kept back; all others are given as ever.
 *
 * @throws {Error} when this Node has no node:ffi (before 26, or `--no-experimental-ffi`)
 */
function loadFfi(): typeof import('node:ffi') {
  // oxlint-disable-next-line typescript/unbound-method -- put back as it was found, and called through Reflect.apply
  const emitWarning = process.emitWarning;
  const filtered = (warning: string | Error, ...rest: unknown[]): void => {
    if (rest[0] === 'ExperimentalWarning' && String(warning).startsWith('FFI ')) return;
    Reflect.apply(emitWarning, process, [warning, ...rest]);
  };
  process.emitWarning = filtered;
  try {
    const ffi = process.getBuiltinModule('node:ffi');
    if (ffi === undefined) throw new Error('This Node has no node:ffi');
    return ffi;
  } finally {
    process.emitWarning = emitWarning;
  }
}

/** The sender through the program: one at a time, in order, in the background. */
function programSender(): Send {
  const waiting: string[] = [];
  let running = false;
  const work = async (): Promise<void> => {
    running = true;
    const local = openLocal();
    for (let state = waiting.shift(); state !== undefined; state = waiting.shift()) {
      try {
        await local.run(['systemd-notify', ...state.split('\n').filter((line) => line !== '')], {
          timeoutMs: PROGRAM_TIMEOUT_MS,
          okStatus: 'any',
        });
      } catch {
        // No program either: the watchdog will say so. There is nobody left to tell.
      }
    }
    running = false;
  };
  return (state) => {
    if (waiting.length >= WAITING_LIMIT) waiting.shift();
    waiting.push(state);
    if (!running) void work();
  };
}
