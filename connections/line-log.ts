/**
 * The lines that a long-running child wrote: the last ones are kept, any number of readers can follow them.
 *
 * Bounded: who reads slower than lines come loses the oldest, never blocks the child.
 */

/** How many lines are kept for readers that come later. */
const KEPT_LINES = 10_000;
/** A longer line is cut into pieces of this size. */
const MAX_LINE_CHARACTERS = 65_536;

/** Lines as they come. Iterating starts with the oldest line still kept and ends when the stream ends. */
export class LineLog implements AsyncIterable<string> {
  readonly #kept: string[] = [];
  #first = 0;
  #partial = '';
  #ended = false;
  readonly #decoder = new TextDecoder();
  #wake: (() => void)[] = [];

  /** Takes bytes; a line is there once its newline (or CR LF) is. */
  push(chunk: Uint8Array): void {
    const parts = (this.#partial + this.#decoder.decode(chunk, { stream: true })).split('\n');
    this.#partial = parts.pop() ?? '';
    if (this.#partial.length > MAX_LINE_CHARACTERS) {
      parts.push(this.#partial);
      this.#partial = '';
    }
    for (const line of parts) this.#add(line);
    if (parts.length > 0) this.#notify();
  }

  /** No more bytes come: readers end after the last line. */
  end(): void {
    if (this.#ended) return;
    if (this.#partial !== '') this.#add(this.#partial);
    this.#partial = '';
    this.#ended = true;
    this.#notify();
  }

  /** The last `count` lines that are complete. */
  tail(count: number): string[] {
    return count <= 0 ? [] : this.#kept.slice(-count);
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<string, void, undefined> {
    let next = this.#first;
    for (;;) {
      next = Math.max(next, this.#first);
      const line = this.#kept[next - this.#first];
      if (line !== undefined) {
        next++;
        yield line;
      } else if (this.#ended) {
        return;
      } else {
        await this.#more();
      }
    }
  }

  /**
   * Waits for a line; lines that are still kept count too.
   *
   * @param pattern - the first line that matches is the answer
   * @returns undefined when the stream ended, the time is over or the signal was aborted before such a line came
   */
  async waitFor(
    pattern: RegExp,
    options: { readonly timeoutMs: number; readonly signal?: AbortSignal },
  ): Promise<RegExpExecArray | undefined> {
    const wait = { over: options.signal?.aborted === true };
    const stop = (): void => {
      wait.over = true;
      this.#notify();
    };
    const timer = setTimeout(stop, options.timeoutMs);
    options.signal?.addEventListener('abort', stop, { once: true });
    const matcher = new RegExp(pattern.source, pattern.flags.replaceAll(/[gy]/g, ''));
    try {
      let next = this.#first;
      while (!wait.over) {
        next = Math.max(next, this.#first);
        for (; next - this.#first < this.#kept.length; next++) {
          const found = matcher.exec(this.#kept[next - this.#first] ?? '');
          if (found !== null) return found;
        }
        if (this.#ended) return undefined;
        await this.#more();
      }
      return undefined;
    } finally {
      clearTimeout(timer);
      options.signal?.removeEventListener('abort', stop);
    }
  }

  #add(line: string): void {
    this.#kept.push(line.endsWith('\r') ? line.slice(0, -1) : line);
    if (this.#kept.length > KEPT_LINES * 2) {
      this.#first += this.#kept.length - KEPT_LINES;
      this.#kept.splice(0, this.#kept.length - KEPT_LINES);
    }
  }

  #more(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake.push(resolve);
    });
  }

  #notify(): void {
    const waiting = this.#wake;
    this.#wake = [];
    for (const wake of waiting) wake();
  }
}
