/** The stdin of a program as a stream: fed to a child from any source of chunks, or pushed into a queue from outside. */
import type { Writable } from 'node:stream';

/**
 * Writes chunks as they come and ends the stream after the last; waits while the reader is slow.
 *
 * @param signal - the reader has ended: stop, also while waiting for a chunk
 */
export async function feed(to: Writable, from: AsyncIterable<Uint8Array>, signal: AbortSignal): Promise<void> {
  const iterator = from[Symbol.asyncIterator]();
  const { promise: over, resolve } = Promise.withResolvers<'over'>();
  const stop = (): void => resolve('over');
  signal.addEventListener('abort', stop, { once: true });
  to.once('close', stop);
  try {
    for (;;) {
      const next = await Promise.race([iterator.next(), over]);
      if (next === 'over' || next.done === true) return;
      if (!to.write(next.value)) {
        const drained = new Promise<'drained'>((ready) => to.once('drain', () => ready('drained')));
        if ((await Promise.race([drained, over])) === 'over') return;
      }
    }
  } finally {
    to.end();
    // Not awaited: a generator that waits for its own source answers only once that has given something.
    void iterator.return?.()?.catch(() => {});
    signal.removeEventListener('abort', stop);
  }
}

/** Puts bytes ahead of an input, or makes them all of it. */
export function prepend(
  first: Uint8Array,
  rest: string | Uint8Array | AsyncIterable<Uint8Array> | undefined,
): Uint8Array | AsyncIterable<Uint8Array> {
  if (rest === undefined) return first;
  if (typeof rest === 'string') return Buffer.concat([first, Buffer.from(rest)]);
  if (rest instanceof Uint8Array) return Buffer.concat([first, rest]);
  return (async function* () {
    yield first;
    yield* rest;
  })();
}

/** Chunks that somebody pushes and one reader takes. */
export class InputQueue implements AsyncIterable<Uint8Array> {
  readonly #chunks: Uint8Array[] = [];
  readonly #onTaken: ((sizeBytes: number) => void) | undefined;
  #ended = false;
  #wake: (() => void) | undefined;

  /** @param onTaken - told when the reader took a chunk */
  constructor(onTaken?: (sizeBytes: number) => void) {
    this.#onTaken = onTaken;
  }

  /** Adds a chunk; after the end, nothing happens. */
  push(chunk: Uint8Array): void {
    if (this.#ended) return;
    this.#chunks.push(chunk);
    this.#wake?.();
  }

  /** No more chunks come. */
  end(): void {
    this.#ended = true;
    this.#wake?.();
  }

  [Symbol.asyncIterator](): AsyncIterator<Uint8Array, undefined> {
    return {
      next: async () => {
        for (;;) {
          const chunk = this.#chunks.shift();
          if (chunk !== undefined) {
            this.#onTaken?.(chunk.length);
            return { done: false, value: chunk };
          }
          if (this.#ended) return { done: true, value: undefined };
          await new Promise<void>((resolve) => {
            this.#wake = resolve;
          });
        }
      },
      return: async () => {
        this.end();
        return { done: true, value: undefined };
      },
    };
  }
}
