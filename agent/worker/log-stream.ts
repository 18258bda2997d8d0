/**
 * The live log: what the operations print, appended to a file of the host over TFTP while they run.
 *
 * An append says at which offset it belongs, so one that is repeated, because its last ACK was lost, changes nothing. A
 * host that does not answer for a while delays the log and nothing else; one that refuses (the quota is used up) ends it.
 */
import { setTimeout as sleep } from 'node:timers/promises';

/** Puts bytes at an offset of the log; rejects when that was not acknowledged. */
export type Append = (content: Uint8Array, offset: number) => Promise<void>;

export interface LogStreamOptions {
  readonly append: Append;
  /** Whether a failed append is the host's word (no further try) and not the network's. */
  readonly isRefusal: (error: unknown) => boolean;
  /** Between two appends; default 1 s. */
  readonly intervalMs?: number;
  /** What one append carries at most; default 1 MiB. */
  readonly chunkBytes?: number;
  /** What waits in memory at most; more is dropped, and said so; default 16 MiB. */
  readonly pendingBytes?: number;
}

/** Takes output and sends it, in order, about every second. */
export class LogStream {
  readonly #options: Required<LogStreamOptions>;
  #pending: Uint8Array[] = [];
  #pendingBytes = 0;
  #offset = 0;
  #dropped = 0;
  #refusal: unknown;
  #lastError: unknown;
  readonly #stop = new AbortController();
  readonly #loop: Promise<void>;

  constructor(options: LogStreamOptions) {
    this.#options = { intervalMs: 1000, chunkBytes: 1024 * 1024, pendingBytes: 16 * 1024 * 1024, ...options };
    this.#loop = this.#run();
  }

  /** Bytes that the host has acknowledged. */
  get offset(): number {
    return this.#offset;
  }

  /** Why nothing more is sent, when that is so. */
  get refusal(): unknown {
    return this.#refusal;
  }

  /** Takes output; it is copied. Never waits: a slow host must not slow down the build. */
  write(chunk: Uint8Array | string): void {
    if (this.#refusal !== undefined) return;
    const bytes = typeof chunk === 'string' ? new TextEncoder().encode(chunk) : chunk.slice();
    if (this.#pendingBytes + bytes.length > this.#options.pendingBytes) {
      this.#dropped += bytes.length;
      return;
    }
    if (this.#dropped > 0) {
      const note = new TextEncoder().encode(
        `\n[... ${this.#dropped} bytes of log dropped: the host did not answer ...]\n`,
      );
      this.#dropped = 0;
      this.#push(note);
    }
    this.#push(bytes);
  }

  /**
   * Sends what is left and ends.
   *
   * @param limitMs - how long is tried
   * @returns whether the host has all of it
   */
  async close(limitMs: number): Promise<boolean> {
    this.#stop.abort();
    await this.#loop;
    const end = performance.now() + limitMs;
    while (this.#pendingBytes > 0 && this.#refusal === undefined) {
      if (await this.#sendOne()) continue;
      if (performance.now() >= end) return false;
      await sleep(Math.min(this.#options.intervalMs, limitMs));
    }
    return this.#refusal === undefined;
  }

  /** The error of the latest append that failed. */
  get lastError(): unknown {
    return this.#lastError;
  }

  async #run(): Promise<void> {
    while (!this.#stop.signal.aborted && this.#refusal === undefined) {
      if (this.#pendingBytes === 0 || !(await this.#sendOne()) || this.#pendingBytes < this.#options.chunkBytes) {
        await sleep(this.#options.intervalMs, undefined, { signal: this.#stop.signal }).catch(() => undefined);
      }
    }
  }

  /** @returns whether something was acknowledged */
  async #sendOne(): Promise<boolean> {
    const all = Buffer.concat(this.#pending);
    const chunk = all.subarray(0, this.#options.chunkBytes);
    try {
      await this.#options.append(chunk, this.#offset);
    } catch (error) {
      this.#lastError = error;
      if (this.#options.isRefusal(error)) this.#refuse(error);
      return false;
    }
    this.#offset += chunk.length;
    this.#drop(chunk.length);
    return true;
  }

  #push(bytes: Uint8Array): void {
    this.#pending.push(bytes);
    this.#pendingBytes += bytes.length;
  }

  /** Forgets the first bytes; more may have come since they were sent. */
  #drop(count: number): void {
    const all = Buffer.concat(this.#pending).subarray(count);
    this.#pending = all.length === 0 ? [] : [all];
    this.#pendingBytes = all.length;
  }

  #refuse(error: unknown): void {
    this.#refusal = error;
    this.#pending = [];
    this.#pendingBytes = 0;
  }
}
