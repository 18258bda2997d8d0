/**
 * The first hop of every chain: this process and the host it runs on.
 *
 * A program gets its own process group; a timeout or an abort ends the whole group (SIGTERM, then SIGKILL), and if this
 * process dies the kernel kills the program.
 */
import { randomBytes } from 'node:crypto';
import { type FileHandle, open, readFile, rename, rm } from 'node:fs/promises';
import { constants } from 'node:os';
import { dirname } from 'node:path';

import { TERM_GRACE_MS, signalGroup, spawnGroup } from './_spawn.ts';
import {
  type CommandFailure,
  type AgentSource,
  type Connection,
  type DataSource,
  type RunOptions,
  type RunResult,
  CommandError,
  FileError,
  checkArgv,
  checkPath,
  isOkStatus,
} from './connection.ts';
import { feed } from './_input.ts';
import { Guard } from './_guard.ts';
import { localNative } from './native.ts';

/** Most output that a run collects unless the caller allows another amount. */
export const MAX_OUTPUT_BYTES: number = 256 * 1024 * 1024;

/** How long a pipe may stay open without a byte after the program ended (a daemon may have inherited it), and in all. */
const PIPE_GRACE_MS = 500;
const PIPE_LIMIT_MS = 5000;

/** What openLocal may be told. */
export interface LocalOptions {
  /**
   * `program` (default): when this process dies, the kernel kills the programs that it started. `group`: also what those
   * started, by a small process that watches; for connections that others stand on.
   */
  readonly killWithUs?: 'program' | 'group';
  /** Variables that programs get, instead of ours. */
  readonly env?: Readonly<Record<string, string>>;
  readonly data?: DataSource;
  readonly agent?: AgentSource;
}

/** Opens the connection to this host. Without a guard it holds nothing, and disposing it does nothing. */
export function openLocal(options: LocalOptions = {}): Connection {
  const guard = options.killWithUs === 'group' ? new Guard() : undefined;
  const connection: Connection = {
    chain: [['local']],
    kind: 'native',
    run: (argv, runOptions) => run(argv, runOptions ?? {}, { guard, env: options.env }),
    readFile: readLocalFile,
    writeFile: writeLocalFile,
    ...(options.data === undefined ? {} : { data: options.data }),
    native: localNative(() => connection, options.agent),
    async [Symbol.asyncDispose]() {
      guard?.end();
    },
  };
  return connection;
}

/** What all runs of a connection have in common. */
interface RunPlace {
  readonly guard: Guard | undefined;
  /** Instead of our environment. */
  readonly env: Readonly<Record<string, string>> | undefined;
}

async function run(argv: readonly string[], options: RunOptions, place: RunPlace): Promise<RunResult> {
  checkArgv(argv);
  if (options.signal?.aborted === true) {
    throw new CommandError({ ...NOTHING_SAID, argv, failure: 'aborted', status: 130, cause: options.signal.reason });
  }
  const ended = await runToEnd(argv, options, place);
  const { failure, status, signal, stdout, stderr, cause } = ended;
  const base = { argv, status, stdout, stderr, ...(signal === undefined ? {} : { signal }) };
  if (failure === 'timeout') throw new CommandError({ ...base, failure, timeoutMs: options.timeoutMs ?? 0 });
  if (failure !== undefined) throw new CommandError({ ...base, failure, cause });
  if (signal !== undefined) throw new CommandError({ ...base, failure: 'signal' });
  if (!isOkStatus(status, options.okStatus)) throw new CommandError({ ...base, failure: 'status' });
  return { status, stdout, stderr };
}

const NOTHING_SAID = { stdout: new Uint8Array(), stderr: new Uint8Array() };

/** How a child ended, and whether we ended it. */
interface Ended extends RunResult {
  readonly failure?: CommandFailure;
  readonly signal?: string;
  readonly cause?: unknown;
}

function runToEnd(argv: readonly string[], options: RunOptions, place: RunPlace): Promise<Ended> {
  return new Promise((resolve) => {
    const announceTo = place.guard?.announceTo();
    const child = spawnGroup(argv, {
      ...(announceTo === undefined ? {} : { announceTo }),
      stdio: [options.input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
      dieWithParent: true,
      ...(place.env === undefined && options.env === undefined ? {} : { env: { ...place.env, ...options.env } }),
      ...(place.env === undefined ? {} : { cleanEnv: true }),
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    });
    const chunks = { stdout: [] as Buffer[], stderr: [] as Buffer[] };
    const sizes = { stdout: 0, stderr: 0 };
    const limit = options.maxOutputBytes ?? MAX_OUTPUT_BYTES;
    let failure: CommandFailure | undefined;
    let cause: unknown;
    let exit: { status: number; signal: string | undefined } | undefined;
    const timers = new Set<NodeJS.Timeout>();
    let pipeTimer: NodeJS.Timeout | undefined;

    const end = (why: CommandFailure, reason?: unknown): void => {
      if (failure !== undefined || child.pid === undefined) return;
      const { pid } = child;
      failure = why;
      cause = reason;
      signalGroup(pid, 'SIGTERM');
      timers.add(setTimeout(() => signalGroup(pid, 'SIGKILL'), TERM_GRACE_MS));
    };
    const onAbort = (): void => end('aborted', options.signal?.reason);
    const fed = new AbortController();
    const settle = (): void => {
      fed.abort();
      for (const timer of timers) clearTimeout(timer);
      clearTimeout(pipeTimer);
      options.signal?.removeEventListener('abort', onAbort);
      child.stdout?.destroy();
      child.stderr?.destroy();
      // Stragglers of a group that we ended must not outlive the answer.
      if (failure !== undefined && child.pid !== undefined) signalGroup(child.pid, 'SIGKILL');
      if (child.pid !== undefined) place.guard?.remove(child.pid);
      resolve({
        status: exit?.status ?? 127,
        stdout: Buffer.concat(chunks.stdout),
        stderr: Buffer.concat(chunks.stderr),
        ...(failure === undefined ? {} : { failure, cause }),
        ...(exit?.signal === undefined ? {} : { signal: exit.signal }),
      });
    };
    const awaitPipes = (): void => {
      if (exit === undefined) return;
      clearTimeout(pipeTimer);
      pipeTimer = setTimeout(settle, PIPE_GRACE_MS);
    };
    for (const name of ['stdout', 'stderr'] as const) {
      child[name]?.on('data', (chunk: Buffer) => {
        if (name === 'stderr' || options.keepStdout !== 'no') {
          sizes[name] += chunk.length;
          if (sizes[name] > limit) end('output');
          else chunks[name].push(chunk);
        }
        const taken = options.onOutput?.(chunk, name);
        if (taken instanceof Promise) {
          child[name]?.pause();
          void taken.finally(() => child[name]?.resume());
        }
        awaitPipes();
      });
    }
    child.stdin?.on('error', () => {}); // EPIPE: it ended without reading all; its status tells whether that matters
    child.on('error', (error) => {
      if (child.pid !== undefined) return; // a failed kill; not a failed start
      failure = 'start';
      cause = startError(error, options.cwd);
      settle();
    });
    child.on('exit', (code, signal) => {
      exit = { status: code ?? 128 + (signal === null ? 0 : constants.signals[signal]), signal: signal ?? undefined };
      fed.abort(); // what it left running gets no more input
      awaitPipes();
      timers.add(setTimeout(settle, PIPE_LIMIT_MS));
    });
    child.on('close', settle);
    if (options.timeoutMs !== undefined) timers.add(setTimeout(() => end('timeout'), options.timeoutMs));
    options.signal?.addEventListener('abort', onAbort, { once: true });
    const { input } = options;
    if (input === undefined || child.stdin === null) return;
    if (typeof input === 'string' || input instanceof Uint8Array) child.stdin.end(input);
    else feed(child.stdin, input, fed.signal).catch((error: unknown) => end('aborted', error));
  });
}

/** Node says ENOENT of the program also when it is the working directory that is missing. */
function startError(error: Error, cwd: string | undefined): Error {
  return cwd === undefined ? error : new Error(`${error.message} (working directory "${cwd}")`, { cause: error });
}

async function readLocalFile(path: string): Promise<Uint8Array> {
  checkPath(path);
  try {
    return await readFile(path);
  } catch (error) {
    throw fileError('read', path, error);
  }
}

async function writeLocalFile(
  path: string,
  content: string | Uint8Array,
  options: { readonly mode: number },
): Promise<void> {
  checkPath(path);
  const temporary = `${path}.${randomBytes(6).toString('hex')}.tmp`;
  let file: FileHandle | undefined;
  try {
    file = await open(temporary, 'wx', 0o600);
    await file.writeFile(content);
    await file.chmod(options.mode);
    await file.sync(); // or a power cut after the rename leaves an empty file
    await file.close();
    file = undefined;
    await rename(temporary, path);
  } catch (error) {
    await file?.close().catch(() => {});
    await rm(temporary, { force: true }).catch(() => {});
    throw fileError('write', path, error);
  }
}

function fileError(action: 'read' | 'write', path: string, error: unknown): FileError {
  const code = error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : 'EIO';
  const reason = error instanceof Error ? error.message : String(error);
  return new FileError({
    action,
    path,
    code,
    reason,
    cause: error,
    ...(action === 'write' && code === 'ENOENT' ? { hint: `Does the directory "${dirname(path)}" exist?` } : {}),
  });
}
