/**
 * One timer for all transfers. Each deadline waits in a slot of time; a slot whose time has come wakes those in it.
 *
 *   now │ 1 ms │ 2 ms │ … │ 511 ms │   a later deadline stands in the last slot and moves on from there
 *
 * A deadline that is put off stays where it is until its slot comes round (each packet puts one off, and most are never
 * reached); one that comes nearer moves at once.
 *
 * When the timer fires, what has arrived meanwhile is heard first, and only then is it asked who is late: a process that got
 * no time from its host for a while finds many answers waiting, and must not take them for lost.
 */

const SLOT_MS = 1;
const SLOTS = 512;

/** Something that has a deadline. */
export interface Waiting {
  /** on the clock of `performance.now()`; Infinity: none */
  readonly deadlineMs: number;
  /** The deadline may have passed. */
  onDeadline(): void;
}

export class TimerWheel {
  readonly #slots: Set<Waiting>[] = Array.from({ length: SLOTS }, () => new Set());
  /** in which slot somebody waits, in slots since the start of the clock */
  readonly #places = new Map<Waiting, number>();
  #timer: NodeJS.Timeout | undefined;
  #immediate: NodeJS.Immediate | undefined;
  /** the slot that the timer wakes; Infinity: it is not set */
  #wakeAt = Infinity;

  /** How many wait. */
  get size(): number {
    return this.#places.size;
  }

  /** Has it woken at its deadline, which may have changed since it was last told. */
  set(waiting: Waiting): void {
    const { deadlineMs } = waiting;
    if (deadlineMs === Infinity) return;
    this.#put(waiting, deadlineMs, performance.now());
  }

  /** Forgets it. */
  delete(waiting: Waiting): void {
    const place = this.#places.get(waiting);
    if (place === undefined) return;
    this.#places.delete(waiting);
    this.#slots[place % SLOTS]?.delete(waiting);
    if (this.#places.size === 0) this.#disarm();
  }

  #put(waiting: Waiting, deadlineMs: number, nowMs: number): void {
    const present = Math.floor(nowMs / SLOT_MS);
    const wanted = Math.max(Math.ceil(deadlineMs / SLOT_MS), present + 1);
    const place = Math.min(wanted, present + SLOTS - 1);
    const old = this.#places.get(waiting);
    if (old !== undefined) {
      if (old <= place) return;
      this.#slots[old % SLOTS]?.delete(waiting);
    }
    this.#places.set(waiting, place);
    this.#slots[place % SLOTS]?.add(waiting);
    if (place < this.#wakeAt) this.#arm(place, nowMs);
  }

  #arm(place: number, nowMs: number): void {
    this.#disarm();
    this.#wakeAt = place;
    // Behind the timers the loop looks at the sockets, and behind these comes what is immediate.
    const hearFirst = (): void => void (this.#immediate = setImmediate(() => this.#wake(place)));
    this.#timer = setTimeout(hearFirst, Math.max(1, Math.ceil(place * SLOT_MS - nowMs)));
  }

  #disarm(): void {
    clearTimeout(this.#timer);
    clearImmediate(this.#immediate);
    this.#timer = undefined;
    this.#immediate = undefined;
    this.#wakeAt = Infinity;
  }

  #wake(from: number): void {
    this.#disarm();
    const nowMs = performance.now();
    const present = Math.floor(nowMs / SLOT_MS);
    const last = Math.min(present, from + SLOTS - 1);
    for (let place = from; place <= last; place += 1) {
      const slot = this.#slots[place % SLOTS];
      if (slot === undefined || slot.size === 0) continue;
      for (const waiting of slot) {
        const at = this.#places.get(waiting);
        if (at === undefined || at > present) continue;
        this.#places.delete(waiting);
        slot.delete(waiting);
        if (waiting.deadlineMs <= nowMs) waiting.onDeadline();
        this.set(waiting);
      }
    }
    if (this.#places.size > 0) this.#armNext(present);
  }

  /** The next slot with somebody in it. */
  #armNext(present: number): void {
    for (let place = present; place < present + SLOTS; place += 1) {
      if ((this.#slots[place % SLOTS]?.size ?? 0) === 0) continue;
      if (place < this.#wakeAt) this.#arm(place, performance.now());
      return;
    }
  }
}
