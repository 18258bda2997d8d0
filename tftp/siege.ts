/**
 * Which requests are taken while more ask than can be served: forged addresses, mostly, that never answer. Pure but for what
 * it remembers.
 *
 *   many unanswered transfers, the oldest for long, or no room?
 *   or many requests refused, for names that are not there?       no ──▶ all are taken
 *         │ yes
 *   an address that has answered lately?                          yes ──▶ taken
 *         │ no
 *   a tenth of the time for all of these: taken as far as it goes, passed over beyond that (who is honest asks again)
 *
 * A room of machines that boots at once answers within moments, so it is none; and a loader that tries one name after the
 * other has answered before, when it was loaded itself.
 */

/** Fewer than these are no burden. */
const UNANSWERED_MIN = 256;
/** The oldest of them for so long, and its first repeat was in vain: it is not the server who is slow. */
const UNANSWERED_MS = 1250;
/** So many refusals of unknown addresses are no burden, at once and then each second. */
const REFUSALS_MAX = 1000;
/** Time left for others, for each ms that was spent on a request of an unknown address. */
const OTHERS_SHARE = 9;
/** But so much at most: a process that was stopped meanwhile, or a slow disk, says nothing of the siege. */
const OTHERS_MAX_MS = 1000;
/** Addresses that are remembered. */
const KNOWN_MAX = 8192;
/** Between two words on what was passed over. */
const WORD_MS = 1000;

/** The requests of one server. */
export class Siege {
  /** the one heard longest ago first */
  readonly #known = new Set<string>();
  /** until then unknown addresses wait */
  #nextAtMs = 0;
  /** refusals of unknown addresses, less what time has forgiven */
  #refusals = 0;
  #refusedAtMs = 0;
  #passed = 0;
  #wordAtMs = -Infinity;

  /** The address has answered: it is not forged. */
  know(address: string): void {
    this.#known.delete(address);
    this.#known.add(address);
    if (this.#known.size <= KNOWN_MAX) return;
    const [oldest = ''] = this.#known;
    this.#known.delete(oldest);
  }

  /** A request was answered with an ERROR. */
  refuse(address: string, nowMs: number): void {
    if (this.#known.has(address)) return;
    this.#refusals = this.#refusalsAt(nowMs) + 1;
    this.#refusedAtMs = nowMs;
  }

  #refusalsAt(nowMs: number): number {
    return Math.max(0, this.#refusals - ((nowMs - this.#refusedAtMs) * REFUSALS_MAX) / 1000);
  }

  /**
   * Whether a request is taken.
   *
   * @param unanswered.count - transfers whose peer has never answered
   * @param unanswered.sinceMs - when the oldest of them began; -Infinity: there is no room for more
   */
  admits(
    address: string,
    unanswered: { readonly count: number; readonly sinceMs: number },
    nowMs: number,
  ): 'freely' | 'sparingly' | 'not' {
    const isUnanswered = unanswered.count >= UNANSWERED_MIN && nowMs - unanswered.sinceMs >= UNANSWERED_MS;
    if (!isUnanswered && this.#refusalsAt(nowMs) < REFUSALS_MAX) return 'freely';
    if (this.#known.has(address)) return 'freely';
    if (nowMs >= this.#nextAtMs) return 'sparingly';
    this.#passed += 1;
    return 'not';
  }

  /** So much time went into a request that was taken sparingly. */
  spend(ms: number, nowMs: number): void {
    this.#nextAtMs = Math.max(nowMs, this.#nextAtMs) + Math.min(OTHERS_SHARE * ms, OTHERS_MAX_MS);
  }

  /** How many were passed over since it was last told; 0: it is not time for a word. */
  tell(nowMs: number): number {
    if (this.#passed === 0 || nowMs - this.#wordAtMs < WORD_MS) return 0;
    const passed = this.#passed;
    this.#passed = 0;
    this.#wordAtMs = nowMs;
    return passed;
  }
}
