/**
 * A TFTP client: get and put, in memory and with files. Asks for large blocks and a window, which other servers pass
 * over or lower; a server that refuses options at all (ERROR 8) is asked once more without.
 */
import { randomBytes } from 'node:crypto';
import { type RemoteInfo, type Socket, createSocket } from 'node:dgram';
import { lookup } from 'node:dns/promises';
import { closeSync, constants, fstatSync, lstatSync, openSync, renameSync, unlinkSync, writeSync } from 'node:fs';
import { SocketAddress, isIP } from 'node:net';
import { basename, dirname, join } from 'node:path';

import { RefusedError, TransferError, systemCode } from './error.ts';
import type { Failure, StepFunction, TransferState } from './exchange.ts';
import { toRefused } from './folder.ts';
import { encodeNetascii } from './netascii.ts';
import {
  type Options,
  BLKSIZE_MAX,
  BLKSIZE_MIN,
  DEFAULT_BLKSIZE,
  DEFAULT_WINDOWSIZE,
  WINDOWSIZE_MAX,
  formatOptions,
} from './options.ts';
import { ERROR_CODE, encodeError, encodeRequest } from './packet.ts';
import { createReceiver, stepReceiver } from './receiver.ts';
import { createSender, stepSender } from './sender.ts';
import { type Sink, MemorySink, NetasciiSink } from './sink.ts';
import { type Source, FileSource, MemorySource, NetasciiSource } from './source.ts';
import { PATIENCE_MS } from './timing.ts';
import { Transfer } from './transfer.ts';

const TFTP_PORT = 69;
/** An Ethernet frame: 1500 less IPv4 (20), UDP (8) and TFTP (4) headers. */
const CLIENT_BLKSIZE = 1468;
const CLIENT_WINDOWSIZE = 32;
/** The process lives so long after its last ACK; the server repeats its last DATA when that was lost. */
const CLIENT_DALLY_MS = 500;
/** What `get` holds in memory at most. */
const MEMORY_BYTES_MAX = 1024 * 1024 * 1024;
/** A window of large blocks arrives in one burst; the kernel gives what its limit allows. */
const SOCKET_BUFFER_BYTES = 1024 * 1024;

/** A server, a name there, and how to ask. */
export interface ClientOptions {
  /** host name or IP address */
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
  /** gives up after so long without progress; default 30 000 */
  readonly timeoutMs?: number | undefined;
  /** ends the transfer; the server is told */
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: Progress) => void) | undefined;
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
  const sink = new MemorySink();
  await receive(options, sink, options.maxBytes ?? MEMORY_BYTES_MAX);
  return sink.take();
}

/**
 * Gets a file into a file, which appears, or is replaced, when all is there.
 *
 * @param options.file - where it goes; must not be a symlink, folder or device
 * @throws {TransferError} as `get`; also when the file cannot be written
 * @throws {RangeError} when an option is out of its range
 * @throws the reason of `signal`
 */
export async function getToFile(
  options: ClientOptions & { readonly file: string; readonly maxBytes?: number | undefined },
): Promise<TransferReport> {
  let sink: Sink;
  try {
    sink = new PathSink(options.file);
  } catch (error) {
    throw localError(options, 'read', `cannot write ${options.file}`, error);
  }
  return receive(options, sink, options.maxBytes ?? Number.MAX_SAFE_INTEGER);
}

/** What is put: bytes, text, or a regular file. */
export type PutContent = Uint8Array | string | { readonly file: string };

/**
 * Puts a file.
 *
 * @param options.content - bytes, text (as UTF-8) or `{ file }`, whose size at this moment counts
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
  using source = await openContent(options);
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
}

async function receive(options: ClientOptions, to: Sink, bytesMax: number): Promise<TransferReport> {
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
    },
  );
}

/** A sender or receiver that is about to start. */
interface Work<State extends TransferState> {
  readonly start: (asked: Options) => State;
  readonly step: StepFunction<State>;
  readonly source?: Source;
  readonly sink?: Sink;
  readonly totalBytes: (state: State) => number | undefined;
}

/** One transfer, and a second one without options where the first was refused for them. */
async function perform<State extends TransferState>(
  options: ClientOptions,
  direction: 'read' | 'write',
  asked: Options,
  work: Work<State>,
): Promise<TransferReport> {
  options.signal?.throwIfAborted();
  const address = await resolveHost(options, direction, options.host);
  options.signal?.throwIfAborted();
  const first = await exchange(options, direction, address, asked, work);
  if (first.kind === 'done') return first.report;
  if (!first.isOptionsRefused || asked.offset !== undefined) throw first.error;
  const second = await exchange(options, direction, address, {}, work);
  if (second.kind === 'done') return second.report;
  throw second.error;
}

/** How one exchange ended. */
type Ending =
  | { readonly kind: 'done'; readonly report: TransferReport }
  | { readonly kind: 'failed'; readonly isOptionsRefused: boolean; readonly error: Error };

function exchange<State extends TransferState>(
  options: ClientOptions,
  direction: 'read' | 'write',
  address: { readonly address: string; readonly family: number },
  asked: Options,
  work: Work<State>,
): Promise<Ending> {
  const { host, port = TFTP_PORT, name, mode = 'octet', signal, onProgress } = options;
  const request = encodeRequest({ direction, name, mode, options: formatOptions(asked) });
  const startedMs = performance.now();
  // Not connected: the server answers from a port of its choice, and strangers are to be told ERROR 5.
  const socket = createSocket(address.family === 6 ? 'udp6' : 'udp4');
  return new Promise<Ending>((resolve, reject) => {
    let tid: number | undefined;
    const onAbort = (): void => transfer.stop(ERROR_CODE.notDefined, 'the client has stopped');
    const transfer = new Transfer<State>({
      state: work.start(asked),
      step: work.step,
      request,
      ...(work.source && { source: work.source }),
      ...(work.sink && { sink: work.sink }),
      send: (bytes) => socket.send(bytes, tid ?? port, address.address),
      onSettled(state, cause) {
        signal?.removeEventListener('abort', onAbort);
        const { failure, bytes, blocks, repeats, granted } = state;
        const durationMs = performance.now() - startedMs;
        if (failure === undefined) resolve({ kind: 'done', report: { bytes, blocks, repeats, granted, durationMs } });
        else if (signal?.aborted === true) reject(signal.reason);
        else {
          const { code, from, message } = failure;
          const isOptionsRefused = code === ERROR_CODE.optionsRefused && from === 'peer' && bytes === 0;
          const reason = from === 'peer' ? `the server says: ${message || 'nothing'} (ERROR ${code})` : message;
          const hint = findHint(failure, direction, tid === undefined);
          const fields = { host, port, fileName: name, direction, code, from, reason, hint };
          resolve({ kind: 'failed', isOptionsRefused, error: new TransferError(fields, { cause }) });
        }
      },
      // The last packet leaves in the next turn.
      onClosed: () => setImmediate(() => socket.close()),
      onProgress: (state) => onProgress?.({ bytes: state.bytes, totalBytes: work.totalBytes(state) }),
    });
    socket.on('error', (error) => transfer.stop(ERROR_CODE.notDefined, error.message, error));
    socket.on('message', (bytes, from) => {
      if (!isSameHost(from, address.address)) return;
      if (tid !== undefined && from.port !== tid) {
        // An ERROR is never answered, so two such sides cannot talk for ever.
        if (bytes[1] !== 5) socket.send(encodeError(ERROR_CODE.unknownTid, 'unknown TID'), from.port, from.address);
        return;
      }
      tid ??= from.port;
      transfer.receive(bytes);
    });
    try {
      socket.bindSync({ address: address.family === 6 ? '::' : '0.0.0.0' });
      growBuffers(socket);
      signal?.addEventListener('abort', onAbort, { once: true });
      transfer.start();
    } catch (error) {
      signal?.removeEventListener('abort', onAbort);
      socket.close();
      reject(error);
    }
  });
}

/** Writes beside the file, and takes its place when all is there. */
class PathSink implements Sink {
  readonly #file: string;
  readonly #temporary: string;
  readonly #fd: number;
  #open = true;

  constructor(file: string) {
    const state = lstatSync(file, { throwIfNoEntry: false });
    if (state !== undefined && !state.isFile()) throw new Error('it is not a regular file');
    this.#file = file;
    this.#temporary = join(dirname(file), `.${basename(file)}.${randomBytes(6).toString('hex')}.part`);
    this.#fd = openSync(this.#temporary, 'wx');
  }

  write(bytes: Uint8Array): void {
    let written = 0;
    while (written < bytes.length) written += writeSync(this.#fd, bytes, written);
  }

  commit(): void {
    renameSync(this.#temporary, this.#file);
  }

  [Symbol.dispose](): void {
    if (!this.#open) return;
    this.#open = false;
    closeSync(this.#fd);
    try {
      unlinkSync(this.#temporary);
    } catch (error) {
      if (systemCode(error) !== 'ENOENT') throw error;
    }
  }
}

async function openContent(options: ClientOptions & { readonly content: PutContent }): Promise<Source> {
  const { content, mode = 'octet' } = options;
  try {
    return await openSource(content, mode);
  } catch (error) {
    const what = typeof content === 'object' && 'file' in content ? content.file : 'the content';
    throw localError(options, 'write', `cannot read ${what}`, error);
  }
}

async function openSource(content: PutContent, mode: 'octet' | 'netascii'): Promise<Source> {
  if (typeof content === 'object' && 'file' in content) {
    const fd = openSync(content.file, constants.O_RDONLY | constants.O_NONBLOCK);
    if (!fstatSync(fd).isFile()) {
      closeSync(fd);
      throw new Error('it is not a regular file');
    }
    return mode === 'netascii' ? NetasciiSource.open(fd) : new FileSource(fd);
  }
  const bytes = typeof content === 'string' ? new TextEncoder().encode(content) : content;
  return new MemorySource(mode === 'netascii' ? encodeNetascii(bytes) : bytes);
}

/** @throws {RangeError} when a number is not one of the protocol's */
function checkClientOptions(options: ClientOptions & { readonly offset?: number | undefined }): void {
  const { port, blksize, windowsize, timeoutMs, offset, name } = options;
  checkRange('port', port ?? TFTP_PORT, 1, 65535);
  checkRange('blksize', blksize ?? CLIENT_BLKSIZE, BLKSIZE_MIN, BLKSIZE_MAX);
  checkRange('windowsize', windowsize ?? CLIENT_WINDOWSIZE, 1, WINDOWSIZE_MAX);
  checkRange('timeoutMs', timeoutMs ?? PATIENCE_MS, 1, 2 ** 31 - 1);
  checkRange('offset', offset ?? 0, 0, 10 ** 15 - 1);
  if (name === '' || name.includes('\0')) throw new RangeError(`${JSON.stringify(name)} cannot be asked for`);
}

function askedOptions(options: ClientOptions): Options {
  const { blksize = CLIENT_BLKSIZE, windowsize = CLIENT_WINDOWSIZE } = options;
  return { ...(blksize !== DEFAULT_BLKSIZE && { blksize }), ...(windowsize !== DEFAULT_WINDOWSIZE && { windowsize }) };
}

function checkRange(name: string, value: number, min: number, max: number): void {
  if (!Number.isInteger(value) || value < min || value > max) {
    throw new RangeError(`${name} is ${value}, not an integer from ${min} to ${max}`);
  }
}

/** An address of the host, in the spelling that datagrams come with; IPv4 first, for TFTP servers rarely have another. */
async function resolveHost(
  options: ClientOptions,
  direction: 'read' | 'write',
  host: string,
): Promise<{ readonly address: string; readonly family: number }> {
  const family = isIP(host);
  if (family === 4) return { address: host, family };
  try {
    const found = await lookup(host, { order: 'ipv4first' });
    if (found.family === 4) return found;
    const { address } = new SocketAddress({ address: withoutZone(found.address), family: 'ipv6' });
    return { address: found.address.replace(withoutZone(found.address), address), family: 6 };
  } catch (error) {
    const hint = 'check the name, or give the IP address';
    throw localError(
      options,
      direction,
      `the host name is not known (${systemCode(error) ?? 'no answer'})`,
      error,
      hint,
    );
  }
}

function isSameHost(from: RemoteInfo, address: string): boolean {
  return from.address === address || withoutZone(from.address) === withoutZone(address);
}

function withoutZone(address: string): string {
  return address.split('%')[0] ?? address;
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
  return new TransferError({ host, port, fileName: name, direction, code, from: 'here', reason, hint }, { cause });
}

const READ_HINTS: Readonly<Record<number, string>> = {
  [ERROR_CODE.notFound]: "names are relative to the server's folder, and upper and lower case differ",
  [ERROR_CODE.accessViolation]: 'the server shows regular files below its folder only, and only those it may read',
};
const WRITE_HINTS: Readonly<Record<number, string>> = {
  [ERROR_CODE.notFound]: 'some servers replace files only, and make no new ones',
  [ERROR_CODE.accessViolation]: 'the server must allow writing, and this name',
  [ERROR_CODE.diskFull]: 'the server has no more space, or a limit for this name',
  [ERROR_CODE.alreadyExists]: 'take another name, or remove the file at the server',
};

function findHint(failure: Failure, direction: 'read' | 'write', isUnanswered: boolean): string | undefined {
  if (failure.from === 'peer') return (direction === 'read' ? READ_HINTS : WRITE_HINTS)[failure.code];
  if (isUnanswered) return 'is a TFTP server there, and does a firewall let UDP pass from any port of it?';
  return failure.code === ERROR_CODE.notDefined ? 'large blocks are lost on some networks: try blksize 512' : undefined;
}

function growBuffers(socket: Socket): void {
  try {
    socket.setRecvBufferSize(SOCKET_BUFFER_BYTES);
    socket.setSendBufferSize(SOCKET_BUFFER_BYTES);
  } catch {
    // The default will do: what does not fit is lost, and comes again.
  }
}
