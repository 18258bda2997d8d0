/**
 * The accelerator: sockets made by system calls, and a window that leaves in one of them (UDP_SEGMENT, Linux 4.18). Sockets
 * are handed to `node:dgram`, which wakes the process; what else has arrived is taken by system calls (`driver-inbox.ts`).
 *
 * A send that fails loses nothing:
 *
 *   EINVAL, EMSGSIZE, EIO, …   this network path does not do it (a block larger than its MTU, a device without checksums, IPsec):
 *                              this transfer goes on packet by packet
 *   EAGAIN, ENOBUFS            no room: the rest of the window goes through node:dgram, which waits for room
 *   no node:ffi, no UDP_SEGMENT   there is no such driver; `drivers.ts` takes the reference
 *
 * Tried and left out: waiting on sockets by libuv's uv_poll through node:ffi (7.1 µs a turn, node:dgram 7.0), UDP_GRO
 * (needs a control message that node:dgram does not read).
 *
 *   cmsghdr (16) + u16   0 length │ 8 level │ 12 type │ 16 segment size
 */
import { type Socket, createSocket } from 'node:dgram';
import { isIPv6 } from 'node:net';

import { DataWindow, WINDOW_PART_BLOCKS } from './data-window.ts';
import { connectDgram, listenDgram, sendInParts } from './driver-dgram.ts';
import { type Hearer, Inbox } from './driver-inbox.ts';
import { IOVEC_BYTES, MMSGHDR_BYTES, Memory, SOCKADDR_BYTES, writeSocketAddress } from './driver-memory.ts';
import {
  type SystemCalls,
  AF_INET,
  AF_INET6,
  ERRNO,
  MSG_DONTWAIT,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOCK_NONBLOCK,
  SOL_UDP,
  UDP_SEGMENT,
} from './driver-syscalls.ts';
import type { ConnectTo, Driver, PeerHandler, PeerSocket } from './driver.ts';
import type { Source } from './source.ts';

/** CMSG_SPACE(sizeof(u16)), and CMSG_LEN of it. */
const CMSG_SPACE = 24;
const CMSG_LEN = 18;
/** 65535 less the headers of IPv6 (40) and UDP (8), which is enough for IPv4 too. */
const DATAGRAM_BYTES_MAX = 65_487;

/**
 * The accelerator.
 *
 * @returns `undefined` when the kernel does not know UDP_SEGMENT
 */
export function createGsoDriver(calls: SystemCalls): Driver | undefined {
  const engine = new Engine(calls);
  if (!engine.probe()) return undefined;
  return {
    name: 'gso',
    listen: listenDgram,
    connect: (to, handler) => engine.connect(to, handler),
  };
}

/** The system calls with their memory, shared by all sockets: each call ends before the next begins. */
class Engine {
  readonly calls: SystemCalls;
  readonly window = new DataWindow();
  readonly inbox: Inbox;
  /** packets of a window that have left before it was stopped */
  sent = 0;
  readonly #address: Memory;
  readonly #messages: Memory;
  readonly #iovecs: Memory;
  readonly #control: Memory;
  readonly #windowAt: bigint;

  constructor(calls: SystemCalls) {
    this.calls = calls;
    this.inbox = new Inbox(calls);
    this.#address = new Memory(calls, SOCKADDR_BYTES);
    this.#messages = new Memory(calls, WINDOW_PART_BLOCKS * MMSGHDR_BYTES);
    this.#iovecs = new Memory(calls, WINDOW_PART_BLOCKS * IOVEC_BYTES);
    this.#control = new Memory(calls, CMSG_SPACE);
    this.#windowAt = calls.addressOf(this.window.memory.buffer);
    this.#control.size(0, CMSG_LEN);
    this.#control.view.setInt32(8, SOL_UDP, true);
    this.#control.view.setInt32(12, UDP_SEGMENT, true);
    for (let index = 0; index < WINDOW_PART_BLOCKS; index += 1) {
      this.#messages.pointer(index * MMSGHDR_BYTES + 16, this.#iovecs.at + BigInt(index * IOVEC_BYTES));
      this.#messages.size(index * MMSGHDR_BYTES + 24, 1);
    }
  }

  /** Whether the kernel knows UDP_SEGMENT. */
  probe(): boolean {
    const fd = this.calls.socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return false;
    this.#address.view.setInt32(0, 0, true);
    const result = this.calls.setsockopt(fd, SOL_UDP, UDP_SEGMENT, this.#address.at, 4);
    this.calls.close(fd);
    return result === 0;
  }

  connect(to: ConnectTo, handler: PeerHandler): PeerSocket {
    const fd = this.#open(to);
    // What the system calls cannot do, node:dgram does or says why not.
    if (fd === undefined) return new GsoPeerSocket(this, connectDgram(to), -1, to, handler);
    const socket = createSocket(isIPv6(to.address) ? 'udp6' : 'udp4');
    let isAdopted = false;
    try {
      socket.bind({ fd });
      isAdopted = true;
      // Here, not by a system call: node:dgram has to know it.
      socket.connectSync(to.port, to.address);
      return new GsoPeerSocket(this, socket, fd, to, handler);
    } catch (error) {
      if (!isAdopted) this.calls.close(fd);
      socket.close();
      throw error;
    }
  }

  /** A bound socket; `undefined`: it did not go. */
  #open(to: ConnectTo): number | undefined {
    const { calls } = this;
    const family = isIPv6(to.address) ? AF_INET6 : AF_INET;
    const fd = calls.socket(family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || to.local === undefined) return fd < 0 ? undefined : fd;
    const length = writeSocketAddress(this.#address.view, to.local);
    if (length > 0 && calls.bind(fd, this.#address.at, length) === 0) return fd;
    calls.close(fd);
    return undefined;
  }

  /**
   * Sends the first `bytes` of the window, cut into packets.
   *
   * @param segments - packets that go as one message
   * @returns the errno that stopped it, 0: none; `sent` then says how many packets have left
   */
  send(fd: number, bytes: number, packetBytes: number, segments: number): number {
    const step = segments * packetBytes;
    const count = Math.ceil(bytes / step);
    for (let index = 0; index < count; index += 1) {
      const length = Math.min(step, bytes - index * step);
      const message = index * MMSGHDR_BYTES;
      this.#iovecs.pointer(index * IOVEC_BYTES, this.#windowAt + BigInt(index * step));
      this.#iovecs.size(index * IOVEC_BYTES + 8, length);
      // A message of one packet needs no cutting.
      const isCut = length > packetBytes;
      this.#messages.pointer(message + 32, isCut ? this.#control.at : 0n);
      this.#messages.size(message + 40, isCut ? CMSG_SPACE : 0);
    }
    this.#control.view.setUint16(16, packetBytes, true);
    let sent = 0;
    while (sent < count) {
      const at = this.#messages.at + BigInt(sent * MMSGHDR_BYTES);
      const result = this.calls.sendmmsg(fd, at, count - sent, MSG_DONTWAIT);
      if (result <= 0) {
        this.sent = sent * segments;
        return -result || ERRNO.EAGAIN;
      }
      sent += result;
    }
    return 0;
  }
}

class GsoPeerSocket implements PeerSocket, Hearer {
  readonly handler: PeerHandler;
  readonly packetBytes: number;
  readonly #engine: Engine;
  readonly #socket: Socket;
  /** -1: node:dgram does it all, or it is closed */
  #fd: number;
  /** this path takes windows in one piece */
  #isCutting = true;

  constructor(engine: Engine, socket: Socket, fd: number, to: ConnectTo, handler: PeerHandler) {
    this.#engine = engine;
    this.#socket = socket;
    this.#fd = fd;
    this.handler = handler;
    this.packetBytes = to.burst?.packetBytes ?? 0;
    let isAdded = fd < 0;
    socket.on('message', (bytes) => {
      // Not before: a forged address never sends anything.
      if (!isAdded && this.#fd >= 0) engine.inbox.add(fd, this);
      isAdded = true;
      handler.onDatagram(bytes);
      engine.inbox.turn();
    });
    socket.on('error', (error) => handler.onError(error));
  }

  send(bytes: Uint8Array): void {
    const { memory } = this.#engine.window;
    if (this.#isFree() && bytes.length > 0 && bytes.length <= memory.length) {
      memory.set(bytes);
      this.#engine.inbox.vigil.begin();
      if (this.#engine.send(this.#fd, bytes.length, bytes.length, 1) === 0) return;
    }
    this.#socket.send(bytes);
  }

  sendData(source: Source, first: number, count: number, blksize: number): void {
    if (count === 1) this.#engine.inbox.vigil.begin();
    sendInParts(this.#engine.window, source, { first, count, blksize }, (bytes) => this.#sendPart(bytes, blksize));
  }

  #sendPart(bytes: number, blksize: number): void {
    const engine = this.#engine;
    const packetBytes = blksize + 4;
    let sent = 0;
    if (this.#isFree()) {
      const most = Math.floor(DATAGRAM_BYTES_MAX / packetBytes);
      const segments = this.#isCutting ? Math.max(1, Math.min(WINDOW_PART_BLOCKS, most)) : 1;
      const errno = engine.send(this.#fd, bytes, packetBytes, segments);
      if (errno === 0) return;
      sent = engine.sent;
      if (errno !== ERRNO.EAGAIN && errno !== ERRNO.ENOBUFS) this.#isCutting = false;
    }
    // Copies, for node:dgram keeps what it cannot send at once, and this memory is shared.
    for (const packet of engine.window.packets.slice(sent)) this.#socket.send(Uint8Array.from(packet));
  }

  /** Whether system calls may send: not before what waits in node:dgram. */
  #isFree(): boolean {
    return this.#fd >= 0 && this.#socket.getSendQueueCount() === 0;
  }

  close(): void {
    const socket = this.#socket;
    if (this.#fd >= 0) this.#engine.inbox.delete(this.#fd);
    this.#fd = -1;
    // Datagrams that wait in the queue of a closed socket would be dropped; they leave within one turn of the loop.
    if (socket.getSendQueueCount() === 0) socket.close();
    else setImmediate(() => socket.close());
  }
}
