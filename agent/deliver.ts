/**
 * Gives kept results to their controllers, uploads first, until each is acknowledged. One at a time and the oldest first; a
 * controller that is away is asked again with growing pauses.
 */
import type { KeyObject } from 'node:crypto';
import { signChallenge } from '../manifests/challenge.ts';
import { parseResult } from '../manifests/result.ts';
import { formatResultRequest } from '../manifests/result-request.ts';
import { ExchangeError, sendResult, sendUpload } from './exchange.ts';
import type { ResultRecord } from './record.ts';
import type { Times } from './settings.ts';
import type { Shelf, ShelfEntry } from './shelf.ts';

export interface DeliverOptions {
  readonly shelf: Shelf<ResultRecord>;
  readonly key: KeyObject;
  readonly times: Times;
  readonly signal: AbortSignal;
  readonly onLine: (line: string) => void;
}

/** What became of one round over all results. */
export interface Round {
  /** Still here. */
  readonly waiting: number;
  /** Why the latest one was not taken. */
  readonly lastError?: string;
}

/**
 * Statuses by which a controller says that this very result, or upload, will never be taken. Not 404: a proxy says so too while
 * the controller behind it is away.
 */
const FINAL_STATUSES: ReadonlySet<number> = new Set([400, 409, 410, 413, 422]);

/** Tries to deliver every kept result once. */
export async function deliverAll(options: DeliverOptions): Promise<Round> {
  let waiting = 0;
  let lastError: string | undefined;
  for (const entry of await options.shelf.list()) {
    if (options.signal.aborted) {
      waiting += 1;
      continue;
    }
    const { build, resultUrl } = entry.value;
    try {
      await deliver(entry, options);
      options.onLine(`result of ${build} delivered to ${resultUrl}`);
      await options.shelf.remove(entry.id);
    } catch (error) {
      lastError = describeError(error);
      if (isFinal(error)) {
        options.onLine(`result of ${build} is dropped, the controller will not have it: ${lastError}`);
        await options.shelf.remove(entry.id);
      } else {
        waiting += 1;
        options.onLine(`result of ${build} waits: ${lastError}`);
      }
    }
  }
  return { waiting, ...(lastError === undefined ? {} : { lastError }) };
}

async function deliver(entry: ShelfEntry<ResultRecord>, options: DeliverOptions): Promise<void> {
  const { value: record, attachment } = entry;
  const { session } = record;
  const challenge = record.challenge === undefined ? {} : { challenge: signChallenge(record.challenge, options.key) };
  for (const [instance, url] of Object.entries(record.uploadUrls)) {
    if (attachment === undefined) break;
    const upload = { session, ...challenge, instance, file: attachment };
    try {
      await sendUpload(url, upload, { timeoutMs: options.times.uploadMs, signal: options.signal });
    } catch (error) {
      // The logs are worth more than the files: what is refused for good must not hold them back.
      if (!isFinal(error)) throw error;
      options.onLine(
        `upload "${instance}" of ${record.build} is dropped, the controller will not have it: ${describeError(error)}`,
      );
    }
  }
  const request = formatResultRequest({
    session,
    ...challenge,
    ...(record.agentChecksum === undefined ? {} : { agentChecksum: record.agentChecksum }),
    result: parseResult(record.result),
  });
  await sendResult(record.resultUrl, request, { timeoutMs: options.times.requestMs, signal: options.signal });
}

function isFinal(error: unknown): boolean {
  return error instanceof ExchangeError && error.status !== undefined && FINAL_STATUSES.has(error.status);
}

function describeError(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error instanceof ExchangeError && error.hint !== undefined
    ? `${error.message} (${error.hint})`
    : error.message;
}
