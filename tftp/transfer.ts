/**
 * Drives a sender or receiver: packets in, effects carried out, one deadline. Knows no socket; it is given a way to send.
 */
import type { Wire } from './driver.ts';
import type { Effect, StepFunction, TransferInput, TransferState } from './exchange.ts';
import { toRefused } from './folder.ts';
import { decodePacket, encodeAck, encodeError, encodeOack, writeDataHeader } from './packet.ts';
import type { Sink } from './sink.ts';
import type { Source } from './source.ts';
import { type Waiting, TimerWheel } from './timer-wheel.ts';

const DATA_HEADER_BYTES = 4;

/** All transfers of the process. */
const wheel = new TimerWheel();

/** What a transfer works with. */
export interface TransferParts<State extends TransferState> {
  readonly state: State;
  readonly step: StepFunction<State>;
  /** the way to the peer; one without `sendData` sends windows packet by packet */
  readonly wire: Pick<Wire, 'send'> & Partial<Wire>;
  /** the RRQ or WRQ of a client */
  readonly request?: Uint8Array;
  /** what a sender sends; the owner closes it once the outcome is known */
  readonly source?: Source;
  /** where a receiver's bytes go; the owner closes it once the outcome is known */
  readonly sink?: Sink;
  /** the outcome is known: all is there and ACKed, or it failed; a receiver may still dally */
  readonly onSettled: (state: State, cause: Error | undefined) => void;
  /** nothing more will be sent or understood */
  readonly onClosed: () => void;
  /** after each packet that moved it on */
  readonly onProgress?: (state: State) => void;
}

/** A running transfer. */
export class Transfer<State extends TransferState> implements Waiting {
  readonly #parts: TransferParts<State>;
  #state: State;
  #settled = false;
  #closed = false;
  #cause: Error | undefined;

  constructor(parts: TransferParts<State>) {
    this.#parts = parts;
    this.#state = parts.state;
  }

  get state(): State {
    return this.#state;
  }

  /** when `onDeadline` is due */
  get deadlineMs(): number {
    return this.#state.deadlineMs;
  }

  onDeadline(): void {
    this.#feed({ kind: 'tick', nowMs: performance.now() });
  }

  start(): void {
    this.#feed({ kind: 'start', nowMs: performance.now() });
  }

  /** Takes a datagram of the peer. */
  receive(bytes: Uint8Array): void {
    this.#feed({ kind: 'packet', packet: decodePacket(bytes), nowMs: performance.now() });
  }

  /** Ends now, and tells the peer why. Harmless when it has ended. */
  stop(code: number, message: string, cause?: Error): void {
    this.#cause ??= cause;
    this.#feed({ kind: 'stop', code, message, nowMs: performance.now() });
  }

  #feed(input: TransferInput): void {
    if (this.#closed) return;
    const bytesBefore = this.#state.bytes;
    const { state, effects } = this.#parts.step(this.#state, input);
    this.#state = state;
    if (state.bytes !== bytesBefore) this.#parts.onProgress?.(state);
    try {
      for (const effect of effects) this.#perform(effect);
    } catch (error) {
      const refused = toRefused(error);
      this.stop(refused.code, refused.message, refused);
      return;
    }
    // A `commit` has fed the next input already.
    if (this.#state !== state) return;
    this.#look(state);
  }

  /** What the new state means: an outcome, an end, another deadline. */
  #look(state: State): void {
    const isOver = state.phase === 'done' || state.phase === 'failed';
    if ((isOver || state.phase === 'dally') && !this.#settled) {
      this.#settled = true;
      this.#parts.onSettled(state, this.#cause);
    }
    if (isOver) {
      this.#closed = true;
      wheel.delete(this);
      this.#parts.onClosed();
    } else {
      wheel.set(this);
    }
  }

  #perform(effect: Effect): void {
    const { wire, request, sink } = this.#parts;
    switch (effect.kind) {
      case 'send-request':
        if (request !== undefined) wire.send(request);
        break;
      case 'send-oack':
        wire.send(encodeOack(effect.options));
        break;
      case 'send-ack':
        wire.send(encodeAck(effect.block));
        break;
      case 'send-error':
        wire.send(encodeError(effect.code, effect.message));
        break;
      case 'send-data':
        this.#sendData(effect.first, effect.count, effect.blksize);
        break;
      case 'deliver':
        sink?.write(effect.data);
        break;
      case 'commit':
        sink?.commit();
        this.#feed({ kind: 'committed', nowMs: performance.now() });
        break;
    }
  }

  /** Reads the blocks behind their headers in one call, and sends them. */
  #sendData(first: number, count: number, blksize: number): void {
    const { source, wire } = this.#parts;
    if (source === undefined) return;
    if (wire.sendData !== undefined) {
      wire.sendData(source, first, count, blksize);
      return;
    }
    const offset = (first - 1) * blksize;
    const packets: Uint8Array[] = [];
    for (let index = 0; index < count; index += 1) {
      const length = Math.max(0, Math.min(blksize, source.size - offset - index * blksize));
      const packet = Buffer.allocUnsafe(DATA_HEADER_BYTES + length);
      writeDataHeader(packet, (first + index) & 0xffff);
      packets.push(packet);
    }
    source.read(
      offset,
      packets.map((packet) => packet.subarray(DATA_HEADER_BYTES)),
    );
    for (const packet of packets) wire.send(packet);
  }
}
