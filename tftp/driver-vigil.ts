/**
 * Whether to stay awake for an answer that may come at once: on a local network it is there before the process would have gone
 * to sleep and been woken. Where such waits are in vain, they are left out.
 *
 *   sent ├── 0.06 ms ──┤ nothing: the next 1, 2, 4 … 1024 packets are not waited for; an answer in time: all are again
 */

/** A local peer answers within so long. */
const VIGIL_MS = 0.06;
const SKIPPED_MAX = 1024;

/** One for all sockets that a driver waits for. */
export class Vigil {
  #untilMs = 0;
  #isKept = false;
  #skip = 0;
  #skipNext = 1;

  /** A packet has left, and nothing more will before its answer. Returns whether to wait. */
  begin(): boolean {
    if (this.#skip > 0) {
      this.#skip -= 1;
      return false;
    }
    this.#untilMs = performance.now() + VIGIL_MS;
    return true;
  }

  /** Whether to wait still. */
  keep(nowMs: number): boolean {
    if (nowMs < this.#untilMs) {
      this.#isKept = true;
      return true;
    }
    if (this.#isKept) {
      this.#skip = this.#skipNext;
      this.#skipNext = Math.min(2 * this.#skipNext, SKIPPED_MAX);
      this.#isKept = false;
    }
    return false;
  }

  /** Something was heard. */
  end(): void {
    if (this.#isKept) this.#skipNext = 1;
    this.#isKept = false;
    this.#untilMs = 0;
  }
}
