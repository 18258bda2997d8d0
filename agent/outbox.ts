/** Results on their way to their controllers: each is kept, over crashes and reboots, until a controller has it. */
import type { KeyObject } from 'node:crypto';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { formatResult } from '../manifests/result.ts';
import type { Result } from '../manifests/result.ts';
import { deliverAll } from './deliver.ts';
import type { Paths } from './paths.ts';
import { resultId, withoutUpload } from './plan.ts';
import { parseResultRecord, resultRecord } from './record.ts';
import type { ResultRecord, TaskRecord } from './record.ts';
import type { Report } from './report.ts';
import { pauseMs } from './settings.ts';
import type { Times } from './settings.ts';
import { Shelf } from './shelf.ts';

export interface OutboxOptions {
  readonly paths: Paths;
  readonly key: KeyObject;
  readonly times: Times;
  /** Aborting ends its loop. */
  readonly signal: AbortSignal;
  readonly report: Report;
  /** A line for the journal. */
  readonly onLine: (line: string) => void;
}

/** While nothing goes wrong it looks this often whether something waits; it is woken for what is new. */
const IDLE_MS = 60_000;

export class Outbox {
  readonly #o: OutboxOptions;
  readonly #shelf: Shelf<ResultRecord>;
  #waiting = 0;
  /** Ends the pause of the loop early. */
  #wake = new AbortController();

  constructor(options: OutboxOptions) {
    this.#o = options;
    this.#shelf = new Shelf({
      folder: join(options.paths.state, 'results'),
      ramFolder: options.paths.ramResults,
      parse: parseResultRecord,
      onProblem: (message) => options.report.problem('state', message),
    });
  }

  /** How many results no controller has yet. */
  get waiting(): number {
    return this.#waiting;
  }

  /** Looks at what an earlier agent left. */
  async open(): Promise<readonly ResultRecord[]> {
    await this.#shelf.sweep();
    const entries = await this.#shelf.list();
    this.#waiting = entries.length;
    return entries.map(({ value }) => value);
  }

  /**
   * Keeps the result of a task; it is delivered when the loop is woken.
   *
   * @param upload - a file to copy
   * @throws {ShelfError} when there is room for it nowhere
   */
  async keep(record: TaskRecord, result: Result, upload?: string): Promise<void> {
    const id = resultId(record.session);
    const kept = await this.#shelf.put(id, resultRecord(record, formatResult(result)), upload);
    if (kept === 'ram-without-attachment') {
      const lost = withoutUpload(
        result,
        'The uploaded files could not be kept on the host: neither disk nor RAM has room.',
      );
      await this.#shelf.put(id, resultRecord(record, formatResult(lost)));
    }
    if (kept === 'disk') this.#o.report.fine('state');
    this.#waiting += 1;
  }

  /** Has the loop deliver what waits. */
  wake(): void {
    this.#wake.abort();
  }

  /** Delivers what is kept, until told to stop. */
  async run(): Promise<void> {
    const { signal, times } = this.#o;
    let failures = 0;
    while (!signal.aborted) {
      if (this.#wake.signal.aborted) this.#wake = new AbortController();
      if (this.#waiting > 0) failures = (await this.#deliver(signal)) ? 0 : failures + 1;
      const wait = failures === 0 ? IDLE_MS : pauseMs(times.errorMs, failures, Math.random());
      const ended = AbortSignal.any([signal, this.#wake.signal]);
      await sleep(wait, undefined, { signal: ended }).catch(() => undefined);
    }
  }

  /** The last try to deliver, within its bound. */
  async tryOnce(): Promise<void> {
    if (this.#waiting > 0) await this.#deliver(AbortSignal.timeout(this.#o.times.stopMs));
    if (this.#waiting > 0) this.#o.onLine(`${this.#waiting} results wait for the next agent`);
  }

  /** @returns whether nothing waits any more */
  async #deliver(signal: AbortSignal): Promise<boolean> {
    const { times, key, report, onLine } = this.#o;
    const round = await deliverAll({ shelf: this.#shelf, key, times, signal, onLine });
    // Counted again: a build may have ended meanwhile.
    this.#waiting = (await this.#shelf.list()).length;
    if (round.lastError === undefined) report.fine('results');
    else report.problem('results', `${round.waiting} results wait: ${round.lastError}`, { quiet: true });
    report.renew();
    return this.#waiting === 0;
  }
}
