/**
 * How the accelerator hears: an epoll set of its own beside libuv's. libuv wakes the process and gives the first datagram,
 * through `node:dgram`; whatever else has arrived, for any transfer, is then taken by system calls, one for the datagrams of a
 * socket, until nobody has more to say. So a busy server goes through libuv, which costs 7 µs a datagram, only now and then.
 *
 *   libuv wakes ──▶ first datagram ──▶ epoll_wait ──▶ recvmmsg of each ──▶ … none ──▶ (a moment's wait) ──▶ back to libuv
 *
 * After a lone packet (lock-step) it stays awake for a moment: on a local network the answer is there before the process
 * would have gone to sleep, and waking it costs more than the wait. Where the wait is in vain, it is left out for a while.
 */
import { IOVEC_BYTES, MMSGHDR_BYTES, Memory } from './driver-memory.ts';
import {
  type SystemCalls,
  EPOLLIN,
  EPOLL_CLOEXEC,
  EPOLL_CTL_ADD,
  EPOLL_CTL_DEL,
  EPOLL_EVENT,
  ERRNO,
  MSG_DONTWAIT,
  MSG_TRUNC,
} from './driver-syscalls.ts';
import { Vigil } from './driver-vigil.ts';
import type { PeerHandler } from './driver.ts';

/** Events that one epoll_wait gives. */
const EVENTS_MAX = 64;
/** Datagrams that one recvmmsg takes, and the memory for them. */
const PACKETS_MAX = 64;
const PACKETS_BYTES_MAX = 256 * 1024;
/** Room for anything but large DATA. */
const SMALL_BYTES = 1500;
/** So long others wait at most: timers, requests, the rest of the program. */
const TURN_MAX_MS = 5;

/** A socket that hears. */
export interface Hearer {
  readonly handler: PeerHandler;
  /** longest datagram that is one of its packets */
  readonly packetBytes: number;
}

/** The sockets of all transfers. */
export class Inbox {
  readonly #calls: SystemCalls;
  readonly #epoll: number;
  readonly #events: Memory;
  readonly #event: Memory;
  readonly #hearers = new Map<number, Hearer>();
  readonly #small: Pile;
  #large: Pile | undefined;
  readonly vigil: Vigil = new Vigil();
  #isBusy = false;
  /** the last turn took all its time: the rest of the program comes first */
  #isResting = false;

  constructor(calls: SystemCalls) {
    this.#calls = calls;
    this.#epoll = calls.epollCreate(EPOLL_CLOEXEC);
    this.#events = new Memory(calls, EVENTS_MAX * EPOLL_EVENT.bytes);
    this.#event = new Memory(calls, EPOLL_EVENT.bytes);
    this.#small = new Pile(calls, SMALL_BYTES);
  }

  /** Hears what comes to a socket, once `turn` is called. */
  add(fd: number, hearer: Hearer): void {
    this.#event.view.setUint32(0, EPOLLIN, true);
    this.#event.view.setUint32(EPOLL_EVENT.data, fd, true);
    if (this.#calls.epollControl(this.#epoll, EPOLL_CTL_ADD, fd, this.#event.at) === 0) this.#hearers.set(fd, hearer);
  }

  /** Forgets a socket, before it is closed. */
  delete(fd: number): void {
    if (this.#hearers.delete(fd)) this.#calls.epollControl(this.#epoll, EPOLL_CTL_DEL, fd, this.#event.at);
  }

  /** Takes what has arrived for all sockets. Does nothing while it is at it. */
  turn(): void {
    if (this.#isBusy || this.#isResting) return;
    this.#isBusy = true;
    try {
      if (!this.#hearAll()) return;
    } finally {
      this.#isBusy = false;
    }
    this.#isResting = true;
    setImmediate(() => void (this.#isResting = false));
  }

  /** Returns whether the time was over before there was silence. */
  #hearAll(): boolean {
    const untilMs = performance.now() + TURN_MAX_MS;
    for (;;) {
      const count = this.#calls.epollWait(this.#epoll, this.#events.at, EVENTS_MAX, 0);
      if (count > 0) this.vigil.end();
      for (let index = 0; index < count; index += 1) {
        this.#hear(this.#events.view.getUint32(index * EPOLL_EVENT.bytes + EPOLL_EVENT.data, true));
      }
      const nowMs = performance.now();
      if (count <= 0 && !this.vigil.keep(nowMs)) return false;
      if (nowMs >= untilMs) return true;
    }
  }

  #hear(fd: number): void {
    const hearer = this.#hearers.get(fd);
    if (hearer === undefined) return;
    const errno = this.#pileFor(hearer.packetBytes).take(fd, hearer.handler);
    if (errno === 0 || errno === ERRNO.EAGAIN) return;
    if (errno === ERRNO.ECONNREFUSED) {
      hearer.handler.onError(Object.assign(new Error('recvmmsg ECONNREFUSED'), { code: 'ECONNREFUSED' }));
    } else {
      // It is node:dgram's alone from now on.
      this.delete(fd);
    }
  }

  #pileFor(packetBytes: number): Pile {
    if (packetBytes <= SMALL_BYTES) return this.#small;
    if (this.#large === undefined || this.#large.packetBytes < packetBytes)
      this.#large = new Pile(this.#calls, packetBytes);
    return this.#large;
  }
}

/** Where the datagrams of one recvmmsg arrive. */
class Pile {
  readonly packetBytes: number;
  readonly #calls: SystemCalls;
  readonly #count: number;
  readonly #data: Memory;
  readonly #messages: Memory;
  /** held for the kernel, which writes through the pointers to it */
  readonly #iovecs: Memory;

  constructor(calls: SystemCalls, packetBytes: number) {
    this.#calls = calls;
    this.packetBytes = packetBytes;
    this.#count = Math.max(1, Math.min(PACKETS_MAX, Math.floor(PACKETS_BYTES_MAX / packetBytes)));
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

  /** Returns the errno, 0 for none. */
  take(fd: number, handler: PeerHandler): number {
    const count = this.#calls.recvmmsg(fd, this.#messages.at, this.#count, MSG_DONTWAIT);
    for (let index = 0; index < count; index += 1) {
      const message = index * MMSGHDR_BYTES;
      const start = index * this.packetBytes;
      const length = this.#messages.view.getUint32(message + 56, true);
      // One longer than the largest that was agreed on is no packet of this transfer.
      const isCut = (this.#messages.view.getUint32(message + 48, true) & MSG_TRUNC) !== 0;
      if (!isCut) handler.onDatagram(this.#data.bytes.subarray(start, start + length));
    }
    return count < 0 ? -count : 0;
  }
}
