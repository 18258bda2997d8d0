/**
 * When to send again: a retransmission timeout (RTO) from measured round trips, with bounds (RFC 1123 §4.2.3.2 asks
 * for an adaptive one; the formula is TCP's, RFC 6298).
 *
 *   srtt = 7/8 srtt + 1/8 sample      rttvar = 3/4 rttvar + 1/4 |srtt - sample|      RTO = srtt + 4 rttvar
 *
 * Each wait without progress doubles. After 8 tries or 30 s without progress a transfer is given up.
 */

/** Before anything was measured, unless `timeout` was granted. */
export const RTO_START_MS = 1000;
/** A measured RTO is never below: a peer that writes a block to a slow disk is not lost. */
export const RTO_MIN_MS = 50;
/** A measured RTO is never above. */
export const RTO_MAX_MS = 1000;
/** A packet is sent so many times at most. */
export const TRIES_MAX = 8;
/** Without progress for so long, a transfer is given up. */
export const PATIENCE_MS = 30_000;

/** What has been measured on one transfer. */
export interface Timing {
  /** smoothed round trip; `undefined` before the first sample */
  readonly srttMs: number | undefined;
  readonly rttvarMs: number;
  /** fastest round trip seen; an answer that comes sooner answers something older */
  readonly rttMinMs: number;
  readonly rtoMs: number;
  readonly patienceMs: number;
}

/**
 * The state before the first sample.
 *
 * @param timeoutSeconds - the granted `timeout`; it takes the place of the start value (RFC 2349)
 * @param patienceMs - how long a transfer may stand still
 */
export function startTiming(timeoutSeconds: number | undefined, patienceMs: number): Timing {
  const base = { srttMs: undefined, rttvarMs: 0, rttMinMs: RTO_MIN_MS };
  if (timeoutSeconds === undefined) {
    // Little patience is for several tries, too.
    return { ...base, rtoMs: Math.min(RTO_START_MS, patienceMs / 4), patienceMs };
  }
  // A peer that asked for 60 s means to be given more than half a try.
  const rtoMs = timeoutSeconds * 1000;
  return { ...base, rtoMs, patienceMs: Math.max(patienceMs, 3 * rtoMs) };
}

/** Adds a round trip. Only packets sent once give a sample (Karn): an answer to a repeated one is ambiguous. */
export function addSample(timing: Timing, sampleMs: number): Timing {
  const first = timing.srttMs === undefined;
  const rttvarMs = first ? sampleMs / 2 : 0.75 * timing.rttvarMs + 0.25 * Math.abs((timing.srttMs ?? 0) - sampleMs);
  const srttMs = first ? sampleMs : 0.875 * (timing.srttMs ?? 0) + 0.125 * sampleMs;
  return {
    ...timing,
    srttMs,
    rttvarMs,
    rttMinMs: first ? sampleMs : Math.min(timing.rttMinMs, sampleMs),
    rtoMs: Math.min(RTO_MAX_MS, Math.max(RTO_MIN_MS, srttMs + 4 * rttvarMs)),
  };
}

/** How long to wait for an answer to the try after `repeats` repeats without progress. */
export function waitMs(timing: Timing, repeats: number): number {
  return timing.rtoMs * 2 ** repeats;
}

/** When to look again: after the wait, but not after patience has ended. */
export function nextDeadline(
  state: { readonly timing: Timing; readonly progressAtMs: number },
  nowMs: number,
  wait: number,
): number {
  return Math.min(nowMs + wait, state.progressAtMs + state.timing.patienceMs);
}
