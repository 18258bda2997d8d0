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
 * - An ACK in the middle of the window tells of a gap. The window is sent from there, but at most once per round trip: what
 *   comes sooner cannot know of it, so then only the new blocks at its end follow, until it is whole again.
 *   It waits a moment first: a peer that gets all DATA twice ACKs every block, and each of these ACKs looks like a gap.
 * - A repeated ACK never repeats DATA in lock-step (Sorcerer's Apprentice, RFC 1123 §4.2.3.1). With a window it says that
 *   the first block of it was lost, if it can be an answer to the window; but copies of an ACK that are late, and answers to
 *   copies of DATA, look the same. Once that was believed in error, it is not again before an answer is overdue (believed
 *   each time, 5 % of packets late and all doubled made 60 times the traffic).
 * - Most clients drop what is behind a gap. Where of each window less than half gets through, it is sent a second time half
 *   a round trip later without waiting for word: the same packets in all, in half the time.
 */
import {
  type Effect,
  type Start,
  type Step,
  type TransferInput,
  type TransferState,
  blocksAfter,
  fail,
  failSilently,
  failTimeout,
  inForce,
  startState,
  stay,
} from './exchange.ts';
import { type Options, DEFAULT_BLKSIZE, checkOack } from './options.ts';
import { type OptionPair, type Packet, ERROR_CODE } from './packet.ts';
import {
  type Timing,
  TRIES_MAX,
  UNPROVEN_REPEATS_MAX,
  addSample,
  backOff,
  easeOff,
  isAnswer,
  isSteady,
  nextDeadline,
  waitMs,
} from './timing.ts';

/** Until the first sample, a block may take as long as on a link of 10 Mbit/s. */
const BYTES_PER_MS = 1250;

/** Once less than this share of a window gets through at a time, so many windows are sent twice. */
const POOR_SHARE = 0.7;
const POOR_TURNS = 60;
/** What the share is taken for after them. */
const FAIR_SHARE = 0.7;
/** They are not where a round trip is short: waiting for word costs little, and what is lost was too much for a peer or a host. */
const FAR_MS = 5;
/** Nor are they on a link where the blocks of a window take more than this share of a round trip. */
const QUICK_SHARE = 0.25;
/** An ACK in the middle of a window is a gap unless the next one follows within so much of a round trip. */
const SETTLE_SHARE = 1 / 16;
const SETTLE_MIN_MS = 1;
/** The second time follows so much of a round trip behind the first. */
const AGAIN_SHARE = 0.05;

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
  /** when the last packets were sent */
  readonly sentAtMs: number;
  /** when the last that had not been sent before were, and the first of them: an ACK of one of them gives an RTT sample */
  readonly freshAtMs: number;
  readonly fresh: number;
  /** when the window was last sent from its start */
  readonly turnAtMs: number;
  /** what that start was: the last block before it */
  readonly turnAfter: number;
  /** share of the window that gets through at a time, smoothed: 0 to 1 */
  readonly share: number;
  /** so many windows are sent twice, because it was poor */
  readonly poorTurns: number;
  /** an ACK tells of a gap, and the window is sent from there unless more follow at once */
  readonly turning: boolean;
  /** the window is to be sent a second time, without waiting for word */
  readonly again: boolean;
  /** the window is sent again because of a repeated ACK */
  readonly believed: boolean;
  /** that was an error once */
  readonly misled: boolean;
  /** what each block of a window adds to its round trip: little, but on a slow link; `undefined` before the first sample */
  readonly blockMs: number | undefined;
  /** the peer has answered at least once */
  readonly proven: boolean;
}

/**
 * A sender before `start`.
 *
 * @param options.size - bytes that will be sent, in the encoding of the wire
 */
export function createSender(
  options: Start & {
    readonly size: number;
  },
): SenderState {
  return {
    ...startState(options),
    size: options.size,
    last: lastBlock(options.size, options.granted),
    sent: 0,
    highest: 0,
    sentAtMs: 0,
    freshAtMs: 0,
    fresh: 1,
    turnAtMs: 0,
    turnAfter: 0,
    share: 1,
    poorTurns: 0,
    turning: false,
    again: false,
    believed: false,
    misled: false,
    blockMs: undefined,
    proven: false,
  };
}

/** The sender's next state and what it sends. */
export function stepSender(state: SenderState, input: TransferInput): Step<SenderState> {
  if (state.phase === 'done' || state.phase === 'failed') return stay(state);
  switch (input.kind) {
    case 'start':
      return state.opening.kind === 'plain'
        ? sendTurn({ ...state, phase: 'data', progressAtMs: input.nowMs }, input.nowMs)
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
    next = { ...state, ...inForce(granted, state.timing), last: lastBlock(state.size, granted) };
  } else if (pairs.length > 0) {
    return stay(state);
  }
  // Of an opening that was repeated, the answer may be to any.
  const timing = next.tries === 0 ? addSample(next.timing, nowMs - next.sentAtMs) : next.timing;
  return sendTurn({ ...next, phase: 'data', proven: true, timing, tries: 0, progressAtMs: nowMs }, nowMs);
}

function onAck(state: SenderState, block: number, nowMs: number): Step<SenderState> {
  const moved = blocksAfter(state.blocks, block);
  if (moved > state.sent - state.blocks) return stay(state);
  if (moved === 0) return onRepeatedAck(state, nowMs);
  const acked = state.blocks + moved;
  // Sent once, or answered sooner than the repeat can have been (Karn; Eifel, RFC 3522).
  const isSure =
    acked >= state.fresh && (state.freshAtMs === state.sentAtMs || !isAnswer(state.timing, nowMs - state.sentAtMs));
  const next: SenderState = {
    ...state,
    proven: true,
    timing: measure(state, isSure, nowMs),
    blockMs: isSure ? measureBlock(state, acked, nowMs) : state.blockMs,
    misled: state.misled || (state.believed && !isAnswer(state.timing, nowMs - state.turnAtMs)),
    tries: 0,
    progressAtMs: nowMs,
    blocks: acked,
    bytes: Math.min(state.size, acked * state.blksize),
  };
  if (acked === state.last) return stay({ ...next, phase: 'done', deadlineMs: Infinity });
  if (acked === state.sent) return sendTurn(judge(next), nowMs);
  if (!isAnswer(state.timing, nowMs - state.turnAtMs)) return sendRest(next, nowMs);
  const { srttMs = 0 } = next.timing;
  return stay({ ...next, turning: true, deadlineMs: nowMs + Math.max(SETTLE_MIN_MS, SETTLE_SHARE * srttMs) });
}

/** How well the link has carried the window, and whether to send more than one of each. */
function judge(state: SenderState): SenderState {
  if (state.poorTurns > 0) return { ...state, share: FAIR_SHARE, poorTurns: state.poorTurns - 1 };
  const share = 0.75 * state.share + (0.25 * (state.blocks - state.turnAfter)) / (state.sent - state.turnAfter);
  return { ...state, share, poorTurns: share < POOR_SHARE && isFar(state) && isQuick(state) ? POOR_TURNS : 0 };
}

/** What an ACK that moves the window says of the round trip. */
function measure(state: SenderState, isSure: boolean, nowMs: number): Timing {
  if (isSure) return addSample(state.timing, nowMs - state.freshAtMs);
  return state.tries > 0 ? backOff(state.timing) : easeOff(state.timing);
}

/** What is over the fastest round trip is the share of each block that was sent before the ACKed one. */
function measureBlock(state: SenderState, acked: number, nowMs: number): number {
  const overMs = Math.max(0, nowMs - state.freshAtMs - state.timing.rttMinMs) / (acked + 1 - state.fresh);
  return state.blockMs === undefined ? overMs : 0.75 * state.blockMs + 0.25 * overMs;
}

/** The peer repeats its last ACK, or the network does. */
function onRepeatedAck(state: SenderState, nowMs: number): Step<SenderState> {
  if (state.windowsize === 1 || state.turning || state.tries >= TRIES_MAX - 1) return stay(state);
  const { timing, turnAtMs } = state;
  const isOverdue = nowMs - turnAtMs >= waitMs(timing, 0, burstMs(state));
  const isBelieved = !state.misled && isAnswer(timing, nowMs - turnAtMs) && isQuick(state);
  if (!isOverdue && !isBelieved) return stay(state);
  const step = sendTurn({ ...state, tries: state.tries + 1 }, nowMs);
  return { ...step, state: { ...step.state, believed: !isOverdue } };
}

function onTick(state: SenderState, nowMs: number): Step<SenderState> {
  if (nowMs < state.deadlineMs) return stay(state);
  if (state.turning) return sendTurn(judge(state), nowMs);
  if (state.again) return sendAgain(state, nowMs);
  const isServer = state.opening.kind !== 'request';
  const repeatsMax = isServer && !state.proven ? UNPROVEN_REPEATS_MAX : TRIES_MAX - 1;
  if (state.tries >= repeatsMax || nowMs - state.progressAtMs >= state.timing.patienceMs) {
    const what = state.phase === 'open' ? 'no answer' : `no ACK of block ${state.blocks + 1}`;
    return failTimeout(state.proven || !isServer ? state : { ...state, phase: 'open' }, what, nowMs);
  }
  const next: SenderState = { ...state, tries: state.tries + 1 };
  return state.phase === 'open' ? sendOpening(next, nowMs) : sendTurn(next, nowMs);
}

function sendOpening(state: SenderState, nowMs: number): Step<SenderState> {
  const effect: Effect =
    state.opening.kind === 'oack' ? { kind: 'send-oack', options: state.opening.options } : { kind: 'send-request' };
  return {
    state: {
      ...state,
      sentAtMs: nowMs,
      repeats: state.repeats + (state.tries > 0 ? 1 : 0),
      deadlineMs: nextDeadline(state, nowMs, waitMs(state.timing, state.tries)),
    },
    effects: [effect],
  };
}

/** Sends exactly `windowsize` blocks after the last ACKed one, or what is left, and waits (RFC 7440 §4). */
function sendTurn(state: SenderState, nowMs: number): Step<SenderState> {
  const { blocks, timing } = state;
  const again = state.poorTurns > 0 && state.tries === 0 && isQuick(state);
  const next: SenderState = { ...state, turnAtMs: nowMs, turnAfter: blocks, turning: false, again, believed: false };
  return sendBlocks(next, blocks + 1, nowMs, again ? AGAIN_SHARE * (timing.srttMs ?? 0) : Infinity);
}

/** The window once more, before there is word of it. */
function sendAgain(state: SenderState, nowMs: number): Step<SenderState> {
  return sendBlocks({ ...state, again: false }, state.blocks + 1, nowMs, Infinity);
}

/** The window has moved, and what was sent of it is under way: only what is new in it. */
function sendRest(state: SenderState, nowMs: number): Step<SenderState> {
  if (state.sent === state.last) return stay(state);
  return sendBlocks(state, state.sent + 1, nowMs, state.again ? state.deadlineMs - nowMs : Infinity);
}

/** Sends from `first` to the end of the window. */
function sendBlocks(state: SenderState, first: number, nowMs: number, waitMaxMs: number): Step<SenderState> {
  const sent = Math.min(state.blocks + state.windowsize, state.last);
  const fresh = Math.max(first, state.highest + 1);
  const isFresh = fresh <= sent;
  return {
    state: {
      ...state,
      sent,
      fresh: isFresh ? fresh : state.fresh,
      freshAtMs: isFresh ? nowMs : state.freshAtMs,
      highest: Math.max(state.highest, sent),
      sentAtMs: nowMs,
      repeats: state.repeats + Math.max(0, Math.min(fresh, sent + 1) - first),
      deadlineMs: nextDeadline(state, nowMs, Math.min(waitMaxMs, waitMs(state.timing, state.tries, burstMs(state)))),
    },
    effects: [{ kind: 'send-data', first, count: sent + 1 - first, blksize: state.blksize }],
  };
}

/** What a window may take on the way, on top of a round trip. */
function burstMs(state: SenderState): number {
  return (state.windowsize - 1) * (state.blockMs ?? state.blksize / BYTES_PER_MS);
}

/** Whether a window is a small part of the round trip, and that is steady: what is lost is not lost in a full queue. */
function isQuick(state: SenderState): boolean {
  const { srttMs = 0 } = state.timing;
  return isSteady(state.timing) && burstMs(state) <= Math.max(1, QUICK_SHARE * srttMs);
}

/** Whether a round trip is long, also at its fastest: a busy host answers late, too. */
function isFar(state: SenderState): boolean {
  return state.timing.rttMinMs >= FAR_MS;
}

/** A size that is a multiple of blksize ends with an empty block (RFC 1350 §6). */
function lastBlock(size: number, { blksize = DEFAULT_BLKSIZE }: Options): number {
  return Math.floor(size / blksize) + 1;
}
