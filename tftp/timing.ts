/**
 * When to send again: a retransmission timeout (RTO) from measured round trips, with bounds (RFC 1123 §4.2.3.2 asks
 * for an adaptive one; the formula is TCP's, RFC 6298).
 *
 *   srtt = 7/8 srtt + 1/8 sample      rttvar = 3/4 rttvar + 1/4 |srtt - sample|      RTO = srtt + 4 rttvar
 *
 *   try       1st           2nd      3rd      …   8th
 *   waits     overdue       2 RTO    4 RTO        128 RTO      overdue = srtt + max(4 rttvar, srtt/4, 10 ms)
 *
 * The first repeat comes as soon as an answer is overdue by what is known of the round trip (TCP's tail loss probe,
 * RFC 8985 §7); where that proves hasty, it waits for the RTO, and longer, until there is a sure sample again (Karn).
 * After 8 tries or 30 s without progress a transfer is given up.
 */

/** Before anything was measured, unless `timeout` was granted. */
const RTO_START_MS = 1000;
/** A measured RTO is never below: a peer that writes a block to a slow disk is not lost. */
export const RTO_MIN_MS = 50;
/** A measured RTO is never above. */
const RTO_MAX_MS = 1000;
/** A packet is sent so many times at most. */
export const TRIES_MAX = 8;
/** An address that has not answered a server yet gets one packet and two repeats: it may be forged. */
export const UNPROVEN_REPEATS_MAX = 2;
/** Without progress for so long, a transfer is given up. */
export const PATIENCE_MS = 30_000;
/** What an answer may take on top of the smoothed round trip before it is overdue: a program's own hiccup. */
const OVERDUE_MIN_MS = 10;
/** An answer that comes sooner than this share of the fastest round trip answers something older. */
const ANSWER_SHARE = 0.75;

/** Round trips up to this much above the fastest are steady; on a local network it is the programs that vary. */
const STEADY_FACTOR = 1.25;
const STEADY_MS = 1;

/** What has been measured on one transfer. */
export interface Timing {
  /** smoothed round trip; `undefined` before the first sample */
  readonly srttMs: number | undefined;
  readonly rttvarMs: number;
  /** fastest round trip seen; 0 before the first sample */
  readonly rttMinMs: number;
  readonly rtoMs: number;
  /** waits of the RTO that ended without a sure sample, in a row */
  readonly backoff: number;
  readonly patienceMs: number;
}

/**
 * The state before the first sample.
 *
 * @param timeoutSeconds - the granted `timeout`; it takes the place of the start value (RFC 2349)
 * @param patienceMs - how long a transfer may stand still
 */
export function startTiming(timeoutSeconds: number | undefined, patienceMs: number): Timing {
  const base = { srttMs: undefined, rttvarMs: 0, rttMinMs: 0, backoff: 0 };
  if (timeoutSeconds === undefined) {
    // Little patience is for several tries, too.
    return { ...base, rtoMs: Math.min(RTO_START_MS, patienceMs / 4), patienceMs };
  }
  // A peer that asked for 60 s means to be given more than half a try.
  const rtoMs = timeoutSeconds * 1000;
  return { ...base, rtoMs, patienceMs: Math.max(patienceMs, 3 * rtoMs) };
}

/** Adds a round trip that is sure: the answer can only be to that packet. */
export function addSample(timing: Timing, sampleMs: number): Timing {
  const { srttMs: before } = timing;
  const rttvarMs = before === undefined ? sampleMs / 2 : 0.75 * timing.rttvarMs + 0.25 * Math.abs(before - sampleMs);
  const srttMs = before === undefined ? sampleMs : 0.875 * before + 0.125 * sampleMs;
  return {
    srttMs,
    rttvarMs,
    rttMinMs: before === undefined ? sampleMs : Math.min(timing.rttMinMs, sampleMs),
    rtoMs: Math.min(RTO_MAX_MS, Math.max(RTO_MIN_MS, srttMs + 4 * rttvarMs)),
    backoff: 0,
    patienceMs: timing.patienceMs,
  };
}

/** There was an answer before the wait was over, but what it answers is not sure. */
export function easeOff(timing: Timing): Timing {
  return timing.backoff === 0 ? timing : { ...timing, backoff: timing.backoff - 1 };
}

/** The wait was over, the packet went out again, and which of the two was answered is not known. */
export function backOff(timing: Timing): Timing {
  return { ...timing, backoff: Math.min(timing.backoff + 1, TRIES_MAX) };
}

/**
 * How long to wait for an answer to the try after `repeats` repeats without progress.
 *
 * @param burstMs - what the packets of this try may take on the way, where that is not part of the round trip yet
 */
export function waitMs(timing: Timing, repeats: number, burstMs = 0): number {
  const { srttMs, rttvarMs, rtoMs, backoff } = timing;
  if (repeats === 0 && backoff === 0 && srttMs !== undefined) {
    return srttMs + Math.max(4 * rttvarMs, srttMs / 4, OVERDUE_MIN_MS) + burstMs;
  }
  const patientMs = backoff < 2 ? rtoMs : Math.max(rtoMs, Math.min(RTO_MAX_MS, rtoMs * 2 ** (backoff - 1)));
  return (patientMs + burstMs) * 2 ** repeats;
}

/** Whether what comes so long after a packet was sent can be the answer to it. */
export function isAnswer(timing: Timing, afterMs: number): boolean {
  return afterMs >= ANSWER_SHARE * timing.rttMinMs;
}

/** Whether round trips stay near the fastest: what is lost is not lost in a queue that is full. */
export function isSteady(timing: Timing): boolean {
  return timing.srttMs !== undefined && timing.srttMs <= STEADY_FACTOR * timing.rttMinMs + STEADY_MS;
}

/** When to look again: after the wait, but not after patience has ended. */
export function nextDeadline(
  state: { readonly timing: Timing; readonly progressAtMs: number },
  nowMs: number,
  wait: number,
): number {
  return Math.min(nowMs + wait, state.progressAtMs + state.timing.patienceMs);
}
