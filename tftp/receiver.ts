/**
 * The side that gets DATA: a server's write, a client's read (RFC 1350, 2347, 2348, 2349, 7440). Pure.
 *
 *           start               first answer          last block            committed          quiet
 *   ───────────────────▶  open ─────────────▶  data ────────────▶  commit ───────────▶  dally ──────▶  done
 *    request, OACK, ACK 0                      │  ▲                          last ACK    │  ▲
 *                                              └──┘ window complete: ACK                 └──┘ last DATA again: ACK again
 *
 *   blocks   1 … acked │ acked+1 … blocks │ gap │ early …
 *            ACKed       delivered                kept, at most a window of them
 *
 * - One ACK per window; on a gap the last in-order block is ACKed, so that the sender starts again behind it
 *   (RFC 7440 §4). A gap is reported at once when three blocks are there behind it and no more are missing; with fewer
 *   2 ms later; where most are missing, the few that are there have overtaken the rest, which gets most of a round trip.
 * - Blocks behind a gap are kept, so a repeated window fills the gap and the rest of it is not written twice.
 * - The last ACK says "complete and in place", so it waits for `committed`.
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
import { checkOack } from './options.ts';
import { type DataPacket, type Packet, ERROR_CODE } from './packet.ts';
import { RTO_MIN_MS, TRIES_MAX, UNPROVEN_REPEATS_MAX, addSample, isAnswer, nextDeadline, waitMs } from './timing.ts';

/** So many blocks behind a gap prove a loss. */
const GAP_BLOCKS = 3;
/** So many blocks are kept behind a gap; of a window of 65535 the sender may well send the rest again. */
const EARLY_BLOCKS_MAX = 256;
/** Fewer than that: blocks that changed places get so long to put themselves right. */
const REORDER_MS = 2;
/** Share of the round trip that the rest of a window may come behind the blocks that overtook it. */
const OVERTAKEN_SHARE = 0.75;
/** A gap is given this much more time than the late block took that was seen, up to this share of a round trip. */
const REORDER_SHARE = 0.25;
const LATE_FACTOR = 1.25;
/** Each gap for which that time was given in vain makes it less. */
const PATIENCE_SHARE = 0.7;
/** A last DATA that comes again within this share of the round trip after its ACK is a copy, not a question. */
const COPY_SHARE = 0.5;
/** In lock-step the sender's timer is the one that counts; ours only helps when it is very slow. */
const LOCK_STEP_WAIT_MS = 1000;
/** With a window a lost tail is ours to report; the sender's own timer should come first. */
const WINDOW_WAIT_MIN_MS = 100;

/** A state of the receiver. */
export interface ReceiverState extends TransferState {
  /** last block that was ACKed */
  readonly acked: number;
  /** copies of the blocks behind a gap, by absolute number; fewer than windowsize, and bounded */
  readonly early: ReadonlyMap<number, Uint8Array>;
  /** highest of them ever kept */
  readonly highest: number;
  /** the gap after this block was reported; -1: none was */
  readonly gapReported: number;
  /** a gap was seen and is reported when the deadline comes */
  readonly gapPending: boolean;
  /** blocks that arrived this much after their gap was reported, too soon for an answer: so long gaps are now given */
  readonly reorderMs: number;
  /** when the first block behind the gap came */
  readonly gapAtMs: number;
  /** most bytes that are taken */
  readonly bytesMax: number;
  /** whether fewer bytes than the granted `tsize` are a failure */
  readonly checkSize: boolean;
  /** how long the last ACK is repeated on demand */
  readonly dallyMs: number;
  /** when the last ACK or opening was sent */
  readonly sentAtMs: number;
  /** it was not a repeat, so what follows gives an RTT sample */
  readonly clean: boolean;
}

/**
 * A receiver before `start`.
 *
 * @param options.bytesMax - more bytes end the transfer with ERROR 3
 * @param options.checkSize - whether fewer bytes than `tsize` are a failure; not for netascii, whose sizes differ
 */
export function createReceiver(
  options: Start & {
    readonly bytesMax: number;
    readonly checkSize: boolean;
    readonly dallyMs: number;
  },
): ReceiverState {
  return {
    ...startState(options),
    acked: 0,
    early: new Map(),
    highest: 0,
    gapReported: -1,
    gapPending: false,
    reorderMs: 0,
    gapAtMs: 0,
    bytesMax: options.bytesMax,
    checkSize: options.checkSize,
    dallyMs: options.dallyMs,
    sentAtMs: 0,
    clean: true,
  };
}

/** The receiver's next state, what it sends and what it delivers. */
export function stepReceiver(state: ReceiverState, input: TransferInput): Step<ReceiverState> {
  if (state.phase === 'done' || state.phase === 'failed') return stay(state);
  switch (input.kind) {
    case 'start':
      return sendOpening({ ...state, progressAtMs: input.nowMs }, input.nowMs);
    case 'packet':
      return onPacket(state, input.packet, input.nowMs);
    case 'tick':
      return onTick(state, input.nowMs);
    case 'committed':
      return state.phase === 'commit'
        ? sendAck({ ...state, phase: 'dally' }, input.nowMs, input.nowMs + state.dallyMs)
        : stay(state);
    case 'stop':
    default:
      // In `dally` the file is in place and the peer knows: there is nothing left to fail.
      return state.phase === 'dally'
        ? stay({ ...state, phase: 'done', deadlineMs: Infinity })
        : fail(state, input.code, input.message);
  }
}

function onPacket(state: ReceiverState, packet: Packet, nowMs: number): Step<ReceiverState> {
  switch (packet.kind) {
    case 'error':
      return state.phase === 'dally'
        ? stay({ ...state, phase: 'done', deadlineMs: Infinity })
        : failSilently(state, { code: packet.code, message: packet.message, from: 'peer' });
    case 'data':
      return onData(state, packet, nowMs);
    case 'oack':
      return onOack(state, packet.options, nowMs);
    // Not from a right peer; the deadline bounds how long a wrong one is listened to.
    case 'ack':
    case 'request':
    case 'malformed':
    default:
      return stay(state);
  }
}

function onOack(state: ReceiverState, options: Parameters<typeof checkOack>[0], nowMs: number): Step<ReceiverState> {
  if (state.opening.kind !== 'request') return stay(state);
  // ACK 0 was lost: the server repeats its OACK (RFC 2347).
  if (state.phase === 'data' && state.blocks === 0 && state.early.size === 0) return repeatAck(state, nowMs);
  if (state.phase !== 'open') return stay(state);
  const granted = checkOack(options, state.opening.asked);
  if ('refused' in granted) return fail(state, ERROR_CODE.optionsRefused, granted.refused);
  if (granted.tsize !== undefined && granted.tsize > state.bytesMax) {
    return fail(state, ERROR_CODE.diskFull, `${granted.tsize} bytes are more than the ${state.bytesMax} allowed here`);
  }
  const next = answered({ ...state, ...inForce(granted, state.timing) }, nowMs);
  const timing = state.clean ? addSample(next.timing, nowMs - state.sentAtMs) : next.timing;
  return sendAck({ ...next, timing }, nowMs);
}

function onData(state: ReceiverState, packet: DataPacket, nowMs: number): Step<ReceiverState> {
  if (state.phase === 'commit') return stay(state);
  const ahead = blocksAfter(state.blocks, packet.block);
  if (ahead === 0 && state.blocks > 0 && state.acked === state.blocks) {
    return isCopy(state, nowMs) ? stay(state) : repeatAck(state, nowMs);
  }
  if (state.phase === 'dally') return stay(state);
  if (ahead === 0 || ahead > state.acked + state.windowsize - state.blocks) return stay(state);
  if (packet.data.length > state.blksize) {
    const message = `DATA with ${packet.data.length} bytes, more than the ${state.blksize} of blksize`;
    return fail(state, ERROR_CODE.illegalOperation, message);
  }
  if (ahead > 1) {
    // A client that has our OACK sends a whole window. Before its own OACK, a client does not know what it gets.
    if (state.phase === 'open' && state.opening.kind !== 'oack') return stay(state);
    const next = state.phase === 'open' ? answered(state, nowMs) : state;
    return keepEarly(next, state.blocks + ahead, packet.data, nowMs);
  }
  return deliver(state.phase === 'open' ? answered(state, nowMs) : state, packet.data, nowMs);
}

/** The next block in order, and those kept behind it. */
function deliver(state: ReceiverState, data: Uint8Array, nowMs: number): Step<ReceiverState> {
  const effects: Effect[] = [];
  let blocks = state.blocks;
  let bytes = state.bytes;
  let early = state.early;
  let next: Uint8Array | undefined = data;
  let ended = false;
  while (next !== undefined && !ended) {
    if (bytes + next.length > state.bytesMax) {
      return fail(state, ERROR_CODE.diskFull, `more than the ${state.bytesMax} bytes allowed here`);
    }
    blocks += 1;
    bytes += next.length;
    if (next.length > 0) effects.push({ kind: 'deliver', data: next });
    ended = next.length < state.blksize;
    next = early.get(blocks + 1);
  }
  if (early.size > 0) early = new Map([...early].filter(([block]) => block > blocks));
  const isFirstOfWindow = state.blocks === state.acked && state.clean;
  const moved: ReceiverState = {
    ...state,
    phase: 'data',
    blocks,
    bytes,
    early,
    tries: 0,
    progressAtMs: nowMs,
    gapPending: state.gapPending && early.size > 0,
    timing: isFirstOfWindow ? addSample(state.timing, nowMs - state.sentAtMs) : state.timing,
    reorderMs: learnReorder(state, nowMs),
  };
  if (ended) return finish(moved, effects);
  if (blocks - state.acked < state.windowsize) {
    return {
      state: { ...moved, deadlineMs: moved.gapPending ? state.deadlineMs : answerDeadline(moved, nowMs) },
      effects,
    };
  }
  const acked = sendAck(moved, nowMs);
  return { state: acked.state, effects: [...effects, ...acked.effects] };
}

/** The block behind which a gap was reported is there, sooner than the report can have brought it: it was only late. */
function learnReorder(state: ReceiverState, nowMs: number): number {
  const { gapReported, blocks, timing, sentAtMs, gapAtMs, reorderMs } = state;
  if (gapReported !== blocks || isAnswer(timing, nowMs - sentAtMs)) return reorderMs;
  return Math.max(reorderMs, Math.min(REORDER_SHARE * (timing.srttMs ?? 0), LATE_FACTOR * (nowMs - gapAtMs)));
}

function finish(state: ReceiverState, effects: readonly Effect[]): Step<ReceiverState> {
  if (state.checkSize && state.bytes < (state.granted.tsize ?? 0)) {
    return fail(state, ERROR_CODE.notDefined, `only ${state.bytes} of the ${state.granted.tsize} bytes announced`);
  }
  return {
    state: { ...state, phase: 'commit', deadlineMs: Infinity, early: new Map(), gapPending: false },
    effects: [...effects, { kind: 'commit' }],
  };
}

/** With a window, a copy of its last block would only bring a copy of the ACK. */
function isCopy(state: ReceiverState, nowMs: number): boolean {
  const { srttMs = 0 } = state.timing;
  return state.windowsize > 1 && state.phase === 'data' && nowMs - state.sentAtMs < COPY_SHARE * srttMs;
}

/** A block behind a gap. */
function keepEarly(state: ReceiverState, block: number, data: Uint8Array, nowMs: number): Step<ReceiverState> {
  const isFirst = state.early.size === 0 || !state.gapPending;
  const next: ReceiverState = { ...state, ...keep(state, block, data), gapAtMs: isFirst ? nowMs : state.gapAtMs };
  // What comes sooner than an answer can was under way already.
  if (state.gapReported === state.blocks && !isAnswer(state.timing, nowMs - state.sentAtMs)) return stay(next);
  const dueAtMs = next.gapAtMs + gapWaitMs(next);
  if (dueAtMs <= nowMs) return reportGap(next, nowMs);
  return stay({ ...next, gapPending: true, deadlineMs: dueAtMs });
}

function keep(state: ReceiverState, block: number, data: Uint8Array): Pick<ReceiverState, 'early' | 'highest'> {
  const { early, highest } = state;
  if (early.has(block) || early.size >= EARLY_BLOCKS_MAX) return { early, highest };
  // A copy, which `slice` of a Buffer is not: the datagram is not ours beyond this call.
  return { early: new Map(early).set(block, new Uint8Array(data)), highest: Math.max(highest, block) };
}

/** How long after its first sign a gap is reported. */
function gapWaitMs(state: ReceiverState): number {
  const { srttMs = RTO_MIN_MS } = state.timing;
  const missing = state.highest - state.blocks - state.early.size;
  if (missing > state.early.size) return Math.max(REORDER_MS, state.reorderMs, OVERTAKEN_SHARE * srttMs);
  return Math.max(state.early.size >= GAP_BLOCKS ? 0 : REORDER_MS, state.reorderMs);
}

function reportGap(state: ReceiverState, nowMs: number): Step<ReceiverState> {
  const reorderMs = nowMs > state.gapAtMs ? PATIENCE_SHARE * state.reorderMs : state.reorderMs;
  const step = sendAck({ ...state, reorderMs, gapReported: state.blocks, gapPending: false }, nowMs);
  // The window behind the gap is sent again, so its first block says nothing about the round trip.
  return { ...step, state: { ...step.state, clean: false } };
}

function onTick(state: ReceiverState, nowMs: number): Step<ReceiverState> {
  if (nowMs < state.deadlineMs) return stay(state);
  if (state.phase === 'dally') return stay({ ...state, phase: 'done', deadlineMs: Infinity });
  if (state.gapPending) return reportGap(state, nowMs);
  const isUnproven = state.phase === 'open' && state.opening.kind !== 'request';
  const repeatsMax = isUnproven ? UNPROVEN_REPEATS_MAX : TRIES_MAX - 1;
  if (state.tries >= repeatsMax || nowMs - state.progressAtMs >= state.timing.patienceMs) {
    return failTimeout(state, state.phase === 'open' ? 'no answer' : `no DATA of block ${state.blocks + 1}`, nowMs);
  }
  const next: ReceiverState = { ...state, tries: state.tries + 1 };
  return state.phase === 'open' ? sendOpening(next, nowMs) : repeatAck(next, nowMs);
}

function sendOpening(state: ReceiverState, nowMs: number): Step<ReceiverState> {
  const again = state.tries > 0;
  const effect: Effect =
    state.opening.kind === 'request'
      ? { kind: 'send-request' }
      : state.opening.kind === 'oack'
        ? { kind: 'send-oack', options: state.opening.options }
        : { kind: 'send-ack', block: 0 };
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

function answered(state: ReceiverState, nowMs: number): ReceiverState {
  return { ...state, phase: 'data', tries: 0, progressAtMs: nowMs };
}

/** ACKs the last in-order block. */
function sendAck(state: ReceiverState, nowMs: number, deadlineMs?: number): Step<ReceiverState> {
  return {
    state: {
      ...state,
      acked: state.blocks,
      sentAtMs: nowMs,
      clean: true,
      deadlineMs: deadlineMs ?? answerDeadline(state, nowMs),
    },
    effects: [{ kind: 'send-ack', block: state.blocks & 0xffff }],
  };
}

/** The same ACK once more; in `dally` the end of the wait stays where it is. */
function repeatAck(state: ReceiverState, nowMs: number): Step<ReceiverState> {
  const step = sendAck(state, nowMs, state.phase === 'dally' ? state.deadlineMs : undefined);
  return { ...step, state: { ...step.state, clean: false, repeats: state.repeats + 1 } };
}

function answerDeadline(state: ReceiverState, nowMs: number): number {
  const minMs = state.windowsize === 1 ? LOCK_STEP_WAIT_MS : WINDOW_WAIT_MIN_MS;
  return nextDeadline(state, nowMs, Math.max(minMs * 2 ** state.tries, 2 * waitMs(state.timing, state.tries)));
}
