/**
 * Long-running children on this host: QEMU, dnsmasq, a server of a test.
 *
 * The child leads a process group of its own; stop() ends all of it, and if this process dies the kernel kills the child.
 */
import { closeSync, openSync } from 'node:fs';

import { constants } from 'node:os';
import { signalGroup, spawnGroup } from './_spawn.ts';
import { CommandError, checkArgv } from './connection.ts';
import { LineLog } from './line-log.ts';

/** Where a stream of the child goes: kept as lines, thrown away, appended to a file, or (stderr) where stdout goes. */
export type Output = 'lines' | 'ignore' | { readonly file: string };

/** How start() starts a child. */
export interface StartOptions {
  /** Variables to add to our environment. */
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** Default `lines`. */
  readonly stdout?: Output;
  /** Default `lines`. */
  readonly stderr?: Output | 'stdout';
  /** Whether write() will be used; default false: stdin is empty. */
  readonly stdin?: boolean;
  /** Aborting is like stop(2000). */
  readonly signal?: AbortSignal;
  /** Let the child live on when this process dies; default false. */
  readonly outliveParent?: boolean;
}

/** How a child ended: its status, or the signal that killed it. */
export interface ProcessExit {
  /** 128 + n when signal n killed it. */
  readonly status: number;
  readonly signal: string | undefined;
}

/** A child that runs. Disposing it is stop(2000). */
export interface Process extends AsyncDisposable {
  readonly pid: number;
  readonly argv: readonly string[];
  /** Settles when the child itself has ended and its streams are read. Never rejects. */
  readonly exited: Promise<ProcessExit>;
  /** Empty when the stream goes elsewhere. */
  readonly stdout: LineLog;
  readonly stderr: LineLog;
  /**
   * Writes to the child's stdin and waits until it is taken.
   *
   * @throws {TypeError} when the child was started without stdin
   */
  write(text: string | Uint8Array): Promise<void>;
  /** Closes the child's stdin. */
  endInput(): void;
  /** SIGTERM to the whole group, SIGKILL to what is left after graceMs; resolves when the child is gone. */
  stop(graceMs: number): Promise<void>;
}

const DISPOSE_GRACE_MS = 2000;
/** How long the streams may stay open after the child ended: a grandchild may hold them. */
const PIPE_GRACE_MS = 500;

/**
 * Starts a child that runs until it ends or is stopped.
 *
 * @throws {CommandError} with failure `start` when the program does not exist or may not be executed
 */
export async function start(argv: readonly string[], options: StartOptions = {}): Promise<Process> {
  checkArgv(argv);
  const opened: number[] = [];
  const target = (output: Output): number | 'pipe' | 'ignore' => {
    if (output === 'lines') return 'pipe';
    if (output === 'ignore') return 'ignore';
    const fd = openSync(output.file, 'a', 0o644);
    opened.push(fd);
    return fd;
  };
  const stdout = new LineLog();
  const stderr = new LineLog();
  try {
    const out = target(options.stdout ?? 'lines');
    const wanted = options.stderr ?? 'lines';
    const child = spawnGroup(argv, {
      stdio: [options.stdin === true ? 'pipe' : 'ignore', out, wanted === 'stdout' ? out : target(wanted)],
      dieWithParent: options.outliveParent !== true,
      ...(options.env === undefined ? {} : { env: options.env }),
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    });
    const { promise: exited, resolve } = Promise.withResolvers<ProcessExit>();
    let exit: ProcessExit | undefined;
    const settle = (): void => {
      stdout.end();
      stderr.end();
      if (exit !== undefined) resolve(exit);
    };
    child.stdout?.on('data', (chunk: Buffer) => stdout.push(chunk));
    child.stderr?.on('data', (chunk: Buffer) => (wanted === 'stdout' ? stdout : stderr).push(chunk));
    child.stdin?.on('error', () => {}); // EPIPE: write() tells
    child.on('exit', (code, signal) => {
      exit = { status: code ?? 128 + (signal === null ? 0 : constants.signals[signal]), signal: signal ?? undefined };
      setTimeout(settle, PIPE_GRACE_MS).unref();
    });
    child.on('close', settle);
    await new Promise<void>((resolveSpawn, reject) => {
      child.once('spawn', resolveSpawn);
      child.once('error', (cause) => {
        const nothing = new Uint8Array();
        reject(new CommandError({ argv, failure: 'start', status: 127, stdout: nothing, stderr: nothing, cause }));
      });
    });
    const pid = child.pid ?? 0;

    const stop = async (graceMs: number): Promise<void> => {
      signalGroup(pid, 'SIGTERM');
      const timer = setTimeout(() => signalGroup(pid, 'SIGKILL'), graceMs);
      await exited;
      clearTimeout(timer);
      signalGroup(pid, 'SIGKILL'); // what the leader left behind in its group
    };
    const onAbort = (): void => void stop(DISPOSE_GRACE_MS);
    if (options.signal?.aborted === true) onAbort();
    options.signal?.addEventListener('abort', onAbort, { once: true });
    void exited.then(() => options.signal?.removeEventListener('abort', onAbort));

    return {
      pid,
      argv,
      exited,
      stdout,
      stderr,
      write: (text) =>
        new Promise((resolveWrite, reject) => {
          if (child.stdin === null) {
            reject(new TypeError(`Cannot write to "${argv[0] ?? ''}": it was started without stdin`));
            return;
          }
          child.stdin.write(text, (error) => (error ? reject(error) : resolveWrite()));
        }),
      endInput: () => child.stdin?.end(),
      stop,
      [Symbol.asyncDispose]: () => stop(DISPOSE_GRACE_MS),
    };
  } finally {
    for (const fd of opened) closeSync(fd);
  }
}
