/**
 * A TFTP client for tests that can be honest, and anything else: it sends any bytes, loses, doubles, delays. Its codec is its
 * own: with the server's, a mistake in both would not show.
 */
import { type Socket, createSocket } from 'node:dgram';
import { setTimeout as sleep } from 'node:timers/promises';

/** A datagram that came, taken apart. */
export interface Received {
  readonly kind: 'RRQ' | 'WRQ' | 'DATA' | 'ACK' | 'ERROR' | 'OACK' | 'other';
  /** DATA, ACK: block; ERROR: code; else -1 */
  readonly number: number;
  /** behind the first four bytes */
  readonly data: Buffer;
  /** ERROR */
  readonly message: string;
  /** OACK, in its order and spelling */
  readonly options: readonly (readonly [string, string])[];
  readonly raw: Buffer;
  readonly port: number;
  readonly atMs: number;
}

const FIRST_ANSWER = /^(OACK|ACK 0|DATA 1)\b/;
const KINDS = ['other', 'RRQ', 'WRQ', 'DATA', 'ACK', 'ERROR', 'OACK'] as const;

export type OptionList = readonly (readonly [string, string | number])[];

/** RRQ (1) or WRQ (2). */
export function request(opcode: 1 | 2, name: string, options: OptionList = [], mode = 'octet'): Buffer {
  const texts = [name, mode, ...options.flat().map(String)].map((text) => `${text}\0`);
  return Buffer.concat([Buffer.from([0, opcode]), Buffer.from(texts.join(''))]);
}

export const ack = (block: number): Buffer => Buffer.from([0, 4, (block >> 8) & 0xff, block & 0xff]);

export const data = (block: number, bytes: Uint8Array): Buffer =>
  Buffer.concat([Buffer.from([0, 3, (block >> 8) & 0xff, block & 0xff]), bytes]);

export const error = (code: number, message = ''): Buffer =>
  Buffer.concat([Buffer.from([0, 5, code >> 8, code & 0xff]), Buffer.from(`${message}\0`)]);

function take(raw: Buffer, port: number): Received {
  const opcode = raw.length >= 2 ? raw.readUInt16BE(0) : 0;
  const kind = KINDS[opcode] ?? 'other';
  const data = raw.subarray(4);
  const texts = kind === 'OACK' ? raw.subarray(2).toString().split('\0').slice(0, -1) : [];
  const options: (readonly [string, string])[] = [];
  for (let index = 0; index + 1 < texts.length; index += 2) options.push([texts[index] ?? '', texts[index + 1] ?? '']);
  const message = kind === 'ERROR' ? (data.toString().split('\0')[0] ?? '') : '';
  const hasNumber = (kind === 'DATA' || kind === 'ACK' || kind === 'ERROR') && raw.length >= 4;
  const number = hasNumber ? raw.readUInt16BE(2) : -1;
  return { kind, number, data, message, options, raw, port, atMs: performance.now() };
}

/** One socket towards a server. What comes first tells the server's TID, and later sends go there. */
export class Peer implements Disposable {
  readonly host: string;
  readonly serverPort: number;
  tid: number | undefined;
  readonly #socket: Socket;
  readonly #queue: Received[] = [];
  readonly #former = new Set<number>();
  #wake: (() => void) | undefined;

  /** @param at.from - own address @param at.fromPort - own port; 0: any */
  constructor(at: {
    readonly host: string;
    readonly port: number;
    readonly from?: string;
    readonly fromPort?: number;
  }) {
    this.host = at.host;
    this.serverPort = at.port;
    this.#socket = createSocket(at.host.includes(':') ? 'udp6' : 'udp4');
    this.#socket.on('error', () => {});
    this.#socket.bindSync({ ...(at.from !== undefined && { address: at.from }), port: at.fromPort ?? 0 });
    this.#socket.setRecvBufferSize(8 * 1024 * 1024);
    this.#socket.on('message', (raw, from) => {
      const received = take(raw, from.port);
      // What an earlier transfer repeats; its ERROR would count. A first answer comes from a port that was given anew.
      const isFirst = this.tid === undefined && FIRST_ANSWER.test(`${received.kind} ${received.number}`);
      if (this.#former.has(from.port) && received.kind !== 'ERROR' && !isFirst) return;
      this.#former.delete(from.port);
      this.tid ??= received.port;
      this.#queue.push(received);
      this.#wake?.();
    });
  }

  get port(): number {
    return this.#socket.address().port;
  }

  /** Sends to the TID, or to the port of the server while there is none. */
  send(bytes: Uint8Array, port: number = this.tid ?? this.serverPort): void {
    this.#socket.send(bytes, port, this.host);
  }

  /** Asks the server's port; the answer brings a new TID. */
  ask(bytes: Uint8Array): void {
    if (this.tid !== undefined) this.#former.add(this.tid);
    this.tid = undefined;
    this.send(bytes, this.serverPort);
  }

  /** Sends to any address. */
  sendTo(bytes: Uint8Array, port: number, host: string): void {
    this.#socket.setBroadcast(true);
    this.#socket.send(bytes, port, host);
  }

  /** The next datagram, or nothing. */
  async receive(withinMs = 3000): Promise<Received | undefined> {
    const first = this.#queue.shift();
    if (first !== undefined) return first;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, withinMs);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.#wake = undefined;
    return this.#queue.shift();
  }

  /** The next datagram, which must come. A repeat of the block before is passed over: this process may have been slow. */
  async expect(kind: Received['kind'], number?: number): Promise<Received> {
    const got = await this.receive();
    if (got === undefined) throw new Error(`nothing came, where ${kind} ${number ?? ''} was due`);
    if (got.kind === kind && number !== undefined && got.number === number - 1) return this.expect(kind, number);
    if (got.kind !== kind || (number !== undefined && got.number !== number)) {
      throw new Error(`${describe(got)} came, where ${kind} ${number ?? ''} was due`);
    }
    return got;
  }

  /** All that comes until it has been quiet for so long. */
  async drain(quietMs = 250): Promise<Received[]> {
    const all: Received[] = [];
    for (;;) {
      const got = await this.receive(quietMs);
      if (got === undefined) return all;
      all.push(got);
    }
  }

  /** All that comes in a stretch of time. */
  async listen(forMs: number): Promise<Received[]> {
    await sleep(forMs);
    return this.#queue.splice(0);
  }

  /** What was sent still leaves: that takes a turn. */
  [Symbol.dispose](): void {
    setImmediate(() => this.#socket.close());
  }
}

export function describe(got: Received | undefined): string {
  if (got === undefined) return 'nothing';
  const options = got.options.map((pair) => pair.join('=')).join(' ');
  const size = got.kind === 'DATA' ? ` with ${got.data.length} bytes` : '';
  return `${got.kind} ${got.number === -1 ? options : got.number}${size}${got.message === '' ? '' : ` "${got.message}"`}`;
}

/** How a whole transfer went. */
export interface Outcome {
  readonly bytes: Buffer;
  readonly oack: Readonly<Record<string, string>> | undefined;
  /** code and message; -1: silence */
  readonly error: readonly [number, string] | undefined;
  /** DATA (read) or ACK (write) that came */
  readonly came: readonly Received[];
  /** of the transfer, absolute */
  readonly blocks: number;
}

export interface Plan {
  readonly name: string;
  readonly options?: OptionList;
  readonly mode?: string;
  /** how often each packet of ours is sent; 0: lost */
  readonly times?: (packet: 'ack' | 'data', block: number) => number;
  /** whether a packet that came is lost */
  readonly lose?: (came: Received) => boolean;
  /** silence that makes us send again */
  readonly patienceMs?: number;
  /** keep what came: off for long transfers */
  readonly keep?: boolean;
}

/** Reads a file whole. */
export async function read(peer: Peer, plan: Plan): Promise<Outcome> {
  const {
    name,
    options = [],
    mode = 'octet',
    times = () => 1,
    lose = () => false,
    patienceMs = 3000,
    keep = true,
  } = plan;
  const chunks: Buffer[] = [];
  const came: Received[] = [];
  let [oack, blksize, windowsize, blocks, acked, silent]: [Outcome['oack'], number, number, number, number, number] = [
    undefined,
    512,
    1,
    0,
    0,
    0,
  ];
  const end = (error?: Outcome['error']): Outcome => ({ bytes: Buffer.concat(chunks), oack, error, came, blocks });
  const sendAck = (): void => {
    acked = blocks;
    for (let count = times('ack', blocks); count > 0; count -= 1) peer.send(ack(blocks));
  };
  peer.ask(request(1, name, options, mode));
  for (;;) {
    const got = await peer.receive(patienceMs);
    if (got !== undefined && lose(got)) continue;
    if (got === undefined) {
      silent += 1;
      if (silent > 5) return end([-1, 'silence']);
      if (peer.tid === undefined) peer.ask(request(1, name, options, mode));
      else sendAck();
      continue;
    }
    if (keep) came.push(got);
    if (got.kind === 'ERROR') return end([got.number, got.message]);
    if (got.kind === 'OACK') {
      if (blocks > 0) continue;
      oack = Object.fromEntries(got.options.map(([option, value]) => [option.toLowerCase(), value]));
      blksize = Number(oack['blksize'] ?? 512);
      windowsize = Number(oack['windowsize'] ?? 1);
      sendAck();
    } else if (got.kind === 'DATA' && got.number === ((blocks + 1) & 0xffff)) {
      silent = 0;
      blocks += 1;
      chunks.push(got.data);
      if (got.data.length < blksize || blocks - acked >= windowsize) sendAck();
      if (got.data.length < blksize) return end();
    } else if (got.kind === 'DATA' && ((got.number - blocks) & 0xffff) < 0x8000 && acked !== blocks) {
      sendAck();
    }
  }
}

/** Writes a file whole. */
export async function write(peer: Peer, plan: Plan & { readonly content: Uint8Array }): Promise<Outcome> {
  const { name, content, options = [], mode = 'octet', times = () => 1, patienceMs = 3000, keep = true } = plan;
  const came: Received[] = [];
  let [oack, blksize, windowsize, acked, sent, silent]: [Outcome['oack'], number, number, number, number, number] = [
    undefined,
    512,
    1,
    0,
    0,
    0,
  ];
  let last = -1;
  const end = (error?: Outcome['error']): Outcome => ({ bytes: Buffer.alloc(0), oack, error, came, blocks: acked });
  const sendWindow = (): void => {
    sent = Math.min(acked + windowsize, last);
    for (let block = acked + 1; block <= sent; block += 1) {
      const bytes = content.subarray((block - 1) * blksize, block * blksize);
      for (let count = times('data', block); count > 0; count -= 1) peer.send(data(block, bytes));
    }
  };
  peer.ask(request(2, name, options, mode));
  for (;;) {
    const got = await peer.receive(patienceMs);
    if (got === undefined) {
      silent += 1;
      if (silent > 5) return end([-1, 'silence']);
      if (last >= 0) sendWindow();
      else if (peer.tid === undefined) peer.ask(request(2, name, options, mode));
      continue;
    }
    if (keep) came.push(got);
    if (got.kind === 'ERROR') return end([got.number, got.message]);
    if (last < 0 && (got.kind === 'OACK' || got.kind === 'ACK')) {
      if (got.kind === 'OACK') {
        oack = Object.fromEntries(got.options.map(([option, value]) => [option.toLowerCase(), value]));
        blksize = Number(oack['blksize'] ?? 512);
        windowsize = Number(oack['windowsize'] ?? 1);
      }
      last = Math.floor(content.length / blksize) + 1;
      sendWindow();
    } else if (got.kind === 'ACK') {
      const moved = (got.number - acked) & 0xffff;
      if (moved > sent - acked || (moved === 0 && windowsize === 1)) continue;
      silent = 0;
      acked += moved;
      if (acked === last) return end();
      sendWindow();
    }
  }
}
