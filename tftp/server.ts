/**
 * A TFTP server: listening sockets, a connected socket per transfer, limits. What may be read or written is an
 * `Access`; `serveFolder` is the read-only one. Writable ones are in `instance.ts`.
 *
 * Leaves out: a wildcard socket cannot see to which address a request came, so it answers from the address that the
 * kernel's routes give, and cannot ignore requests to a broadcast address (RFC 1123 §4.2.3.5 asks it): give the addresses
 * where that matters.
 */
import type { Access } from './access.ts';
import type { ConnectTo, Driver, DriverName, ListenAt, ListenSocket, PeerHandler, PeerSocket } from './driver.ts';
import { findDriver } from './drivers.ts';
import { ListenError, RefusedError, systemCode } from './error.ts';
import type { StepFunction, TransferState } from './exchange.ts';
import { openToRead, parseName, toRefused } from './folder.ts';
import { type GrantLimits, BLKSIZE_MAX, grantOptions, parseOptions } from './options.ts';
import { type OptionPair, type RequestPacket, ERROR_CODE, decodePacket, encodeError } from './packet.ts';
import { createReceiver, stepReceiver } from './receiver.ts';
import { type Asker, Running, isCopy, keyOf } from './running.ts';
import { createSender, stepSender } from './sender.ts';
import type { ServeOptions, TftpServer } from './serve-options.ts';
import { Siege } from './siege.ts';
import { type Sink, NetasciiSink } from './sink.ts';
import { type Source, FileSource, NetasciiSource } from './source.ts';
import { type Run, transferEvent } from './transfer-event.ts';
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
/** Long texts whose size is being found at once: 1 MB of each is read in a turn of the loop, which takes 1 ms. */
const LONG_TEXTS_MAX = 4;
/** Kept for the last ACK: longer than the usual first repeats of other clients. */
const SERVER_DALLY_MS = 3000;

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

class Server implements TftpServer {
  readonly #options: ServeOptions;
  readonly #access: Access;
  readonly #driver: Driver;
  readonly #sockets: ListenSocket[] = [];
  readonly #running = new Map<string, Running>();
  readonly #perPeer = new Map<string, number>();
  /** those not yet proven, oldest first */
  readonly #unproven = new Set<Running>();
  readonly #siege = new Siege();
  readonly #onProven = (running: Running): void => {
    this.#unproven.delete(running);
    this.#siege.know(running.peer);
  };
  readonly #onAbort = (): void => void this.close();
  /** uploads that are done and only wait to repeat their last ACK, oldest first; they hold no place */
  readonly #dallying = new Set<Running>();
  /** requests that are being opened (netascii reads the file first); they hold no place */
  readonly #opening = new Set<string>();
  #closing: Promise<void> | undefined;

  constructor(options: ServeOptions, access: Access) {
    this.#options = options;
    this.#access = access;
    this.#driver = findDriver(options.driver ?? 'auto');
  }

  get driver(): DriverName {
    return this.#driver.name;
  }

  get sockets(): readonly { readonly address: string; readonly port: number }[] {
    return this.#sockets;
  }

  get address(): string {
    return this.#sockets[0]?.address ?? '';
  }

  get port(): number {
    return this.#sockets[0]?.port ?? 0;
  }

  get transfers(): number {
    return this.#running.size;
  }

  async listen(): Promise<void> {
    const { address = '0.0.0.0', addresses = [address], port = TFTP_PORT, fd, signal } = this.#options;
    const { fds = fd === undefined ? [] : [fd] } = this.#options;
    try {
      for (const one of fds) await this.#listen({ fd: one }, `descriptor ${one}`);
      if (fds.length === 0) {
        const ipv6Only = addresses.includes('0.0.0.0');
        for (const one of addresses) {
          const at = { address: one, port: port === 0 ? this.port : port, ipv6Only };
          await this.#listen(at, `${one} port ${at.port}`);
        }
      }
      signal?.throwIfAborted();
    } catch (error) {
      await Promise.all(this.#sockets.map((socket) => socket.close()));
      throw error;
    }
    signal?.addEventListener('abort', this.#onAbort, { once: true });
  }

  async #listen(at: ListenAt, where: string): Promise<void> {
    try {
      const socket: ListenSocket = await this.#driver.listen(at, {
        onDatagram: (bytes, address, port) => this.#onDatagram(bytes, address, port, socket.address),
        onError: (error) => this.#options.onError?.(error),
      });
      this.#sockets.push(socket);
    } catch (error) {
      throw toListenError(where, error);
    }
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
    const closed = Promise.all(this.#sockets.map((socket) => socket.close()));
    for (const running of this.#running.values()) running.stop(ERROR_CODE.notDefined, 'the server stops');
    await closed;
  }

  /** A datagram at the listening port. What is no request is ignored: an answer might be a reflection. */
  #onDatagram(bytes: Uint8Array, from: string, port: number, asked: string): void {
    const address = withoutMapping(from);
    const nowMs = performance.now();
    if (port === 0 || this.#closing !== undefined) return;
    if (this.#options.peer !== undefined && address !== this.#options.peer) return;
    const admitted = this.#siege.admits(address, this.#unanswered(), nowMs);
    const passed = admitted === 'not' ? this.#siege.tell(nowMs) : 0;
    if (admitted === 'not' && passed === 0) return;
    const asker: Asker = { address, port, local: asked === '0.0.0.0' || asked === '::' ? undefined : asked };
    const packet = decodePacket(bytes);
    const opcode = bytes[0] === 0 ? bytes[1] : undefined;
    if (packet.kind !== 'request') {
      if (packet.kind === 'malformed' && (opcode === 1 || opcode === 2)) {
        const refused = new RefusedError(ERROR_CODE.illegalOperation, `the request has ${packet.reason}`);
        const direction = opcode === 1 ? 'read' : 'write';
        this.#refuse({ kind: 'request', direction, name: '', mode: undefined, options: [] }, asker, refused, admitted);
      }
      return;
    }
    if (admitted === 'not') {
      const reason = `too many requests are never followed up; ${passed} were ignored`;
      this.#report(packet, asker, new RefusedError(ERROR_CODE.notDefined, reason));
      return;
    }
    const key = keyOf(asker);
    const old = this.#running.get(key);
    if (this.#opening.has(key) || (old !== undefined && isCopy(old, bytes))) return;
    old?.supersede();
    const isText = packet.direction === 'read' && packet.mode === 'netascii';
    const tooMany = isText && this.#opening.size >= LONG_TEXTS_MAX ? 'long texts' : 'transfers';
    if (tooMany === 'long texts' || !this.#makeRoom(address)) {
      const busy = new RefusedError(ERROR_CODE.notDefined, `too many ${tooMany} at once; the request was ignored`);
      this.#report(packet, asker, busy);
      return;
    }
    this.#opening.add(key);
    this.#open(packet, bytes, asker)
      .catch((error: unknown) => {
        this.#refuse(packet, asker, toRefused(error), admitted);
        if (!(error instanceof RefusedError) && error instanceof Error) this.#options.onError?.(error);
      })
      .finally(() => this.#opening.delete(key));
    if (admitted === 'sparingly') this.#spend(nowMs);
  }

  /** Answers with an ERROR. */
  #refuse(packet: RequestPacket, asker: Asker, refused: RefusedError, admitted: 'freely' | 'sparingly' | 'not'): void {
    const startMs = performance.now();
    this.#siege.refuse(asker.address, startMs);
    this.#answerError(asker, refused.code, refused.message);
    this.#report(packet, asker, refused);
    if (admitted === 'sparingly') this.#spend(startMs);
  }

  #spend(sinceMs: number): void {
    const nowMs = performance.now();
    this.#siege.spend(nowMs - sinceMs, nowMs);
  }

  /** Transfers whose peer has never answered. */
  #unanswered(): { readonly count: number; readonly sinceMs: number } {
    const [oldest] = this.#unproven;
    return { count: this.#unproven.size, sinceMs: this.#isFull() ? -Infinity : (oldest?.startedMs ?? Infinity) };
  }

  /** Room for one more: when all is full, whoever asked first and never answered has to go (perhaps a forged address). */
  #makeRoom(address: string): boolean {
    const { transfersPerPeerMax = TRANSFERS_PER_PEER_MAX } = this.#options;
    if ((this.#perPeer.get(address) ?? 0) >= transfersPerPeerMax) return false;
    if (!this.#isFull()) return true;
    const [oldest] = this.#unproven;
    oldest?.stop(ERROR_CODE.notDefined, 'the server is busy');
    return oldest !== undefined;
  }

  #isFull(): boolean {
    const { transfersMax = TRANSFERS_MAX } = this.#options;
    return this.#running.size - this.#dallying.size >= transfersMax;
  }

  async #open(packet: RequestPacket, request: Uint8Array, asker: Asker): Promise<void> {
    if (packet.mode === undefined) throw new RefusedError(ERROR_CODE.illegalOperation, 'the mode is unknown');
    if (packet.mode === 'mail') throw new RefusedError(ERROR_CODE.illegalOperation, 'mail is not served');
    if (packet.direction === 'write') this.#openWrite(packet, request, asker);
    else await this.#openRead(packet, request, asker);
  }

  async #openRead(packet: RequestPacket, request: Uint8Array, asker: Asker): Promise<void> {
    const fd = this.#access.openRead(packet.name);
    const source: Source = packet.mode === 'netascii' ? await NetasciiSource.open(fd) : new FileSource(fd);
    try {
      if (this.#closing !== undefined) throw new RefusedError(ERROR_CODE.notDefined, 'the server stops');
      // curl 7.88.1 takes tsize=0 for an error (dnsmasq meets that too), and a log that is being written begins empty.
      const tsize = source.size === 0 ? undefined : source.size;
      const { granted, oack } = grantOptions(packet.options, { ...this.#limits(), tsize, offset: false });
      const state = createSender({ opening: toOpening(oack), granted, size: source.size });
      this.#run({ packet, request, asker, state, step: stepSender, source });
    } catch (error) {
      source[Symbol.dispose]();
      throw error;
    }
  }

  #openWrite(packet: RequestPacket, request: Uint8Array, asker: Asker): void {
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
      const burst = { packets: state.windowsize, packetBytes: state.blksize + 4 };
      this.#run({ packet, request, asker, state, step: stepReceiver, sink, onWritten, burst });
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
    readonly asker: Asker;
    readonly state: State;
    readonly step: StepFunction<State>;
    readonly source?: Source;
    readonly sink?: Sink;
    readonly onWritten?: ((bytes: number) => void) | undefined;
    readonly burst?: ConnectTo['burst'];
  }): void {
    const { packet, asker, step, onWritten, burst } = work;
    const running = new Running(asker, work.request, this.#onProven);
    const socket = this.#driver.connect({ ...asker, burst }, running);
    const transfer = new Transfer({
      ...work,
      step,
      wire: socket,
      onSettled: (state, cause) => {
        running.isSettled = true;
        this.#release(work.source);
        this.#release(work.sink);
        if (state.phase !== 'failed') onWritten?.(state.bytes);
        if (state.phase === 'dally') this.#dally(running);
        this.#report(packet, asker, cause, { state, durationMs: performance.now() - running.startedMs });
      },
      onClosed: () => this.#remove(running, socket),
    });
    running.transfer = transfer;
    this.#running.set(running.key, running);
    this.#unproven.add(running);
    this.#perPeer.set(asker.address, (this.#perPeer.get(asker.address) ?? 0) + 1);
    this.#options.onBegin?.();
    transfer.start();
  }

  /** A disk that fails now is no reason to end the others. */
  #release(held: Disposable | undefined): void {
    try {
      held?.[Symbol.dispose]();
    } catch (error) {
      if (error instanceof Error) this.#options.onError?.(error);
    }
  }

  #remove(running: Running, socket: PeerSocket): void {
    if (this.#running.get(running.key) === running) this.#running.delete(running.key);
    this.#unproven.delete(running);
    if (!this.#dallying.delete(running)) this.#leave(running.peer);
    socket.close();
  }

  /** It gives up its place. As many may dally as may run: the oldest has to go, whose peer has its ACK most surely. */
  #dally(running: Running): void {
    this.#leave(running.peer);
    this.#dallying.add(running);
    const { transfersMax = TRANSFERS_MAX } = this.#options;
    const [oldest] = this.#dallying;
    if (this.#dallying.size > transfersMax) oldest?.stop(ERROR_CODE.notDefined, 'done');
  }

  #leave(peer: string): void {
    const left = (this.#perPeer.get(peer) ?? 1) - 1;
    if (left === 0) this.#perPeer.delete(peer);
    else this.#perPeer.set(peer, left);
  }

  #answerError(asker: Asker, code: number, message: string): void {
    try {
      const socket = this.#driver.connect(asker, NO_HANDLER);
      socket.send(encodeError(code, message));
      socket.close();
    } catch (error) {
      // No route, no descriptor left: the client asks again or gives up.
      if (error instanceof Error) this.#options.onError?.(error);
    }
  }

  #report(packet: RequestPacket, asker: Asker, cause: Error | undefined, run?: Run): void {
    this.#options.onTransfer?.(transferEvent(packet, asker, cause, run));
  }
}

function toOpening(
  oack: readonly OptionPair[],
): { readonly kind: 'oack'; readonly options: readonly OptionPair[] } | { readonly kind: 'plain' } {
  return oack.length > 0 ? { kind: 'oack', options: oack } : { kind: 'plain' };
}

/** Of a socket that only sends. */
const NO_HANDLER: PeerHandler = { onDatagram: () => {}, onError: () => {} };

/** A socket for both families names IPv4 clients ::ffff:192.0.2.1. */
function withoutMapping(address: string): string {
  return address.startsWith('::ffff:') ? address.slice('::ffff:'.length) : address;
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
