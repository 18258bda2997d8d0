/**
 * The helper's socket: takes one line a connection, has the verb performed, answers with one line.
 *
 *     client                      helper
 *       │  {"verb":"…",…}\n          │   at most 16 KiB, within 5 s, from an allowed user
 *       ├──────────────────────────►│
 *       │  {"ok":true,…}\n           │   or {"ok":false,"error":"…","hint":"…"}
 *       │◄──────────────────────────┤   and the connection is closed
 *
 * A verb goes on when its client leaves, because half a verb helps nobody; the client asks again. Verbs that change
 * the same build, toolchain or host wait for each other.
 */
import { chmodSync } from 'node:fs';
import { type Server, type Socket, createServer } from 'node:net';
import { CommandError } from '../connections/connection.ts';
import type { Peer } from './peer.ts';
import { RefusedError } from './plan.ts';
import { MAX_LINE_BYTES, type Verb, VerbError, parseVerb } from './verb.ts';

/** What a server is made of. */
export interface ServerOptions {
  /** a listening socket from systemd, or a path to listen at, for its owner only */
  readonly listen: { readonly fd: number } | { readonly path: string };
  /** who may ask; without it only the socket's file mode decides */
  readonly peers?: { readonly lookUp: (socket: Socket) => Peer | undefined; readonly uids: readonly number[] };
  /** `gone` is aborted when the client leaves before the answer */
  readonly perform: (verb: Verb, log: (line: string) => void, gone: AbortSignal) => Promise<object>;
  readonly lockOf: (verb: Verb) => string | undefined;
  readonly log: (line: string) => void;
  /** connections at once, default 128; what comes above is told so and closed */
  readonly maxConnections?: number;
  /** for the whole line to arrive, default 5 s */
  readonly lineTimeoutMs?: number;
}

/** A helper that listens. */
export interface HelperServer extends AsyncDisposable {
  /** Stops listening and waits for the verbs that run. */
  close(): Promise<void>;
}

type Answer = { readonly ok: true } | { readonly ok: false; readonly error: string; readonly hint?: string };

const MAX_CONNECTIONS = 128;
const LINE_TIMEOUT_MS = 5000;

/** How long a client may take to read its answer. */
const ANSWER_TIMEOUT_MS = 5000;

/** A failed command's message may hold pages of output; the whole is in the log. */
const MAX_ERROR_CHARACTERS = 4000;

/** Serves until closed. */
export async function serveHelper(options: ServerOptions): Promise<HelperServer> {
  const running = new Set<Promise<void>>();
  const exclusively = makeLocks();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    const work = serveConnection(socket, running.size, exclusively, options).finally(() => running.delete(work));
    running.add(work);
  });
  await listen(server, options.listen);
  const close = async (): Promise<void> => {
    await new Promise<void>((resolve) => server.close(() => resolve()));
    await Promise.all(running);
  };
  return { close, [Symbol.asyncDispose]: close };
}

function listen(server: Server, where: ServerOptions['listen']): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(where, () => {
      server.off('error', reject);
      if ('path' in where) chmodSync(where.path, 0o600);
      resolve();
    });
  });
}

/** From the first byte to the last; never throws. */
async function serveConnection(
  socket: Socket,
  others: number,
  exclusively: Locks,
  options: ServerOptions,
): Promise<void> {
  const gone = new AbortController();
  socket.on('error', () => gone.abort());
  socket.on('close', () => gone.abort());
  // Of a client that went away no more is seen than its end of the stream; one that only closed its side gets its
  // answer all the same, of `machine.wait` the one that holds now.
  socket.on('end', () => gone.abort());
  const answer = await answerTo(socket, others, exclusively, gone.signal, options);
  if (answer === undefined) {
    socket.destroy();
    return;
  }
  socket.setTimeout(ANSWER_TIMEOUT_MS, () => socket.destroy());
  socket.end(`${JSON.stringify(answer)}\n`, () => socket.destroy());
}

/** The answer, or undefined for a client that left without a request. */
async function answerTo(
  socket: Socket,
  others: number,
  exclusively: Locks,
  gone: AbortSignal,
  options: ServerOptions,
): Promise<Answer | undefined> {
  const { log } = options;
  try {
    const peer = options.peers?.lookUp(socket);
    if (options.peers !== undefined && (peer === undefined || !options.peers.uids.includes(peer.uid))) {
      log(`refused a connection of user ${peer?.uid ?? 'unknown'}, process ${peer?.pid ?? 'unknown'}`);
      return refusal('This user may not ask the helper');
    }
    const most = options.maxConnections ?? MAX_CONNECTIONS;
    if (others >= most) {
      log(`refused a connection: ${others} are open`);
      return refusal(`The helper has ${others} requests in hand, and takes no more than ${most}`, 'ask again later');
    }
    const line = await readLine(socket, options.lineTimeoutMs ?? LINE_TIMEOUT_MS);
    return line === undefined ? undefined : await answerLine(line, exclusively, gone, options);
  } catch (error) {
    return describeError(error, log);
  }
}

async function answerLine(
  line: string,
  exclusively: Locks,
  gone: AbortSignal,
  options: ServerOptions,
): Promise<Answer> {
  const verb = parseVerb(parseJson(line));
  const subject = describeSubject(verb);
  const log = (text: string): void => options.log(`${subject}: ${text}`);
  const start = performance.now();
  const passed = (): string => `${Math.round(performance.now() - start)} ms`;
  try {
    const reply = await exclusively(options.lockOf(verb), () => options.perform(verb, log, gone));
    if (options.lockOf(verb) !== undefined) log(`done in ${passed()}`);
    return { ok: true, ...reply };
  } catch (error) {
    log(`failed after ${passed()}`);
    return describeError(error, log);
  }
}

/** The verb and what it is about, for the log. */
function describeSubject(verb: Verb): string {
  if ('build' in verb) return `${verb.verb} ${verb.build}`;
  return 'toolchain' in verb ? `${verb.verb} ${verb.toolchain}` : verb.verb;
}

function parseJson(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    throw new VerbError('Cannot take the request: it is not JSON');
  }
}

/** Says what went wrong: to the client when it is about its request, to the log always. */
function describeError(error: unknown, log: (line: string) => void): Answer {
  const message = error instanceof Error ? error.message : String(error);
  log(`error: ${message}`);
  const isKnown = error instanceof VerbError || error instanceof RefusedError || error instanceof CommandError;
  if (!isKnown && error instanceof Error && error.stack !== undefined) log(error.stack);
  return refusal(message, isKnown ? error.hint : 'see the journal of buildos-helper.service');
}

function refusal(error: string, hint?: string): Answer {
  const cut = error.length > MAX_ERROR_CHARACTERS ? `${error.slice(0, MAX_ERROR_CHARACTERS)}…` : error;
  return { ok: false, error: cut, ...(hint !== undefined && { hint }) };
}

/**
 * Reads up to the first newline.
 *
 * @returns undefined when the client closes without having sent anything
 * @throws {VerbError} when the line is too long, too slow, unfinished, or followed by more
 */
function readLine(socket: Socket, timeoutMs: number): Promise<string | undefined> {
  return new Promise((resolve, reject) => {
    let received = Buffer.alloc(0);
    const settle = (act: () => void): void => {
      clearTimeout(timer);
      socket.off('data', onData);
      socket.off('end', onEnd);
      socket.off('close', onEnd);
      socket.resume(); // what comes now is not read, but the end is noticed
      act();
    };
    const refuse = (reason: string): void => settle(() => reject(new VerbError(`Cannot take the request: ${reason}`)));
    const onData = (chunk: Buffer): void => {
      received = Buffer.concat([received, chunk]);
      const end = received.indexOf(0x0a);
      if (received.length > MAX_LINE_BYTES) refuse(`it is longer than ${MAX_LINE_BYTES} bytes`);
      else if (end >= 0 && end < received.length - 1) refuse('it is more than one line');
      else if (end >= 0) settle(() => resolve(received.subarray(0, end).toString('utf8')));
    };
    const onEnd = (): void => {
      if (received.length === 0) settle(() => resolve(undefined));
      else refuse('it has no newline at its end');
    };
    const timer = setTimeout(() => refuse(`no line came within ${timeoutMs} ms`), timeoutMs);
    socket.on('data', onData);
    socket.on('end', onEnd);
    socket.on('close', onEnd);
  });
}

type Locks = <T>(name: string | undefined, work: () => Promise<T>) => Promise<T>;

/** One at a time for each name, in the order of asking; without a name, at once. */
function makeLocks(): Locks {
  const last = new Map<string, Promise<unknown>>();
  return async (name, work) => {
    if (name === undefined) return work();
    const before = last.get(name) ?? Promise.resolve();
    const mine = before.then(work, work);
    last.set(name, mine);
    try {
      return await mine;
    } finally {
      if (last.get(name) === mine) last.delete(name);
    }
  };
}
