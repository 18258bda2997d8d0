/**
 * A source archive, fetched over HTTP to a file and checked while it comes. Nothing is unpacked that is not what the
 * task named.
 */
import { createHash } from 'node:crypto';
import { open, rm } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import type { SourceArchive } from './operations.ts';

/** The archive could not be had: not reachable, too large, or not what was named. */
export class SourceError extends Error {
  override readonly name = 'SourceError';
  readonly hint: string;

  constructor(message: string, hint: string, options?: ErrorOptions) {
    super(message, options);
    this.hint = hint;
  }
}

export interface FetchOptions {
  readonly maxBytes: number;
  /** For one try. */
  readonly timeoutMs: number;
  readonly tries: number;
  readonly pauseMs?: number;
  readonly onNote: (note: string) => void;
}

/**
 * Fetches an archive.
 *
 * @returns its size in bytes
 * @throws {SourceError} after the last try; a wrong digest is not tried again
 */
export async function fetchSource(archive: SourceArchive, file: string, options: FetchOptions): Promise<number> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await fetchOnce(archive, file, options);
    } catch (error) {
      await rm(file, { force: true });
      if (error instanceof SourceError) throw error;
      const reason = error instanceof Error ? describeFetchError(error) : String(error);
      if (attempt >= options.tries) {
        throw new SourceError(
          `Cannot fetch ${archive.url}: ${reason} (try ${attempt} of ${options.tries})`,
          'is the server reachable from a build machine, through the host that runs it?',
          { cause: error },
        );
      }
      options.onNote(`try ${attempt} of ${options.tries} failed: ${reason}`);
      await sleep((options.pauseMs ?? 2000) * attempt);
    }
  }
}

async function fetchOnce(archive: SourceArchive, file: string, options: FetchOptions): Promise<number> {
  const response = await fetch(archive.url, { signal: AbortSignal.timeout(options.timeoutMs) });
  if (response.status >= 400 && response.status < 500) {
    throw new SourceError(
      `Cannot fetch ${archive.url}: the server answered ${response.status} ${response.statusText}`,
      'correct repository-url in the task',
    );
  }
  if (!response.ok || response.body === null) throw new Error(`the server answered ${response.status}`);
  const hash = createHash('sha256');
  let size = 0;
  await using output = await open(file, 'wx', 0o644);
  const body: AsyncIterable<Uint8Array> = response.body;
  for await (const chunk of body) {
    size += chunk.length;
    if (size > options.maxBytes) {
      throw new SourceError(
        `Cannot fetch ${archive.url}: it is larger than ${options.maxBytes} bytes`,
        'is it a source archive?',
      );
    }
    hash.update(chunk);
    await output.writeFile(chunk);
  }
  const found = hash.digest('hex');
  if (found !== archive.sha256) {
    throw new SourceError(
      `Cannot trust ${archive.url}: its SHA-256 is ${found}, the task names ${archive.sha256} (${size} bytes)`,
      'was the archive replaced, or does something between the server and this machine change it?',
    );
  }
  return size;
}

const describeFetchError = (error: Error): string =>
  error.cause instanceof Error ? `${error.message}: ${error.cause.message}` : error.message;
