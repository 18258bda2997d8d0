/** How long the steps of a build took: for the chart of `image build --timings`. */

/** One step. Steps may overlap. */
export interface Timing {
  readonly name: string;
  /** Since the build began. */
  readonly startMs: number;
  readonly endMs: number;
  /** Whether the result was in the cache. */
  readonly cached: boolean;
}

const BAR_CHARACTERS = 40;

/** Collects timings. */
export class Timings {
  readonly #began = performance.now();
  readonly #all: Timing[] = [];

  get all(): readonly Timing[] {
    return this.#all;
  }

  /** Does something and notes how long it took, also when it fails. */
  async measure<T>(name: string, act: () => Promise<T>, isCached: (result: T) => boolean): Promise<T> {
    const startMs = performance.now() - this.#began;
    let cached = false;
    try {
      const result = await act();
      cached = isCached(result);
      return result;
    } finally {
      this.#all.push({ name, startMs, endMs: performance.now() - this.#began, cached });
    }
  }
}

/** A line a step, with a bar at the time when it ran. */
export function formatTimings(timings: readonly Timing[]): string[] {
  const total = Math.max(1, ...timings.map(({ endMs }) => endMs));
  const width = Math.max(...timings.map(({ name }) => name.length));
  return timings
    .toSorted((a, b) => a.startMs - b.startMs || b.endMs - a.endMs)
    .map(({ name, startMs, endMs, cached }) => {
      const from = Math.min(BAR_CHARACTERS - 1, Math.floor((startMs / total) * BAR_CHARACTERS));
      const length = Math.max(1, Math.round(((endMs - startMs) / total) * BAR_CHARACTERS));
      const bar = `${' '.repeat(from)}${'█'.repeat(length)}`.slice(0, BAR_CHARACTERS).padEnd(BAR_CHARACTERS);
      const seconds = ((endMs - startMs) / 1000).toFixed(2).padStart(6);
      return `${name.padEnd(width)} ${bar} ${seconds} s${cached ? '  in the cache' : ''}`;
    });
}
