/**
 * The accelerator: sockets made by system calls, and a window that leaves in one of them (UDP_SEGMENT, Linux 4.18). What
 * arrives is heard through `node:dgram`, to which the socket is handed; an upload's further datagrams of a burst are then
 * taken by one recvmmsg(2).
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
 *   mmsghdr (64 bytes)   0 name* │ 8 namelen │ 16 iov* │ 24 iovlen │ 32 control* │ 40 controllen │ 48 flags │ 56 len
 *   iovec (16)           0 base* │ 8 length
 *   cmsghdr (16) + u16   0 length │ 8 level │ 12 type │ 16 segment size
 */
import { type Socket, createSocket } from 'node:dgram';
import { SocketAddress, isIPv6 } from 'node:net';
import { networkInterfaces } from 'node:os';

import { DataWindow, WINDOW_PART_BLOCKS } from './data-window.ts';
import { connectDgram, listenDgram, sendInParts } from './driver-dgram.ts';
import {
  type SystemCalls,
  AF_INET,
  AF_INET6,
  ERRNO,
  MSG_DONTWAIT,
  MSG_TRUNC,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOCK_NONBLOCK,
  SOL_UDP,
  UDP_SEGMENT,
} from './driver-syscalls.ts';
import type { ConnectTo, Driver, PeerHandler, PeerSocket } from './driver.ts';
import type { Source } from './source.ts';

const MMSGHDR_BYTES = 64;
const IOVEC_BYTES = 16;
/** CMSG_SPACE(sizeof(u16)), and CMSG_LEN of it. */
const CMSG_SPACE = 24;
const CMSG_LEN = 18;
/** struct sockaddr_in6; sockaddr_in has 16. */
const SOCKADDR_BYTES = 28;
/** 65535 less the headers of IPv6 (40) and UDP (8), which is enough for IPv4 too. */
const DATAGRAM_BYTES_MAX = 65_487;
/** Datagrams that one recvmmsg takes, and the memory for them. */
const BURST_PACKETS_MAX = 64;
const BURST_BYTES_MAX = 256 * 1024;

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

/** Memory with a fixed address. */
class Memory {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly at: bigint;

  constructor(calls: SystemCalls, length: number) {
    const buffer = new ArrayBuffer(length);
    this.bytes = new Uint8Array(buffer);
    this.view = new DataView(buffer);
    this.at = calls.addressOf(buffer);
  }

  pointer(at: number, value: bigint): void {
    this.view.setBigUint64(at, value, true);
  }

  /** A size_t or socklen_t with its padding. */
  size(at: number, value: number): void {
    this.view.setUint32(at, value, true);
    this.view.setUint32(at + 4, 0, true);
  }
}

/** The system calls with their memory, shared by all sockets: each call ends before the next begins. */
class Engine {
  readonly calls: SystemCalls;
  readonly window = new DataWindow();
  readonly #address: Memory;
  readonly #messages: Memory;
  readonly #iovecs: Memory;
  readonly #control: Memory;
  readonly #windowAt: bigint;
  #inbox: Inbox | undefined;

  constructor(calls: SystemCalls) {
    this.calls = calls;
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
   * @returns packets that have left, and the errno that stopped it (0: none)
   */
  send(fd: number, bytes: number, packetBytes: number, segments: number): { sent: number; errno: number } {
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
      if (result <= 0) return { sent: sent * segments, errno: -result || ERRNO.EAGAIN };
      sent += result;
    }
    return { sent: Math.ceil(bytes / packetBytes), errno: 0 };
  }

  /** Takes what else has arrived. */
  drain(fd: number, packetBytes: number, handler: PeerHandler): void {
    if (this.#inbox === undefined || this.#inbox.packetBytes < packetBytes) {
      this.#inbox = new Inbox(this.calls, packetBytes);
    }
    this.#inbox.drain(fd, handler);
  }
}

/** Where a burst of datagrams arrives. */
class Inbox {
  readonly packetBytes: number;
  readonly #calls: SystemCalls;
  readonly #count: number;
  readonly #data: Memory;
  readonly #messages: Memory;
  /** held for the kernel, which writes through the pointers to it */
  readonly #iovecs: Memory;
  #isBusy = false;

  constructor(calls: SystemCalls, packetBytes: number) {
    this.#calls = calls;
    this.packetBytes = packetBytes;
    this.#count = Math.max(1, Math.min(BURST_PACKETS_MAX, Math.floor(BURST_BYTES_MAX / packetBytes)));
    this.#data = new Memory(calls, this.#count * packetBytes);
    this.#messages = new Memory(calls, this.#count * MMSGHDR_BYTES);
    this.#iovecs = new Memory(calls, this.#count * IOVEC_BYTES);
    for (let index = 0; index < this.#count; index += 1) {
      this.#iovecs.pointer(index * IOVEC_BYTES, this.#data.at + BigInt(index * packetBytes));
      this.#iovecs.size(index * IOVEC_BYTES + 8, packetBytes);
      this.#messages.pointer(index * MMSGHDR_BYTES + 16, this.#iovecs.at + BigInt(index * IOVEC_BYTES));
      this.#messages.size(index * MMSGHDR_BYTES + 24, 1);
    }
  }

  drain(fd: number, handler: PeerHandler): void {
    // Who is called may not come here again: the memory is in use.
    if (this.#isBusy) return;
    const count = this.#calls.recvmmsg(fd, this.#messages.at, this.#count, MSG_DONTWAIT);
    this.#isBusy = true;
    try {
      for (let index = 0; index < count; index += 1) {
        const message = index * MMSGHDR_BYTES;
        const start = index * this.packetBytes;
        const length = this.#messages.view.getUint32(message + 56, true);
        // One longer than the largest that was agreed on is no packet of this transfer.
        const isCut = (this.#messages.view.getUint32(message + 48, true) & MSG_TRUNC) !== 0;
        if (!isCut) handler.onDatagram(this.#data.bytes.subarray(start, start + length));
      }
    } finally {
      this.#isBusy = false;
    }
  }
}

class GsoPeerSocket implements PeerSocket {
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
    const burst = to.burst !== undefined && to.burst.packets > 1 ? to.burst.packetBytes : 0;
    socket.on('message', (bytes) => {
      handler.onDatagram(bytes);
      if (burst > 0 && this.#fd >= 0) this.#engine.drain(this.#fd, burst, handler);
    });
    socket.on('error', (error) => handler.onError(error));
  }

  send(bytes: Uint8Array): void {
    const { memory } = this.#engine.window;
    const isInOrder = this.#fd >= 0 && this.#socket.getSendQueueCount() === 0;
    if (isInOrder && bytes.length > 0 && bytes.length <= memory.length) {
      memory.set(bytes);
      if (this.#engine.send(this.#fd, bytes.length, bytes.length, 1).errno === 0) return;
    }
    this.#socket.send(bytes);
  }

  sendData(source: Source, first: number, count: number, blksize: number): void {
    sendInParts(this.#engine.window, source, { first, count, blksize }, (bytes) => this.#sendPart(bytes, blksize));
  }

  #sendPart(bytes: number, blksize: number): void {
    const { window } = this.#engine;
    const packetBytes = blksize + 4;
    let sent = 0;
    if (this.#fd >= 0 && this.#socket.getSendQueueCount() === 0) {
      const most = Math.floor(DATAGRAM_BYTES_MAX / packetBytes);
      const segments = this.#isCutting ? Math.max(1, Math.min(WINDOW_PART_BLOCKS, most)) : 1;
      const result = this.#engine.send(this.#fd, bytes, packetBytes, segments);
      if (result.errno === 0) return;
      ({ sent } = result);
      if (result.errno !== ERRNO.EAGAIN && result.errno !== ERRNO.ENOBUFS) this.#isCutting = false;
    }
    // Copies, for node:dgram keeps what it cannot send at once, and this memory is shared.
    for (const packet of window.packets.slice(sent)) this.#socket.send(Uint8Array.from(packet));
  }

  close(): void {
    const socket = this.#socket;
    this.#fd = -1;
    // Datagrams that wait in the queue of a closed socket would be dropped; they leave within one turn of the loop.
    if (socket.getSendQueueCount() === 0) socket.close();
    else setImmediate(() => socket.close());
  }
}

/**
 * Writes a struct sockaddr_in or sockaddr_in6 (linux/in.h, linux/in6.h) with port 0: any that is free.
 *
 * @returns its length; 0 when the address is not numeric or its zone is not known
 */
function writeSocketAddress(view: DataView, text: string): number {
  const [bare = '', zone] = text.split('%');
  if (!isIPv6(bare)) {
    const parts = bare.split('.').map(Number);
    if (parts.length !== 4) return 0;
    view.setUint16(0, AF_INET, true);
    view.setUint16(2, 0);
    for (const [index, part] of parts.entries()) view.setUint8(4 + index, part);
    view.setBigUint64(8, 0n);
    return 16;
  }
  const scope = zone === undefined ? 0 : scopeOf(zone);
  if (scope === undefined) return 0;
  view.setUint16(0, AF_INET6, true);
  view.setUint16(2, 0);
  view.setUint32(4, 0);
  for (const [index, group] of ipv6Groups(bare).entries()) view.setUint16(8 + 2 * index, group);
  view.setUint32(24, scope, true);
  return SOCKADDR_BYTES;
}

/** The eight groups of an IPv6 address. */
function ipv6Groups(text: string): readonly number[] {
  // Without an IPv4 tail, and with no more than one `::`.
  const { address } = new SocketAddress({ address: text, family: 'ipv6' });
  const tail = /^(.*:)(\d+)\.(\d+)\.(\d+)\.(\d+)$/.exec(address);
  const [, head = '', a, b, c, d] = tail ?? [];
  const hex = (high: number, low: number): string => (high * 256 + low).toString(16);
  const plain = tail === null ? address : `${head}${hex(Number(a), Number(b))}:${hex(Number(c), Number(d))}`;
  const [left = '', right] = plain.split('::');
  const parse = (part: string): number[] =>
    part
      .split(':')
      .filter(Boolean)
      .map((group) => Number.parseInt(group, 16));
  const before = parse(left);
  const after = right === undefined ? [] : parse(right);
  return [...before, ...Array.from({ length: 8 - before.length - after.length }, () => 0), ...after];
}

/** The index of an interface: its number, or its name (an address of it, as the system lists them, has the index). */
function scopeOf(zone: string): number | undefined {
  if (/^[0-9]{1,9}$/.test(zone)) return Number(zone);
  const found = networkInterfaces()[zone]?.find((one) => one.family === 'IPv6' && (one.scopeid ?? 0) > 0);
  return found?.scopeid;
}
