/**
 * A TFTP server: the listening socket, a connected socket per transfer, limits. What may be read or written is an
 * `Access`; `serveFolder` is the read-only one. Writable ones are in `instance.ts`.
 *
 * Leaves out: a wildcard socket cannot see to which address a request came, so it answers from the address that the
 * kernel's routes give, and cannot ignore requests to a broadcast address (RFC 1123 §4.2.3.5 asks it): bind to an address
 * where that matters.
 */
import { type Socket, createSocket } from 'node:dgram';
import { isIPv6 } from 'node:net';

import { ListenError, RefusedError, describeErrorPacket, systemCode } from './error.ts';
import type { Failure, StepFunction, TransferState } from './exchange.ts';
import { openToRead, parseName, toRefused } from './folder.ts';
import { type GrantLimits, type Options, BLKSIZE_MAX, grantOptions, parseOptions } from './options.ts';
import { type OptionPair, type RequestPacket, ERROR_CODE, decodePacket, encodeError } from './packet.ts';
import { createReceiver, stepReceiver } from './receiver.ts';
import { createSender, stepSender } from './sender.ts';
import { type Sink, NetasciiSink } from './sink.ts';
import { type Source, FileSource, NetasciiSource } from './source.ts';
import { Transfer } from './transfer.ts';

/** UDP port of requests (RFC 1350 §4). */
export const TFTP_PORT = 69;

/** Largest window that is granted unless the options say otherwise: more gains nothing and has to fit into socket buffers. */
const WINDOWSIZE_GRANTED_MAX = 64;
/** blksize × windowsize, which a transfer holds in memory. */
const WINDOW_BYTES_MAX = 128 * 1024;
const TRANSFERS_MAX = 4096;
/** One peer, perhaps a whole site behind a NAT. */
const TRANSFERS_PER_PEER_MAX = 1024;
/** Kept for the last ACK: longer than the usual first repeats of other clients. */
const SERVER_DALLY_MS = 3000;
/** Room for requests that wait. */
const SOCKET_BUFFER_BYTES = 1024 * 1024;
/** A peer that is gone may have said why. */
const LAST_WORDS_MS = 10;
/** The same request from the same port after so much silence is a new one. */
const RESTART_AFTER_MS = 1000;

/** What happened to a transfer, told at its end; also to a request that was refused. */
export interface TransferEvent {
  /** address of the client */
  readonly peer: string;
  /** port of the client, its TID */
  readonly port: number;
  /** seen from the client: it reads or writes a file here */
  readonly direction: 'read' | 'write';
  /** as asked: quote it, it may hold anything but control characters when `result` is `done`; empty when none could be read */
  readonly name: string;
  readonly mode: string;
  /** what was asked, as far as it is known and valid */
  readonly asked: Options;
  /** what was asked, word for word: quote it */
  readonly options: readonly OptionPair[];
  readonly granted: Options;
  /** bytes that are through, on the wire */
  readonly bytes: number;
  readonly blocks: number;
  /** packets that were sent again */
  readonly repeats: number;
  /** smoothed round trip, when one was measured */
  readonly rttMs?: number;
  readonly durationMs: number;
  readonly result: 'done' | 'failed';
  /** whether a transfer came of the request; else it was refused or ignored */
  readonly begun: boolean;
  /** who ended one that failed */
  readonly endedBy?: 'client' | 'server';
  /** why it failed; what the client said is quoted */
  readonly error?: string;
  /** TFTP error code that was sent or got */
  readonly errorCode?: number;
}

/** A request for a file to be written, checked as far as the protocol goes. */
export interface WriteRequest {
  readonly name: string;
  /** the size announced, on the wire */
  readonly tsize: number | undefined;
  /** private option: where in the file the bytes go */
  readonly offset: number | undefined;
}

/** A place for an upload. */
export interface WritePlace {
  readonly sink: Sink;
  /** most bytes it takes */
  readonly bytesMax: number;
  /** whether the option `offset` is granted */
  readonly offset: boolean;
  /** called after the file was put in place */
  readonly onWritten?: (bytes: number) => void;
}

/** What may be read and written. Both throw `RefusedError`, whose code and message are sent. */
export interface Access {
  /** opens a regular file; the descriptor is taken over */
  openRead(name: string): number;
  /** absent: nothing may be written */
  openWrite?(request: WriteRequest): WritePlace;
}

/** Where and how a server listens. */
export interface ServeOptions {
  /** numeric IP address; default: all of IPv4 */
  readonly address?: string | undefined;
  /** default 69; 0: any that is free */
  readonly port?: number | undefined;
  /** a bound UDP socket, from systemd; instead of address and port */
  readonly fd?: number | undefined;
  /** the only client address that is answered; others are ignored */
  readonly peer?: string | undefined;
  /** largest blksize granted, 8 to 65464 */
  readonly blksizeMax?: number | undefined;
  /** largest windowsize granted, 1 to 65535; default 64. Both multiplied are 128 KiB at most */
  readonly windowsizeMax?: number | undefined;
  /** transfers at once; beyond that requests are ignored, and clients ask again */
  readonly transfersMax?: number | undefined;
  readonly transfersPerPeerMax?: number | undefined;
  readonly onTransfer?: ((event: TransferEvent) => void) | undefined;
  /** a transfer has begun; `onTransfer` tells its end */
  readonly onBegin?: (() => void) | undefined;
  /** errors of the listening socket and of the machine, not of a client; the server goes on */
  readonly onError?: ((error: Error) => void) | undefined;
  /** closes the server */
  readonly signal?: AbortSignal | undefined;
}

/** A server that listens. */
export interface TftpServer extends AsyncDisposable {
  readonly address: string;
  readonly port: number;
  /** transfers that run now, dallying ones among them */
  readonly transfers: number;
  /** Ends all transfers with ERROR 0 and closes the sockets. */
  close(): Promise<void>;
}

/**
 * Serves a folder for reading, with all below it; a WRQ is answered with ERROR 2.
 *
 * @param options.folder - need not be there all the time
 * @throws {ListenError} when the address or port cannot be had
 */
export function serveFolder(options: ServeOptions & { readonly folder: string }): Promise<TftpServer> {
  const { folder } = options;
  return serve(options, { openRead: (name) => openToRead(folder, parseName(name)) });
}

/**
 * Serves what `access` gives.
 *
 * @throws {ListenError} when the address or port cannot be had
 */
export async function serve(options: ServeOptions, access: Access): Promise<TftpServer> {
  options.signal?.throwIfAborted();
  const server = new Server(options, access);
  await server.listen();
  return server;
}

/** A transfer with its socket, as the server keeps it. */
interface Running {
  /** peer's address and port */
  readonly key: string;
  readonly peer: string;
  /** the datagram that asked; a copy of it is no new request */
  readonly request: Uint8Array;
  readonly socket: Socket;
  readonly stop: (code: number, message: string) => void;
  /** when the peer last sent something to the transfer; -Infinity: never, so its address may be forged */
  heardAtMs: number;
  /** the outcome is known; a receiver may still dally */
  isSettled: boolean;
}

class Server implements TftpServer {
  readonly #options: ServeOptions;
  readonly #access: Access;
  readonly #socket: Socket;
  readonly #running = new Map<string, Running>();
  readonly #perPeer = new Map<string, number>();
  /** those not yet proven, oldest first */
  readonly #unproven = new Set<Running>();
  readonly #onAbort = (): void => void this.close();
  /** requests that are being opened (netascii reads the file first) */
  readonly #opening = new Set<string>();
  #closing: Promise<void> | undefined;
  address = '';
  port = 0;

  constructor(options: ServeOptions, access: Access) {
    this.#options = options;
    this.#access = access;
    this.#socket = createSocket(isIPv6(options.address ?? '') ? 'udp6' : 'udp4');
  }

  get transfers(): number {
    return this.#running.size;
  }

  async listen(): Promise<void> {
    const { address = '0.0.0.0', port = TFTP_PORT, fd, signal } = this.#options;
    try {
      if (fd === undefined) {
        this.#socket.bindSync({ address, port });
      } else {
        await new Promise<void>((resolve, reject) => {
          this.#socket.once('error', reject);
          this.#socket.bind({ fd }, () => {
            this.#socket.off('error', reject);
            resolve();
          });
        });
      }
    } catch (error) {
      this.#socket.close();
      throw toListenError(fd === undefined ? `${address} port ${port}` : `descriptor ${fd}`, error);
    }
    try {
      // Many hosts boot at once after a power cut; the kernel gives what its limit allows.
      this.#socket.setRecvBufferSize(SOCKET_BUFFER_BYTES);
    } catch {
      // The default will do: clients ask again.
    }
    const bound = this.#socket.address();
    this.address = bound.address;
    this.port = bound.port;
    this.#socket.on('error', (error) => this.#options.onError?.(error));
    this.#socket.on('message', (bytes, from) => this.#onRequest(bytes, from.address, from.port));
    signal?.addEventListener('abort', this.#onAbort, { once: true });
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    this.#options.signal?.removeEventListener('abort', this.#onAbort);
    const closed = new Promise<void>((resolve) => this.#socket.close(() => resolve()));
    for (const running of this.#running.values()) running.stop(ERROR_CODE.notDefined, 'the server stops');
    await closed;
  }

  /** A datagram at the listening port. What is no request is ignored: an answer might be a reflection. */
  #onRequest(bytes: Uint8Array, from: string, port: number): void {
    const address = from.startsWith('::ffff:') ? from.slice('::ffff:'.length) : from;
    if (port === 0 || this.#closing !== undefined) return;
    if (this.#options.peer !== undefined && address !== this.#options.peer) return;
    const packet = decodePacket(bytes);
    const opcode = bytes[0] === 0 ? bytes[1] : undefined;
    if (packet.kind !== 'request') {
      if (packet.kind === 'malformed' && (opcode === 1 || opcode === 2)) {
        const refused = new RefusedError(ERROR_CODE.illegalOperation, `the request has ${packet.reason}`);
        this.#answerError(address, port, refused.code, refused.message);
        const direction = opcode === 1 ? 'read' : 'write';
        this.#report({ kind: 'request', direction, name: '', mode: undefined, options: [] }, address, port, refused);
      }
      return;
    }
    const key = `${address} ${port}`;
    const old = this.#running.get(key);
    if (this.#opening.has(key) || (old !== undefined && isCopy(old, bytes))) return;
    old?.stop(ERROR_CODE.notDefined, 'a new request came from the same port');
    if (!this.#makeRoom(address)) {
      const busy = new RefusedError(ERROR_CODE.notDefined, 'too many transfers at once; the request was ignored');
      this.#report(packet, address, port, busy);
      return;
    }
    this.#opening.add(key);
    this.#open(packet, Uint8Array.from(bytes), address, port)
      .catch((error: unknown) => {
        const refused = toRefused(error);
        this.#answerError(address, port, refused.code, refused.message);
        this.#report(packet, address, port, refused);
        if (!(error instanceof RefusedError) && error instanceof Error) this.#options.onError?.(error);
      })
      .finally(() => this.#opening.delete(key));
  }

  /** Room for one more: when all is full, whoever asked first and never answered has to go (perhaps a forged address). */
  #makeRoom(address: string): boolean {
    const { transfersMax = TRANSFERS_MAX, transfersPerPeerMax = TRANSFERS_PER_PEER_MAX } = this.#options;
    if ((this.#perPeer.get(address) ?? 0) >= transfersPerPeerMax) return false;
    if (this.#running.size + this.#opening.size < transfersMax) return true;
    const [oldest] = this.#unproven;
    oldest?.stop(ERROR_CODE.notDefined, 'the server is busy');
    return oldest !== undefined;
  }

  async #open(packet: RequestPacket, request: Uint8Array, address: string, port: number): Promise<void> {
    if (packet.mode === undefined) throw new RefusedError(ERROR_CODE.illegalOperation, 'the mode is unknown');
    if (packet.mode === 'mail') throw new RefusedError(ERROR_CODE.illegalOperation, 'mail is not served');
    if (packet.direction === 'write') this.#openWrite(packet, request, address, port);
    else await this.#openRead(packet, request, address, port);
  }

  async #openRead(packet: RequestPacket, request: Uint8Array, address: string, port: number): Promise<void> {
    const fd = this.#access.openRead(packet.name);
    const source: Source = packet.mode === 'netascii' ? await NetasciiSource.open(fd) : new FileSource(fd);
    try {
      if (this.#closing !== undefined) throw new RefusedError(ERROR_CODE.notDefined, 'the server stops');
      // curl 7.88.1 takes tsize=0 for an error (dnsmasq meets that too), and a log that is being written begins empty.
      const tsize = source.size === 0 ? undefined : source.size;
      const { granted, oack } = grantOptions(packet.options, { ...this.#limits(), tsize, offset: false });
      const state = createSender({ opening: toOpening(oack), granted, size: source.size });
      this.#run({ packet, request, address, port, state, step: stepSender, source });
    } catch (error) {
      source[Symbol.dispose]();
      throw error;
    }
  }

  #openWrite(packet: RequestPacket, request: Uint8Array, address: string, port: number): void {
    const { tsize, offset } = parseOptions(packet.options);
    if (this.#access.openWrite === undefined) {
      throw new RefusedError(ERROR_CODE.accessViolation, 'nothing can be written here');
    }
    const place = this.#access.openWrite({ name: packet.name, tsize, offset });
    const isText = packet.mode === 'netascii';
    const sink = isText ? new NetasciiSink(place.sink) : place.sink;
    try {
      // Text is shorter once it is decoded, so only octets are told apart before they come.
      if (!isText && tsize !== undefined && tsize > place.bytesMax) {
        const message = `${tsize} bytes are more than the ${place.bytesMax} allowed here`;
        throw new RefusedError(ERROR_CODE.diskFull, message);
      }
      const limits = { ...this.#limits(), tsize: 'echo', offset: place.offset } as const;
      const { granted, oack } = grantOptions(packet.options, limits);
      const state = createReceiver({
        opening: toOpening(oack),
        granted,
        bytesMax: place.bytesMax,
        checkSize: !isText,
        dallyMs: SERVER_DALLY_MS,
      });
      const { onWritten } = place;
      this.#run({ packet, request, address, port, state, step: stepReceiver, sink, onWritten });
    } catch (error) {
      sink[Symbol.dispose]();
      throw error;
    }
  }

  #limits(): Pick<GrantLimits, 'blksizeMax' | 'windowsizeMax' | 'windowBytesMax'> {
    const { blksizeMax = BLKSIZE_MAX, windowsizeMax = WINDOWSIZE_GRANTED_MAX } = this.#options;
    return { blksizeMax, windowsizeMax, windowBytesMax: WINDOW_BYTES_MAX };
  }

  #run<State extends TransferState>(work: {
    readonly packet: RequestPacket;
    readonly request: Uint8Array;
    readonly address: string;
    readonly port: number;
    readonly state: State;
    readonly step: StepFunction<State>;
    readonly source?: Source;
    readonly sink?: Sink;
    readonly onWritten?: ((bytes: number) => void) | undefined;
  }): void {
    const { packet, address, port, step, onWritten } = work;
    const startedMs = performance.now();
    const socket = this.#connect(address, port);
    const transfer = new Transfer({
      ...work,
      step,
      send: (bytes) => socket.send(bytes),
      onSettled: (state, cause) => {
        running.isSettled = true;
        work.source?.[Symbol.dispose]();
        work.sink?.[Symbol.dispose]();
        if (state.phase !== 'failed') onWritten?.(state.bytes);
        this.#report(packet, address, port, cause, { state, durationMs: performance.now() - startedMs });
      },
      onClosed: () => this.#remove(running),
    });
    const running: Running = {
      key: `${address} ${port}`,
      peer: address,
      request: work.request,
      socket,
      stop: (code, message) => transfer.stop(code, message),
      heardAtMs: -Infinity,
      isSettled: false,
    };
    socket.on('message', (bytes) => {
      if (running.heardAtMs === -Infinity) this.#unproven.delete(running);
      running.heardAtMs = performance.now();
      transfer.receive(bytes);
    });
    socket.on('error', (error) => {
      // What cannot be sent now counts as lost. A closed port has nobody who would listen to more; but the kernel tells of it
      // before it gives what the peer has said last, and that is worth more.
      if (systemCode(error) !== 'ECONNREFUSED') return;
      setTimeout(() => transfer.stop(ERROR_CODE.notDefined, 'the peer has closed its port'), LAST_WORDS_MS);
    });
    this.#running.set(running.key, running);
    this.#unproven.add(running);
    this.#perPeer.set(address, (this.#perPeer.get(address) ?? 0) + 1);
    this.#options.onBegin?.();
    transfer.start();
  }

  #remove(running: Running): void {
    if (this.#running.get(running.key) === running) this.#running.delete(running.key);
    this.#unproven.delete(running);
    const left = (this.#perPeer.get(running.peer) ?? 1) - 1;
    if (left === 0) this.#perPeer.delete(running.peer);
    else this.#perPeer.set(running.peer, left);
    closeWhenSent(running.socket);
  }

  /** A fresh socket, so a fresh random TID (RFC 1350 §4), that hears only this peer. */
  #connect(address: string, port: number): Socket {
    const socket = createSocket(isIPv6(address) ? 'udp6' : 'udp4');
    try {
      const isWildcard = this.address === '0.0.0.0' || this.address === '::';
      socket.bindSync(isWildcard ? {} : { address: this.address });
      socket.connectSync(port, address);
      return socket;
    } catch (error) {
      socket.close();
      throw error;
    }
  }

  #answerError(address: string, port: number, code: number, message: string): void {
    try {
      const socket = this.#connect(address, port);
      socket.on('error', () => {});
      socket.send(encodeError(code, message));
      closeWhenSent(socket);
    } catch (error) {
      // No route, no descriptor left: the client asks again or gives up.
      if (error instanceof Error) this.#options.onError?.(error);
    }
  }

  #report(
    packet: RequestPacket,
    peer: string,
    port: number,
    cause: Error | undefined,
    run?: { readonly state: TransferState; readonly durationMs: number },
  ): void {
    const failure = run === undefined ? undefined : run.state.failure;
    const error = failure === undefined ? cause?.message : describeFailure(failure, cause);
    const errorCode = failure?.code ?? (cause instanceof RefusedError ? cause.code : undefined);
    const rttMs = run?.state.timing.srttMs;
    const event: TransferEvent = {
      peer,
      port,
      direction: packet.direction,
      name: packet.name,
      mode: packet.mode ?? 'unknown',
      asked: parseOptions(packet.options),
      options: packet.options,
      granted: run?.state.granted ?? {},
      bytes: run?.state.bytes ?? 0,
      blocks: run?.state.blocks ?? 0,
      repeats: run?.state.repeats ?? 0,
      ...(rttMs !== undefined && { rttMs }),
      durationMs: run?.durationMs ?? 0,
      result: error === undefined ? 'done' : 'failed',
      begun: run !== undefined,
      ...(error !== undefined && { endedBy: failure?.from === 'peer' ? 'client' : 'server', error }),
      ...(error !== undefined && errorCode !== undefined && { errorCode }),
    };
    this.#options.onTransfer?.(event);
  }
}

function toOpening(
  oack: readonly OptionPair[],
): { readonly kind: 'oack'; readonly options: readonly OptionPair[] } | { readonly kind: 'plain' } {
  return oack.length > 0 ? { kind: 'oack', options: oack } : { kind: 'plain' };
}

function describeFailure(failure: Failure, cause: Error | undefined): string {
  if (failure.from === 'peer') return `the client ended it: ${describeErrorPacket(failure.code, failure.message)}`;
  const inner = cause?.cause instanceof Error ? ` (${cause.cause.message})` : '';
  return `${failure.message}${inner}`;
}

/** Datagrams that wait in the queue of a closed socket would be dropped; they leave within one turn of the loop. */
function closeWhenSent(socket: Socket): void {
  if (socket.getSendQueueCount() === 0) socket.close();
  else setImmediate(() => socket.close());
}

/**
 * Whether a request is a copy of one that is being served: made by the network, or by a client whose first answer is still on
 * its way. A client that has been silent for long means it anew (firmware asks from the same port again).
 */
function isCopy(old: Running, request: Uint8Array): boolean {
  const isSilent = old.heardAtMs !== -Infinity && performance.now() - old.heardAtMs > RESTART_AFTER_MS;
  return !old.isSettled && !isSilent && Buffer.compare(old.request, request) === 0;
}

function toListenError(where: string, error: unknown): ListenError {
  const hints: Readonly<Record<string, string>> = {
    EACCES: 'ports below 1024 need CAP_NET_BIND_SERVICE or a socket from systemd; or take another port',
    EADDRINUSE: 'another server has this port; `ss -ulpn` shows which',
    EADDRNOTAVAIL: 'the address belongs to no interface of this host; `ip address` shows them',
    EINVAL: 'the address must be numeric, as `ip address` shows them',
  };
  const reason = error instanceof Error ? error.message : String(error);
  return new ListenError(`Cannot listen for TFTP on ${where}: ${reason}`, hints[systemCode(error) ?? ''], {
    cause: error,
  });
}
