/**
 * The side that sends DATA: a server's read, a client's write (RFC 1350, 2347, 2348, 2349, 7440). Pure.
 *
 *            start                 answer                    ACK of the last block
 *   ────────────────────▶  open  ─────────▶  data  ──────────────────────────────────▶  done
 *    request, OACK or                        │  ▲
 *    first window                            └──┘ ACK that moves the window: the next window
 *
 *   blocks    1 … acked │ acked+1 … sent │ sent+1 … last
 *             through     the window       to come
 *
 * - An ACK moves the window only when it names a block in it. Of a block not yet sent, or of an old one: ignored.
 * - A repeated ACK never repeats DATA in lock-step (Sorcerer's Apprentice, RFC 1123 §4.2.3.1). With a window it says that
 *   the window's first block is missing; the window is sent again at most once per round trip, for copies of one ACK
 *   look the same (unchecked, 5 % loss made 12 times the traffic).
 */
import {
  type Effect,
  type Opening,
  type Step,
  type TransferInput,
  type TransferState,
  blocksAfter,
  fail,
  failSilently,
  failTimeout,
  stay,
} from './exchange.ts';
import { type Options, DEFAULT_BLKSIZE, DEFAULT_WINDOWSIZE, checkOack } from './options.ts';
import { type OptionPair, type Packet, ERROR_CODE } from './packet.ts';
import { PATIENCE_MS, TRIES_MAX, addSample, nextDeadline, startTiming, waitMs } from './timing.ts';

/** An address that has not answered yet gets one packet and two repeats: it may be forged. */
const UNPROVEN_REPEATS_MAX = 2;

/** Below this, a round trip is mostly the two programs' own work. */
const HURRY_MIN_MS = 2;

/** A state of the sender. */
export interface SenderState extends TransferState {
  readonly phase: 'open' | 'data' | 'done' | 'failed';
  /** bytes to send, encoded */
  readonly size: number;
  /** number of the last block; it is the one shorter than blksize, perhaps empty */
  readonly last: number;
  /** highest block sent in the current window */
  readonly sent: number;
  /** highest block ever sent */
  readonly highest: number;
  /** when the window (or opening) was sent */
  readonly sentAtMs: number;
  /** no packet of the window was a repeat, so its ACK gives an RTT sample */
  readonly clean: boolean;
  /** the window was sent again */
  readonly resent: boolean;
  /** so was the one before it: repeats of the last ACK are its echo */
  readonly echoing: boolean;
  /** the peer has answered at least once */
  readonly proven: boolean;
}

/**
 * A sender before `start`.
 *
 * @param options.opening - a client opens with its request, a server with an OACK or straight with DATA
 * @param options.granted - options in force, for a server; a client learns them
 * @param options.size - bytes that will be sent, in the encoding of the wire
 */
export function createSender(options: {
  readonly opening: Opening;
  readonly granted: Options;
  readonly size: number;
  readonly patienceMs?: number;
}): SenderState {
  const state: SenderState = {
    phase: 'open',
    opening: options.opening,
    granted: {},
    blksize: DEFAULT_BLKSIZE,
    windowsize: DEFAULT_WINDOWSIZE,
    timing: startTiming(undefined, options.patienceMs ?? PATIENCE_MS),
    deadlineMs: Infinity,
    progressAtMs: 0,
    tries: 0,
    repeats: 0,
    blocks: 0,
    bytes: 0,
    failure: undefined,
    size: options.size,
    last: 0,
    sent: 0,
    highest: 0,
    sentAtMs: 0,
    clean: true,
    resent: false,
    echoing: false,
    proven: false,
  };
  return withOptions(state, options.granted);
}

/** The sender's next state and what it sends. */
export function stepSender(state: SenderState, input: TransferInput): Step<SenderState> {
  if (state.phase === 'done' || state.phase === 'failed') return stay(state);
  switch (input.kind) {
    case 'start':
      return state.opening.kind === 'plain'
        ? sendWindow({ ...state, phase: 'data', progressAtMs: input.nowMs }, input.nowMs)
        : sendOpening({ ...state, progressAtMs: input.nowMs }, input.nowMs);
    case 'packet':
      return onPacket(state, input.packet, input.nowMs);
    case 'tick':
      return onTick(state, input.nowMs);
    case 'stop':
      return fail(state, input.code, input.message);
    case 'committed':
    default:
      return stay(state);
  }
}

function onPacket(state: SenderState, packet: Packet, nowMs: number): Step<SenderState> {
  switch (packet.kind) {
    case 'error':
      return failSilently(state, { code: packet.code, message: packet.message, from: 'peer' });
    case 'ack':
      if (state.phase === 'data') return onAck(state, packet.block, nowMs);
      // ACK 0 answers an OACK, or a WRQ whose options were passed over.
      return packet.block === 0 ? onAnswer(state, [], nowMs) : stay(state);
    case 'oack':
      return state.phase === 'open' ? onAnswer(state, packet.options, nowMs) : stay(state);
    // Not from a right peer; the deadline bounds how long a wrong one is listened to.
    case 'data':
    case 'request':
    case 'malformed':
    default:
      return stay(state);
  }
}

/** The peer's first answer: the options in force are known, and the first window goes out. */
function onAnswer(state: SenderState, pairs: readonly OptionPair[], nowMs: number): Step<SenderState> {
  let next = state;
  if (state.opening.kind === 'request') {
    const granted = checkOack(pairs, state.opening.asked);
    if ('refused' in granted) return fail(state, ERROR_CODE.optionsRefused, granted.refused);
    next = withOptions(state, granted);
  } else if (pairs.length > 0) {
    return stay(state);
  }
  const timing = next.clean ? addSample(next.timing, nowMs - next.sentAtMs) : next.timing;
  return sendWindow({ ...next, phase: 'data', proven: true, timing, tries: 0, progressAtMs: nowMs }, nowMs);
}

function onAck(state: SenderState, block: number, nowMs: number): Step<SenderState> {
  const moved = blocksAfter(state.blocks, block);
  const outstanding = state.sent - state.blocks;
  if (moved > outstanding) return stay(state);
  if (moved === 0) return onRepeatedAck(state, nowMs);
  const acked = state.blocks + moved;
  const next: SenderState = {
    ...state,
    proven: true,
    // Only an ACK of the whole window is sure to answer its last packet.
    timing: state.clean && moved === outstanding ? addSample(state.timing, nowMs - state.sentAtMs) : state.timing,
    tries: 0,
    echoing: moved === outstanding && state.resent,
    resent: false,
    progressAtMs: nowMs,
    blocks: acked,
    bytes: Math.min(state.size, acked * state.blksize),
  };
  return acked === state.last ? stay({ ...next, phase: 'done', deadlineMs: Infinity }) : sendWindow(next, nowMs);
}

/**
 * The peer repeats its last ACK: with a window, its first block is missing, unless this is a mere copy. A copy comes
 * sooner than any answer can, or it is the echo of a window that was sent twice (followed blindly, one window sent twice
 * makes all that follow go twice). What is perhaps a copy gives the window one round trip to be ACKed, not the whole RTO.
 */
function onRepeatedAck(state: SenderState, nowMs: number): Step<SenderState> {
  if (state.windowsize === 1 || state.tries >= TRIES_MAX - 1) return stay(state);
  const { rttMinMs, srttMs = rttMinMs, rttvarMs } = state.timing;
  const isTooSoon = nowMs - state.sentAtMs < Math.max(HURRY_MIN_MS, 0.75 * rttMinMs);
  if (!isTooSoon && !state.echoing) return resendWindow(state, nowMs);
  const answerMs = Math.max(HURRY_MIN_MS, srttMs + Math.max(4 * rttvarMs, srttMs / 4));
  return stay({ ...state, deadlineMs: Math.min(state.deadlineMs, state.sentAtMs + answerMs) });
}

function onTick(state: SenderState, nowMs: number): Step<SenderState> {
  if (nowMs < state.deadlineMs) return stay(state);
  const isServer = state.opening.kind !== 'request';
  const repeatsMax = isServer && !state.proven ? UNPROVEN_REPEATS_MAX : TRIES_MAX - 1;
  if (state.tries >= repeatsMax || nowMs - state.progressAtMs >= state.timing.patienceMs) {
    const what = state.phase === 'open' ? 'no answer' : `no ACK of block ${state.blocks + 1}`;
    return failTimeout(state.proven || !isServer ? state : { ...state, phase: 'open' }, what, nowMs);
  }
  return state.phase === 'open' ? sendOpening({ ...state, tries: state.tries + 1 }, nowMs) : resendWindow(state, nowMs);
}

function resendWindow(state: SenderState, nowMs: number): Step<SenderState> {
  return sendWindow({ ...state, tries: state.tries + 1, resent: true }, nowMs);
}

function sendOpening(state: SenderState, nowMs: number): Step<SenderState> {
  const effect: Effect =
    state.opening.kind === 'oack' ? { kind: 'send-oack', options: state.opening.options } : { kind: 'send-request' };
  const again = state.tries > 0;
  return {
    state: {
      ...state,
      sentAtMs: nowMs,
      clean: !again,
      repeats: state.repeats + (again ? 1 : 0),
      deadlineMs: nextDeadline(state, nowMs, waitMs(state.timing, state.tries)),
    },
    effects: [effect],
  };
}

/** Sends exactly `windowsize` blocks after the last ACKed one, or what is left, and waits (RFC 7440 §4). */
function sendWindow(state: SenderState, nowMs: number): Step<SenderState> {
  const first = state.blocks + 1;
  const sent = Math.min(state.blocks + state.windowsize, state.last);
  const repeated = Math.max(0, Math.min(state.highest, sent) - state.blocks);
  return {
    state: {
      ...state,
      sent,
      highest: Math.max(state.highest, sent),
      sentAtMs: nowMs,
      clean: repeated === 0,
      repeats: state.repeats + repeated,
      deadlineMs: nextDeadline(state, nowMs, waitMs(state.timing, state.tries)),
    },
    effects: [{ kind: 'send-data', first, count: sent - state.blocks, blksize: state.blksize }],
  };
}

function withOptions(state: SenderState, granted: Options): SenderState {
  const blksize = granted.blksize ?? DEFAULT_BLKSIZE;
  return {
    ...state,
    granted,
    blksize,
    windowsize: granted.windowsize ?? DEFAULT_WINDOWSIZE,
    // A size that is a multiple of blksize ends with an empty block (RFC 1350 §6).
    last: Math.floor(state.size / blksize) + 1,
    timing: granted.timeout === undefined ? state.timing : startTiming(granted.timeout, state.timing.patienceMs),
  };
}
