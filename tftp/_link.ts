/**
 * A link between two TFTP ends in virtual time, for tests: packets are lost, doubled, late or early as a `Wire` says, and a run
 * of seconds takes milliseconds. All chance comes from one seed: the same values give the same run.
 *
 * At the ends: our sender and receiver (`runLink`), or, reading, a client as others build it (`UsualReader`).
 */
import assert from 'node:assert/strict';

import type { Effect, Opening, StepFunction, TransferInput, TransferState } from './exchange.ts';
import { type Options, formatOptions, grantOptions, parseOptions } from './options.ts';
import { type Packet, decodePacket, encodeAck, encodeData, encodeError, encodeOack, encodeRequest } from './packet.ts';
import { createReceiver, stepReceiver } from './receiver.ts';
import { createSender, stepSender } from './sender.ts';

export type EndName = 'client' | 'server';

/** What becomes of a packet: nothing arrives, or these datagrams do, so long after it was sent. */
export type Wire = (bytes: Uint8Array, from: EndName, nowMs: number) => readonly Arrival[];

export interface Arrival {
  readonly afterMs: number;
  readonly bytes: Uint8Array;
}

/** A link by its figures; shares are 0 to 1, of the packets of both directions. */
export interface LinkFigures {
  /** one way */
  readonly delayMs: number;
  readonly loss?: number;
  /** both copies arrive together, unless one is late */
  readonly doubled?: number;
  /** overtakes the others: arrives without the delay, as `reorder` of netem does */
  readonly early?: number;
  /** each copy for itself: up to three delays more */
  readonly late?: number;
  /** Mbit/s each way; default unlimited */
  readonly rateMbit?: number;
}

/** What a test sees of an end. */
export interface End {
  readonly name: EndName;
  readonly phase: TransferState['phase'];
  readonly deadlineMs: number;
  readonly failure: TransferState['failure'];
  readonly repeats: number;
  /** options in force */
  readonly granted: Options;
  feed(input: TransferInput): void;
}

export interface LinkOutcome {
  readonly client: End;
  readonly server: End;
  /** the receiving end has all of the content, byte by byte */
  readonly isWhole: boolean;
  /** the receiving end was given something that is not the content */
  readonly isWrong: boolean;
  readonly dataSent: number;
  readonly acksSent: number;
  /** all packets that both ends sent */
  readonly packetsSent: number;
  /** until the reading end had the file */
  readonly wholeAtMs: number;
  /** until both ends were over */
  readonly timeMs: number;
}

export interface LinkOptions {
  readonly direction: 'read' | 'write';
  readonly size: number;
  readonly asked: Options;
  readonly wire: Wire;
  /** default `ours`; the others read only */
  readonly client?: 'ours' | UsualHabits;
  /** default 30 s */
  readonly patienceMs?: number;
  /** what a server grants at most; default 64 */
  readonly windowsizeMax?: number;
  readonly bytesMax?: number;
}

/** mulberry32: small, seeded, good enough to choose victims. */
export function createRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A wire by its figures. */
export function createWire(figures: LinkFigures, seed: number): Wire {
  const { delayMs, loss = 0, doubled = 0, early = 0, late = 0, rateMbit } = figures;
  const random = createRandom(seed);
  const freeAtMs = { client: 0, server: 0 };
  return (bytes, from, nowMs) => {
    let queuedMs = 0;
    if (rateMbit !== undefined) {
      freeAtMs[from] = Math.max(freeAtMs[from], nowMs) + ((bytes.length + 28) * 8) / (rateMbit * 1000);
      queuedMs = freeAtMs[from] - nowMs;
    }
    if (random() < loss) return [];
    const wayMs = queuedMs + (random() < early ? 0 : delayMs);
    const copies = random() < doubled ? 2 : 1;
    return Array.from({ length: copies }, () => ({
      afterMs: wayMs + (random() < late ? random() * 3 * delayMs : 0),
      bytes,
    }));
  };
}

const contents = new Map<number, Uint8Array>();

/** The content of each size: no two blocks of it are alike, down to a blksize of 8. */
export function contentOf(size: number): Uint8Array {
  const known = contents.get(size);
  if (known !== undefined) return known;
  const content = Buffer.alloc(size);
  for (let at = 0; at < size; at += 1) content[at] = (at * 7 + (at >> 3) * 31 + (at >> 11) * 59) & 0xff;
  if (contents.size > 300) contents.clear();
  contents.set(size, content);
  return content;
}

/** Runs one transfer until both ends are over, or nothing is under way any more. */
export function runLink(options: LinkOptions): LinkOutcome {
  const { direction, size, asked, wire, patienceMs = 30_000, windowsizeMax = 64, bytesMax = Infinity } = options;
  const content = contentOf(size);
  const queue = new TimeQueue<{ readonly to: EndName; readonly bytes: Uint8Array }>();
  let nowMs = 0;
  let dataSent = 0;
  let acksSent = 0;
  let packetsSent = 0;
  let gotBytes = 0;
  let isWrong = false;
  let wholeAtMs = Infinity;

  const send = (from: EndName, bytes: Uint8Array): void => {
    if (bytes[1] === 3) dataSent += 1;
    else if (bytes[1] === 4) acksSent += 1;
    packetsSent += 1;
    const to = from === 'client' ? 'server' : 'client';
    for (const arrival of wire(bytes, from, nowMs)) queue.add(nowMs + arrival.afterMs, { to, bytes: arrival.bytes });
  };
  const deliver = (data: Uint8Array): void => {
    if (Buffer.compare(data, content.subarray(gotBytes, gotBytes + data.length)) !== 0) isWrong = true;
    gotBytes += data.length;
  };
  const onCommit = (): void => {
    wholeAtMs = nowMs;
  };
  const tools = { send, deliver, onCommit, content };

  const receiver = { granted: {}, bytesMax, checkSize: true, dallyMs: 3000, patienceMs };
  const opening: Opening = { kind: 'request', asked };
  const request = encodeRequest({ direction, name: 'x', mode: 'octet', options: formatOptions(asked) });
  let client: End;
  if (options.client !== undefined && options.client !== 'ours') {
    client = new UsualReader(options.client, request, tools);
  } else if (direction === 'read') {
    client = new CoreEnd('client', createReceiver({ ...receiver, opening }), stepReceiver, tools, request);
  } else {
    const state = createSender({ opening, granted: {}, size, patienceMs });
    client = new CoreEnd('client', state, stepSender, tools, request);
  }
  const createServer = (packet: Packet & { kind: 'request' }): End => {
    const limits = { blksizeMax: 65464, windowsizeMax, windowBytesMax: 128 * 1024, offset: false };
    const tsize = direction === 'read' ? size : 'echo';
    const { granted, oack } = grantOptions(packet.options, { ...limits, tsize });
    const opening: Opening = oack.length > 0 ? { kind: 'oack', options: oack } : { kind: 'plain' };
    return direction === 'read'
      ? new CoreEnd('server', createSender({ opening, granted, size, patienceMs }), stepSender, tools)
      : new CoreEnd('server', createReceiver({ ...receiver, opening, granted }), stepReceiver, tools);
  };

  let server: End | undefined;
  client.feed({ kind: 'start', nowMs });
  while (!(isOver(client) && isOver(server))) {
    assert.ok(packetsSent < 3_000_000, 'the transfer does not end');
    const deadlineMs = Math.min(client.deadlineMs, server?.deadlineMs ?? Infinity);
    if (queue.nextMs <= deadlineMs && queue.nextMs < Infinity) {
      nowMs = Math.max(nowMs, queue.nextMs);
      const { to, bytes } = queue.take();
      const packet = decodePacket(bytes);
      if (to === 'client') client.feed({ kind: 'packet', packet, nowMs });
      else if (server !== undefined) {
        // A request to the well-known port opens no second transfer here.
        if (packet.kind !== 'request') server.feed({ kind: 'packet', packet, nowMs });
      } else if (packet.kind === 'request' && packet.direction === direction) {
        server = createServer(packet);
        server.feed({ kind: 'start', nowMs });
      }
    } else if (deadlineMs < Infinity) {
      nowMs = Math.max(nowMs, deadlineMs);
      client.feed({ kind: 'tick', nowMs });
      server?.feed({ kind: 'tick', nowMs });
    } else {
      break;
    }
  }
  const isWhole = wholeAtMs < Infinity && gotBytes === size && !isWrong;
  const counts = { dataSent, acksSent, packetsSent, wholeAtMs, timeMs: nowMs };
  return { client, server: server ?? client, isWhole, isWrong, ...counts };
}

function isOver(end: End | undefined): boolean {
  return end !== undefined && (end.phase === 'done' || end.phase === 'failed');
}

/** What an end works with. */
interface EndTools {
  readonly send: (from: EndName, bytes: Uint8Array) => void;
  readonly deliver: (data: Uint8Array) => void;
  readonly onCommit: () => void;
  readonly content: Uint8Array;
}

/** Our sender or receiver. */
class CoreEnd<State extends TransferState> implements End {
  readonly name: EndName;
  readonly #step: StepFunction<State>;
  readonly #tools: EndTools;
  readonly #request: Uint8Array | undefined;
  #state: State;

  constructor(name: EndName, state: State, step: StepFunction<State>, tools: EndTools, request?: Uint8Array) {
    this.name = name;
    this.#state = state;
    this.#step = step;
    this.#tools = tools;
    this.#request = request;
  }

  get phase(): TransferState['phase'] {
    return this.#state.phase;
  }

  get deadlineMs(): number {
    return this.#state.deadlineMs;
  }

  get failure(): TransferState['failure'] {
    return this.#state.failure;
  }

  get repeats(): number {
    return this.#state.repeats;
  }

  get granted(): Options {
    return this.#state.granted;
  }

  feed(input: TransferInput): void {
    const { state, effects } = this.#step(this.#state, input);
    this.#state = state;
    for (const effect of effects) this.#perform(effect, input.nowMs);
  }

  #perform(effect: Effect, nowMs: number): void {
    const { send, deliver, onCommit, content } = this.#tools;
    switch (effect.kind) {
      case 'send-request':
        if (this.#request !== undefined) send(this.name, this.#request);
        break;
      case 'send-oack':
        send(this.name, encodeOack(effect.options));
        break;
      case 'send-ack':
        send(this.name, encodeAck(effect.block));
        break;
      case 'send-error':
        send(this.name, encodeError(effect.code, effect.message));
        break;
      case 'deliver':
        deliver(effect.data);
        break;
      case 'commit':
        onCommit();
        this.feed({ kind: 'committed', nowMs });
        break;
      case 'send-data':
        for (let block = effect.first; block < effect.first + effect.count; block += 1) {
          const data = content.subarray((block - 1) * effect.blksize, block * effect.blksize);
          send(this.name, encodeData(block & 0xffff, data));
        }
        break;
    }
  }
}

/** How another reader behaves where the standards leave it a choice. */
export interface UsualHabits {
  /** ACKs the last in-order block once for a gap, or for each block behind it */
  readonly onGap: 'once' | 'each';
  /** an old block: the last one is ACKed again, each is, or none */
  readonly onOld: 'last' | 'each' | 'none';
  readonly timeoutMs: number;
}

/** The measuring kit's client, and atftp. */
export const PLAIN_READER: UsualHabits = { onGap: 'once', onOld: 'last', timeoutMs: 1000 };
/** U-Boot `net/tftp.c`: one ACK for a gap, old blocks are passed over in silence, 5 s. */
export const UBOOT_READER: UsualHabits = { onGap: 'once', onOld: 'none', timeoutMs: 5000 };
/** EDK2 `Mtftp4Rrq.c`: every unexpected block is answered. */
export const EDK2_READER: UsualHabits = { onGap: 'each', onOld: 'each', timeoutMs: 4000 };

/** A client that reads, keeps nothing behind a gap, and waits for the server to repeat. */
class UsualReader implements End {
  readonly name = 'client';
  readonly failure = undefined;
  readonly repeats = 0;
  readonly granted: Options = {};
  phase: TransferState['phase'] = 'open';
  deadlineMs = Infinity;
  readonly #habits: UsualHabits;
  readonly #request: Uint8Array;
  readonly #tools: EndTools;
  #blksize = 512;
  #windowsize = 1;
  #next = 1;
  #inWindow = 0;
  #gapAcked = false;
  #timeouts = 0;

  constructor(habits: UsualHabits, request: Uint8Array, tools: EndTools) {
    this.#habits = habits;
    this.#request = request;
    this.#tools = tools;
  }

  feed(input: TransferInput): void {
    if (isOver(this)) return;
    if (input.kind === 'packet') this.#onPacket(input.packet, input.nowMs);
    else if (input.kind === 'start') this.#ask(input.nowMs);
    else if (input.kind === 'tick' && input.nowMs >= this.deadlineMs) {
      this.#timeouts += 1;
      this.#gapAcked = false;
      if (this.#timeouts > 8) this.#end('failed');
      else if (this.phase === 'open') this.#ask(input.nowMs);
      else this.#ack(input.nowMs);
    }
  }

  #onPacket(packet: Packet, nowMs: number): void {
    this.#timeouts = 0;
    if (packet.kind === 'error') this.#end('failed');
    else if (packet.kind === 'oack' && this.phase === 'open') {
      const { blksize = 512, windowsize = 1 } = parseOptions(packet.options);
      this.#blksize = blksize;
      this.#windowsize = windowsize;
      this.#ack(nowMs);
    } else if (packet.kind === 'data') this.#onData(packet.block, packet.data, nowMs);
  }

  #onData(block: number, data: Uint8Array, nowMs: number): void {
    const { onGap, onOld } = this.#habits;
    const ahead = ((block - this.#next) << 16) >> 16;
    if (ahead > 0) {
      if (onGap === 'each' || !this.#gapAcked) this.#ack(nowMs);
      this.#gapAcked = true;
    } else if (ahead < 0) {
      if (onOld === 'each' || (onOld === 'last' && ahead === -1)) this.#ack(nowMs);
    } else {
      this.phase = 'data';
      this.#gapAcked = false;
      this.#next += 1;
      this.#inWindow += 1;
      this.#tools.deliver(data);
      if (data.length < this.#blksize) {
        this.#tools.onCommit();
        this.#ack(nowMs);
        this.#end('done');
      } else if (this.#inWindow >= this.#windowsize) this.#ack(nowMs);
    }
  }

  #ask(nowMs: number): void {
    this.deadlineMs = nowMs + this.#habits.timeoutMs;
    this.#tools.send(this.name, this.#request);
  }

  #ack(nowMs: number): void {
    this.phase = 'data';
    this.#inWindow = 0;
    this.deadlineMs = nowMs + this.#habits.timeoutMs;
    this.#tools.send(this.name, encodeAck((this.#next - 1) & 0xffff));
  }

  #end(phase: 'done' | 'failed'): void {
    this.phase = phase;
    this.deadlineMs = Infinity;
  }
}

/** A queue by time; what is due at the same moment leaves in the order it came (a binary heap). */
class TimeQueue<Item> {
  readonly #heap: { readonly atMs: number; readonly order: number; readonly item: Item }[] = [];
  #order = 0;

  get nextMs(): number {
    return this.#heap[0]?.atMs ?? Infinity;
  }

  add(atMs: number, item: Item): void {
    const heap = this.#heap;
    this.#order += 1;
    const entry = { atMs, order: this.#order, item };
    let at = heap.push(entry) - 1;
    while (at > 0) {
      const above = (at - 1) >> 1;
      const parent = heap[above];
      if (parent === undefined || !isBefore(entry, parent)) break;
      heap[at] = parent;
      at = above;
    }
    heap[at] = entry;
  }

  /** @throws {RangeError} when it is empty */
  take(): Item {
    const heap = this.#heap;
    const first = heap[0];
    const entry = heap.pop();
    if (first === undefined || entry === undefined) throw new RangeError('the queue is empty');
    if (heap.length === 0) return first.item;
    let at = 0;
    for (;;) {
      const left = 2 * at + 1;
      const one = heap[left];
      const other = heap[left + 1];
      if (one === undefined) break;
      const isOther = other !== undefined && isBefore(other, one);
      const child = isOther ? other : one;
      if (!isBefore(child, entry)) break;
      heap[at] = child;
      at = isOther ? left + 1 : left;
    }
    heap[at] = entry;
    return first.item;
  }
}

interface Timed {
  readonly atMs: number;
  readonly order: number;
}

function isBefore(one: Timed, other: Timed): boolean {
  return one.atMs < other.atMs || (one.atMs === other.atMs && one.order < other.order);
}
