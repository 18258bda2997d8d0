/**
 * What sender and receiver share: the events they are told, the effects they ask for, and how they open and end.
 *
 * Both are pure: `step(state, event)` gives the next state and a list of effects. Who drives them (`transfer.ts`) owns
 * the socket, the file and the clock. Block numbers inside are absolute, counted from 1 without rollover; only packets
 * carry 16 bits.
 */
import { type Options, DEFAULT_BLKSIZE, DEFAULT_WINDOWSIZE } from './options.ts';
import { type OptionPair, type Packet, ERROR_CODE } from './packet.ts';
import { type Timing, PATIENCE_MS, startTiming } from './timing.ts';

/** What happens to a transfer. `nowMs` is a monotonic clock. */
export type TransferInput =
  | { readonly kind: 'start'; readonly nowMs: number }
  | { readonly kind: 'packet'; readonly packet: Packet; readonly nowMs: number }
  /** the deadline may have passed; too early is harmless */
  | { readonly kind: 'tick'; readonly nowMs: number }
  /** the receiver's `commit` was carried out */
  | { readonly kind: 'committed'; readonly nowMs: number }
  /** end now, and tell the peer why */
  | { readonly kind: 'stop'; readonly code: number; readonly message: string; readonly nowMs: number };

/** What a transfer wants done, in this order. */
export type Effect =
  | { readonly kind: 'send-request' }
  | { readonly kind: 'send-oack'; readonly options: readonly OptionPair[] }
  | { readonly kind: 'send-ack'; readonly block: number }
  | { readonly kind: 'send-error'; readonly code: number; readonly message: string }
  /** send DATA of the blocks first … first + count - 1 (absolute) */
  | { readonly kind: 'send-data'; readonly first: number; readonly count: number; readonly blksize: number }
  /** bytes that come next in the file; the view is into the datagram */
  | { readonly kind: 'deliver'; readonly data: Uint8Array }
  /** all bytes are there: put the file in place, then tell `committed` (or `stop`) */
  | { readonly kind: 'commit' };

/** How a transfer opens; it is repeated until the peer answers. */
export type Opening =
  /** a client: RRQ or WRQ, with the options it asks for */
  | { readonly kind: 'request'; readonly asked: Options }
  /** a server that grants options */
  | { readonly kind: 'oack'; readonly options: readonly OptionPair[] }
  /** a server without options: DATA 1 for a read, ACK 0 for a write */
  | { readonly kind: 'plain' };

/** Why a transfer ended early. */
export interface Failure {
  /** the TFTP error code that was got or sent */
  readonly code: number;
  readonly message: string;
  readonly from: 'peer' | 'here';
}

/** What both states hold. */
export interface TransferState {
  /**
   * `open` until the peer's first answer, `data`, then for a receiver `commit` and `dally` (all is there; the last
   * ACK is still repeated on demand), and at the end `done` or `failed`.
   */
  readonly phase: 'open' | 'data' | 'commit' | 'dally' | 'done' | 'failed';
  readonly opening: Opening;
  /** options in force; for a client known only after `open` */
  readonly granted: Options;
  readonly blksize: number;
  readonly windowsize: number;
  readonly timing: Timing;
  /** when `tick` is due; Infinity: never */
  readonly deadlineMs: number;
  /** when the peer last moved the transfer on */
  readonly progressAtMs: number;
  /** repeats since the last progress */
  readonly tries: number;
  /** packets that were sent more than once, in all */
  readonly repeats: number;
  /** in-order blocks that are through */
  readonly blocks: number;
  /** bytes that are through */
  readonly bytes: number;
  readonly failure: Failure | undefined;
}

export interface Step<State extends TransferState> {
  readonly state: State;
  readonly effects: readonly Effect[];
}

/** A pure transfer: `stepSender` or `stepReceiver`. */
export type StepFunction<State extends TransferState> = (state: State, input: TransferInput) => Step<State>;

/** What a transfer starts with. */
export interface Start {
  readonly opening: Opening;
  /** options in force, for a server; a client learns them */
  readonly granted: Options;
  readonly patienceMs?: number;
}

/** A state before `start`. */
export function startState({ opening, granted, patienceMs = PATIENCE_MS }: Start): TransferState & { phase: 'open' } {
  return {
    phase: 'open',
    opening,
    ...inForce(granted, startTiming(undefined, patienceMs)),
    deadlineMs: Infinity,
    progressAtMs: 0,
    tries: 0,
    repeats: 0,
    blocks: 0,
    bytes: 0,
    failure: undefined,
  };
}

/** What follows from the options that are in force. */
export function inForce(
  granted: Options,
  timing: Timing,
): Pick<TransferState, 'granted' | 'blksize' | 'windowsize' | 'timing'> {
  const { blksize = DEFAULT_BLKSIZE, windowsize = DEFAULT_WINDOWSIZE, timeout } = granted;
  const own = timeout === undefined ? timing : startTiming(timeout, timing.patienceMs);
  return { granted, blksize, windowsize, timing: own };
}

/** Ends with a failure of ours: the peer is told (RFC 1350 §7: a courtesy, never repeated). */
export function fail<State extends TransferState>(state: State, code: number, message: string): Step<State> {
  return {
    state: { ...state, phase: 'failed', deadlineMs: Infinity, failure: { code, message, from: 'here' } },
    effects: [{ kind: 'send-error', code, message }],
  };
}

/** Ends without a word: the peer sent an ERROR, which is never answered, or is not there. */
export function failSilently<State extends TransferState>(state: State, failure: Failure): Step<State> {
  return { state: { ...state, phase: 'failed', deadlineMs: Infinity, failure }, effects: [] };
}

/** Ends because the peer has been silent for too long. */
export function failTimeout<State extends TransferState>(state: State, what: string, nowMs: number): Step<State> {
  const seconds = ((nowMs - state.progressAtMs) / 1000).toFixed(1);
  const tries = `${state.tries + 1} ${state.tries === 0 ? 'try' : 'tries'}`;
  const message = `${what} after ${tries} in ${seconds} s`;
  // Nobody has answered yet: the address may be forged, so no more packets to it.
  return state.phase === 'open'
    ? failSilently(state, { code: ERROR_CODE.notDefined, message, from: 'here' })
    : fail(state, ERROR_CODE.notDefined, message);
}

/** How far the 16-bit number `block` is after the absolute block `base`: 0 … 65535. */
export function blocksAfter(base: number, block: number): number {
  return (block - base) & 0xffff;
}

/** An input changes nothing. */
export function stay<State extends TransferState>(state: State): Step<State> {
  return { state, effects: [] };
}
