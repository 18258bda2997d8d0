/**
 * A TFTP client: get and put, in memory, with files and with streams. Asks for large blocks and a window, which other
 * servers pass over or lower; a server that refuses options at all (ERROR 8) is asked once more without. A host with
 * several addresses is asked at the next one when the first is silent.
 */
import { lookup } from 'node:dns/promises';
import { closeSync, constants, fstatSync, openSync } from 'node:fs';
import { SocketAddress, isIP } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

import { type Work, exchange } from './client-exchange.ts';
import { type ServerAddress, withoutZone } from './client-socket.ts';
import { RefusedError, TransferError, systemCode } from './error.ts';
import type { TransferState } from './exchange.ts';
import { toRefused } from './folder.ts';
import { encodeNetascii } from './netascii.ts';
import {
  type Options,
  BLKSIZE_MAX,
  BLKSIZE_MIN,
  DEFAULT_BLKSIZE,
  DEFAULT_WINDOWSIZE,
  WINDOWSIZE_MAX,
} from './options.ts';
import { PathSink } from './path-sink.ts';
import { createReceiver, stepReceiver } from './receiver.ts';
import { createSender, stepSender } from './sender.ts';
import { type Sink, MemorySink, NetasciiSink } from './sink.ts';
import { type Source, FileSource, MemorySource, NetasciiSource } from './source.ts';
import { SpoolSink, spool } from './spool.ts';
import { PATIENCE_MS } from './timing.ts';

const TFTP_PORT = 69;
/** An Ethernet frame: 1500 less IPv4 (20), UDP (8) and TFTP (4) headers. */
const CLIENT_BLKSIZE = 1468;
const CLIENT_WINDOWSIZE = 32;
/** The process lives so long after its last ACK; the server repeats its last DATA when that was lost. */
const CLIENT_DALLY_MS = 500;
/** What `get` holds in memory at most. */
const MEMORY_BYTES_MAX = 1024 * 1024 * 1024;
/** An address of several gets at least so long for its first answer: a request and two repeats. */
const ANSWER_MIN_MS = 4000;
/** Before the first retry; then twice as long each time. */
const RETRY_PAUSE_MS = 1000;
const RETRY_PAUSE_MAX_MS = 30_000;

/** A server, a name there, and how to ask. */
export interface ClientOptions {
  /** host name or IP address; an IPv6 address may have a zone (`fe80::1%eth0`) */
  readonly host: string;
  /** default 69 */
  readonly port?: number | undefined;
  /** name of the file at the server */
  readonly name: string;
  /** default `octet` */
  readonly mode?: 'octet' | 'netascii' | undefined;
  /** blksize to ask for, 8 to 65464; default 1468; 512 asks for none */
  readonly blksize?: number | undefined;
  /** windowsize to ask for, 1 to 65535; default 32; 1 asks for none */
  readonly windowsize?: number | undefined;
  /** option `timeout` to ask for (RFC 2349), 1 to 255: both sides first repeat after so long; default: as measured */
  readonly repeatSeconds?: number | undefined;
  /** gives up after so long without progress; default 30 000 */
  readonly timeoutMs?: number | undefined;
  /** begins again so often when nobody answers or the transfer breaks, after 1 s, 2 s, 4 s …; default 0 */
  readonly retries?: number | undefined;
  /** finds the addresses of a host name, in the order in which they are asked; default: the system's, IPv4 first */
  readonly lookup?: ((host: string) => Promise<readonly string[]>) | undefined;
  /** ends the transfer; the server is told */
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: Progress) => void) | undefined;
  /** a try has failed, and another one begins */
  readonly onRetry?: ((error: TransferError) => void) | undefined;
}

/** How far a transfer is, on the wire. */
export interface Progress {
  readonly bytes: number;
  /** the whole, when it is known */
  readonly totalBytes: number | undefined;
}

/** How a transfer went. */
export interface TransferReport {
  /** bytes on the wire */
  readonly bytes: number;
  readonly blocks: number;
  /** packets that were sent again */
  readonly repeats: number;
  /** options in force */
  readonly granted: Options;
  /** address of the server */
  readonly address: string;
  /** smoothed round trip, when one was measured */
  readonly rttMs?: number;
  readonly durationMs: number;
}

/**
 * Gets a file into memory.
 *
 * @param options.maxBytes - more end the transfer; default 1 GiB
 * @throws {TransferError} when the server refuses or is not there, or the transfer breaks
 * @throws {RangeError} when an option is out of its range
 * @throws the reason of `signal`
 */
export async function get(options: ClientOptions & { readonly maxBytes?: number | undefined }): Promise<Uint8Array> {
  return await retry(options, async () => {
    const sink = new MemorySink();
    await receive(options, sink, options.maxBytes ?? MEMORY_BYTES_MAX);
    return sink.take();
  });
}

/**
 * Gets a file into a file, which appears, or is replaced, when all is there. One that is replaced keeps its mode.
 *
 * @param options.file - where it goes; must not be a symlink, folder or device
 * @throws {TransferError} as `get`; also when the file cannot be written
 * @throws {RangeError} when an option is out of its range
 * @throws the reason of `signal`
 */
export async function getToFile(
  options: ClientOptions & { readonly file: string; readonly maxBytes?: number | undefined },
): Promise<TransferReport> {
  checkClientOptions(options);
  return await retry(options, async () => {
    let sink: PathSink;
    try {
      sink = new PathSink(options.file);
    } catch (error) {
      throw localError(options, 'read', `cannot write ${options.file}`, error);
    }
    const findObstacle = (bytes: number): string | undefined => sink.findObstacle(bytes);
    return await receive(options, sink, options.maxBytes ?? Number.MAX_SAFE_INTEGER, findObstacle);
  });
}

/**
 * Gets a file as a stream, for a reader of any speed: what it has not taken yet waits in a temporary file without a name.
 * The bytes come before it is known that all will come: only the end without an error says so. To stop early, leave the
 * loop; the server is told. Is begun again (`retries`) only as long as no byte has come.
 *
 * @returns chunks that the reader may keep; at the end the report
 * @throws {TransferError} as `get`
 * @throws {RangeError} when an option is out of its range
 * @throws the reason of `signal`
 */
export async function* getStream(
  options: ClientOptions & { readonly maxBytes?: number | undefined },
): AsyncGenerator<Uint8Array, TransferReport> {
  checkClientOptions(options);
  using sink = openSpool(options);
  const left = new AbortController();
  const signal = options.signal === undefined ? left.signal : AbortSignal.any([options.signal, left.signal]);
  const running = retry(
    { ...options, signal },
    // The spool outlives the transfer.
    () => {
      const into: Sink = {
        write: (bytes) => sink.write(bytes),
        commit: () => sink.commit(),
        [Symbol.dispose]: () => {},
      };
      return receive({ ...options, signal }, into, options.maxBytes ?? Number.MAX_SAFE_INTEGER);
    },
    () => sink.bytes === 0,
  ).finally(() => sink.end());
  // It is awaited below; meanwhile the reader may take its time.
  running.catch(() => {});
  try {
    yield* sink.chunks();
    return await running;
  } finally {
    left.abort(new Error('The reader has left'));
    await running.catch(() => {});
  }
}

/** What is put: bytes, text, a regular file, or a stream of chunks (kept in a temporary file until its size is known). */
export type PutContent = Uint8Array | string | { readonly file: string } | AsyncIterable<Uint8Array>;

/**
 * Puts a file.
 *
 * @param options.content - bytes, text (as UTF-8), `{ file }`, whose size at this moment counts, or a stream
 * @param options.offset - private: the bytes go there in a file that grows (see `serveMachine`); a server that does not
 *   know the option is not written to
 * @throws {TransferError} when the server refuses or is not there, or the transfer breaks
 * @throws {RangeError} when an option is out of its range
 * @throws the reason of `signal`
 */
export async function put(
  options: ClientOptions & { readonly content: PutContent; readonly offset?: number | undefined },
): Promise<TransferReport> {
  checkClientOptions(options);
  using content = await openContent(options);
  return await retry(options, async () => {
    using source = await content.open();
    const asked: Options = {
      ...askedOptions(options),
      tsize: source.size,
      ...(options.offset !== undefined && { offset: options.offset }),
    };
    return await perform(options, 'write', asked, {
      start: (asked) =>
        createSender({
          opening: { kind: 'request', asked },
          granted: {},
          size: source.size,
          patienceMs: options.timeoutMs ?? PATIENCE_MS,
        }),
      step: stepSender,
      source,
      totalBytes: () => source.size,
    });
  });
}

async function receive(
  options: ClientOptions,
  to: Sink,
  bytesMax: number,
  findObstacle?: (bytes: number) => string | undefined,
): Promise<TransferReport> {
  const isText = options.mode === 'netascii';
  using sink = isText ? new NetasciiSink(to) : to;
  checkClientOptions(options);
  return await perform(
    options,
    'read',
    { ...askedOptions(options), tsize: 0 },
    {
      start: (asked) =>
        createReceiver({
          opening: { kind: 'request', asked },
          granted: {},
          bytesMax,
          checkSize: !isText,
          dallyMs: CLIENT_DALLY_MS,
          patienceMs: options.timeoutMs ?? PATIENCE_MS,
        }),
      step: stepReceiver,
      sink,
      totalBytes: (state) => state.granted.tsize,
      ...(findObstacle && { findObstacle }),
    },
  );
}

/** Does it again when nobody has answered or the transfer broke, as often as asked, with growing pauses. */
async function retry<T>(
  options: ClientOptions,
  work: () => Promise<T>,
  mayRetry: () => boolean = () => true,
): Promise<T> {
  for (let tried = 0; ; tried += 1) {
    try {
      return await work();
    } catch (error) {
      const isWorthIt = error instanceof TransferError && (error.kind === 'unanswered' || error.kind === 'broken');
      if (!isWorthIt || tried >= (options.retries ?? 0) || !mayRetry()) throw error;
      options.onRetry?.(error);
      const pauseMs = Math.min(RETRY_PAUSE_MS * 2 ** tried, RETRY_PAUSE_MAX_MS);
      await sleep(pauseMs, undefined, options.signal && { signal: options.signal }).catch(() => {});
      options.signal?.throwIfAborted();
    }
  }
}

/** One transfer with the first address that answers, and a second one without options where they were refused. */
async function perform<State extends TransferState>(
  options: ClientOptions,
  direction: 'read' | 'write',
  asked: Options,
  work: Work<State>,
): Promise<TransferReport> {
  options.signal?.throwIfAborted();
  const servers = await findServers(options, direction);
  options.signal?.throwIfAborted();
  const answerMs = Math.max(ANSWER_MIN_MS, (options.timeoutMs ?? PATIENCE_MS) / servers.length);
  const silent: TransferError[] = [];
  for (const [index, server] of servers.entries()) {
    const isLast = index === servers.length - 1;
    const first = await exchange(
      options,
      direction,
      { server, options: asked, ...(!isLast && { answerMs }) },
      work,
      silent,
    );
    if (first.kind === 'done') return first.report;
    if (first.isOptionsRefused && asked.offset === undefined) {
      const second = await exchange(options, direction, { server, options: {} }, work, silent);
      if (second.kind === 'done') return second.report;
      throw second.error;
    }
    if (first.error.kind !== 'unanswered' || isLast) throw first.error;
    silent.push(first.error);
  }
  throw new Error('a host without an address');
}

/** What is put, which may be opened again for another try. */
interface Content extends Disposable {
  open(): Promise<Source>;
}

async function openContent(options: ClientOptions & { readonly content: PutContent }): Promise<Content> {
  const { content, mode = 'octet', signal } = options;
  const isStream = typeof content === 'object' && Symbol.asyncIterator in content;
  if (!isStream) return { open: () => openSource(options, content, mode), [Symbol.dispose]: () => {} };
  let fd: number;
  try {
    fd = await spool(content, signal);
  } catch (error) {
    signal?.throwIfAborted();
    throw localError(options, 'write', 'cannot read the stream', error);
  }
  // The file of a descriptor: each try opens it anew, and it is gone with this one.
  const file = `/proc/self/fd/${fd}`;
  return { open: () => openSource(options, { file }, mode), [Symbol.dispose]: () => closeSync(fd) };
}

async function openSource(
  options: ClientOptions,
  content: Exclude<PutContent, AsyncIterable<Uint8Array>>,
  mode: 'octet' | 'netascii',
): Promise<Source> {
  if (typeof content === 'object' && 'file' in content) {
    try {
      return await openFile(content.file, mode);
    } catch (error) {
      throw localError(options, 'write', `cannot read ${content.file}`, error);
    }
  }
  const bytes = typeof content === 'string' ? new TextEncoder().encode(content) : content;
  return new MemorySource(mode === 'netascii' ? encodeNetascii(bytes) : bytes);
}

async function openFile(file: string, mode: 'octet' | 'netascii'): Promise<Source> {
  const fd = openSync(file, constants.O_RDONLY | constants.O_NONBLOCK);
  if (!fstatSync(fd).isFile()) {
    closeSync(fd);
    throw new Error('it is not a regular file');
  }
  return mode === 'netascii' ? NetasciiSource.open(fd) : new FileSource(fd);
}

function openSpool(options: ClientOptions): SpoolSink {
  try {
    return new SpoolSink();
  } catch (error) {
    throw localError(options, 'read', 'cannot make a temporary file', error);
  }
}

/** @throws {RangeError} when a number is not one of the protocol's */
function checkClientOptions(options: ClientOptions & { readonly offset?: number | undefined }): void {
  const { port, blksize, windowsize, timeoutMs, repeatSeconds, retries, offset, name } = options;
  checkRange('port', port ?? TFTP_PORT, 1, 65535);
  checkRange('blksize', blksize ?? CLIENT_BLKSIZE, BLKSIZE_MIN, BLKSIZE_MAX);
  checkRange('windowsize', windowsize ?? CLIENT_WINDOWSIZE, 1, WINDOWSIZE_MAX);
  checkRange('timeoutMs', timeoutMs ?? PATIENCE_MS, 1, 2 ** 31 - 1);
  checkRange('repeatSeconds', repeatSeconds ?? 1, 1, 255);
  checkRange('retries', retries ?? 0, 0, Number.MAX_SAFE_INTEGER);
  checkRange('offset', offset ?? 0, 0, 10 ** 15 - 1);
  if (name === '' || name.includes('\0')) throw new RangeError(`${JSON.stringify(name)} cannot be asked for`);
}

function askedOptions(options: ClientOptions): Options {
  const { blksize = CLIENT_BLKSIZE, windowsize = CLIENT_WINDOWSIZE, repeatSeconds } = options;
  return {
    ...(blksize !== DEFAULT_BLKSIZE && { blksize }),
    ...(repeatSeconds !== undefined && { timeout: repeatSeconds }),
    ...(windowsize !== DEFAULT_WINDOWSIZE && { windowsize }),
  };
}

function checkRange(name: string, value: number, min: number, max: number): void {
  if (!Number.isInteger(value) || value < min || value > max) {
    throw new RangeError(`${name} is ${value}, not an integer from ${min} to ${max}`);
  }
}

/** The addresses of the host, in the spelling that datagrams come with; IPv4 first, for TFTP servers rarely have another. */
async function findServers(
  options: ClientOptions,
  direction: 'read' | 'write',
): Promise<readonly [ServerAddress, ...ServerAddress[]]> {
  const { host, port = TFTP_PORT } = options;
  const toServer = (address: string): ServerAddress => ({ address: canonical(address), family: isIP(address), port });
  if (isIP(host) !== 0) return [toServer(host)];
  try {
    const [first, ...others] = await (options.lookup ?? lookupHost)(host);
    if (first === undefined) throw new Error('no address');
    return [toServer(first), ...others.map(toServer)];
  } catch (error) {
    const hint = 'check the name, or give the IP address';
    const reason = `the host name is not known (${systemCode(error) ?? 'no answer'})`;
    throw localError(options, direction, reason, error, hint);
  }
}

async function lookupHost(host: string): Promise<readonly string[]> {
  const found = await lookup(host, { all: true, order: 'ipv4first' });
  return [...new Set(found.map(({ address }) => address))];
}

/** An IPv6 address as short as can be, with its zone. */
function canonical(address: string): string {
  if (isIP(address) !== 6) return address;
  const bare = withoutZone(address);
  return address.replace(bare, new SocketAddress({ address: bare, family: 'ipv6' }).address);
}

/** Something on this side, before the server was asked. */
function localError(
  options: ClientOptions,
  direction: 'read' | 'write',
  what: string,
  cause: unknown,
  hint?: string,
): TransferError {
  const { host, port = TFTP_PORT, name } = options;
  const code = cause instanceof RefusedError ? cause.code : toRefused(cause).code;
  const reason = hint === undefined && cause instanceof Error ? `${what}: ${cause.message}` : what;
  const fields = { host, port, fileName: name, direction, code, from: 'here', kind: 'local', reason, hint } as const;
  return new TransferError(fields, { cause });
}
