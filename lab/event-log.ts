/**
 * Events as they come, kept in order, and waiting for one of them with a deadline.
 */

/** Older events are dropped past this many, so that a chatty guest cannot fill the memory. */
const MAX_EVENTS = 100_000;

interface Waiter<T> {
  readonly wants: (event: T) => boolean;
  readonly resolve: (event: T) => void;
  readonly reject: (error: unknown) => void;
}

/** How long to wait, and for what. */
export interface WaitOptions {
  /** For the error's message: `"monitor ready" on the console`. */
  readonly what: string;
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
  /** Also look at events that have happened before; default true. */
  readonly past?: boolean;
}

/** A list of events that can be waited on. */
export class EventLog<T> {
  readonly #events: T[] = [];
  readonly #waiters = new Set<Waiter<T>>();
  readonly #listeners = new Set<(event: T) => void>();
  #ended: unknown;

  /** All events kept, oldest first. */
  get events(): readonly T[] {
    return this.#events;
  }

  add(event: T): void {
    this.#events.push(event);
    if (this.#events.length > MAX_EVENTS) this.#events.splice(0, MAX_EVENTS / 10);
    for (const listener of this.#listeners) listener(event);
    for (const waiter of this.#waiters) {
      if (waiter.wants(event)) waiter.resolve(event);
    }
  }

  /** Calls back for every event from now on. @returns a function that stops it */
  listen(listener: (event: T) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** No more events will come: whoever waits gets the reason. */
  end(reason: Error): void {
    this.#ended ??= reason;
    for (const waiter of this.#waiters) waiter.reject(reason);
  }

  /**
   * Waits for an event.
   *
   * @throws {DeadlineError} when it has not come in time
   * @throws the reason given to `end` when no more events come, or the signal's reason
   */
  async waitFor<U extends T>(wants: (event: T) => event is U, options: WaitOptions): Promise<U>;
  async waitFor(wants: (event: T) => boolean, options: WaitOptions): Promise<T>;
  async waitFor(wants: (event: T) => boolean, options: WaitOptions): Promise<T> {
    if (options.past !== false) {
      const past = this.#events.find(wants);
      if (past !== undefined) return past;
    }
    if (this.#ended !== undefined) throw this.#ended;
    options.signal?.throwIfAborted();
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    const waiter = { wants, resolve, reject };
    const timer = setTimeout(() => reject(new DeadlineError(options.what, options.timeoutMs)), options.timeoutMs);
    const abort = (): void => reject(options.signal?.reason);
    options.signal?.addEventListener('abort', abort, { once: true });
    this.#waiters.add(waiter);
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
      options.signal?.removeEventListener('abort', abort);
      this.#waiters.delete(waiter);
    }
  }
}

/** Something has not happened in time. */
export class DeadlineError extends Error {
  readonly what: string;
  readonly timeoutMs: number;

  constructor(what: string, timeoutMs: number) {
    super(`Waited ${(timeoutMs / 1000).toFixed(0)} s in vain for ${what}`);
    this.name = 'DeadlineError';
    this.what = what;
    this.timeoutMs = timeoutMs;
  }
}
