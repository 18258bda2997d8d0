/**
 * Fetches what others publish: `http://`, `https://` and `tftp://` URLs (RFC 3617), with a bound on everything: the
 * wait for an answer, a pause in the middle, the whole time, the size, the number of tries.
 *
 * Nothing fetched is believed: a file is written under a temporary name, its SHA-256 is checked, and only then does it
 * get its own. Leaves out: resuming (files are small against the network's speed), signatures.
 */
import { createHash } from 'node:crypto';
import { constants } from 'node:fs';
import { type FileHandle, mkdir, open, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { get } from '../tftp/client.ts';

/** Bounds of a fetch. */
export interface FetchLimits {
  /** more bytes than this are refused */
  readonly maxBytes: number;
  /** until the answer begins, and between two pieces of it */
  readonly idleMs: number;
  /** for one try */
  readonly totalMs: number;
  readonly tries: number;
  /** after the first try; doubles */
  readonly pauseMs: number;
}

/** Limits for lists, sums and ids. */
export const TEXT_LIMITS: FetchLimits = {
  maxBytes: 1024 * 1024,
  idleMs: 10_000,
  totalMs: 30_000,
  tries: 3,
  pauseMs: 1000,
};

/** Limits for toolchain files and images. */
export const FILE_LIMITS: FetchLimits = {
  maxBytes: 4 * 1024 ** 3,
  idleMs: 30_000,
  totalMs: 3_600_000,
  tries: 4,
  pauseMs: 1000,
};

/** Something could not be fetched, or was not what it should be. */
export class FetchError extends Error {
  override readonly name = 'FetchError';
  readonly url: string;
  /** a later try may do better: not so for "not found" or a file too large */
  readonly isTemporary: boolean;
  readonly hint: string | undefined;

  constructor(
    url: string,
    reason: string,
    details: { readonly isTemporary: boolean; readonly hint?: string; readonly cause?: unknown },
  ) {
    super(`Cannot fetch ${url}: ${reason}`, details.cause === undefined ? undefined : { cause: details.cause });
    this.url = url;
    this.isTemporary = details.isTemporary;
    this.hint = details.hint;
  }
}

/** What {@link fetchToFile} is to make sure of. */
export interface ExpectedFile {
  /** lower case hexadecimal */
  readonly sha256: string;
  /** absolute; its directory is made */
  readonly file: string;
}

/** The most that is held in memory at once. */
const TFTP_MEMORY_BYTES = 512 * 1024 ** 2;

type Take = (chunk: Uint8Array) => void | Promise<void>;

/**
 * Fetches a text.
 *
 * @throws {FetchError} after the last try, or when it is not UTF-8
 */
export async function fetchText(url: string, limits: FetchLimits, signal?: AbortSignal): Promise<string> {
  return withTries(url, limits, signal, async () => {
    const chunks: Uint8Array[] = [];
    await stream(url, limits, signal, (chunk) => void chunks.push(chunk));
    try {
      return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(Buffer.concat(chunks));
    } catch (cause) {
      throw new FetchError(url, 'it is not UTF-8 text', { isTemporary: false, cause });
    }
  });
}

/**
 * Fetches something only to know its digest; nothing of it is kept.
 *
 * @returns SHA-256 in lower case hexadecimal
 * @throws {FetchError} after the last try
 */
export async function fetchDigest(url: string, limits: FetchLimits, signal?: AbortSignal): Promise<string> {
  return withTries(url, limits, signal, async () => {
    const hash = createHash('sha256');
    await stream(url, limits, signal, (chunk) => void hash.update(chunk));
    return hash.digest('hex');
  });
}

/**
 * Fetches a file: to a temporary name beside it, checked, synced, renamed. Whatever happens, `file` is what it was
 * before or is what was expected, and no temporary file is left (a kill leaves one; see toolchain-files.ts).
 *
 * @throws {FetchError} after the last try; a wrong checksum is tried again, since proxies and caches do cut files short
 */
export async function fetchToFile(
  url: string,
  expected: ExpectedFile,
  limits: FetchLimits,
  signal?: AbortSignal,
): Promise<void> {
  const { file, sha256 } = expected;
  await mkdir(dirname(file), { recursive: true });
  await withTries(url, limits, signal, async () => {
    const temporary = join(dirname(file), `.${basename(file).slice(0, 200)}.part`);
    try {
      await using handle = await open(temporary, constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC, 0o644);
      const hash = createHash('sha256');
      await stream(url, limits, signal, async (chunk) => {
        hash.update(chunk);
        await writeAll(handle, chunk, file);
      });
      const found = hash.digest('hex');
      if (found !== sha256) {
        throw new FetchError(url, `its SHA-256 is ${found}, not ${sha256} as the list says`, {
          isTemporary: true,
          hint: 'the list and the file are of different versions, or a proxy has changed the file: publish both again',
        });
      }
      await handle.sync();
      await rename(temporary, file);
    } finally {
      await rm(temporary, { force: true });
    }
  });
}

/** The error of a full disk says which one and how to enlarge it. */
async function writeAll(handle: FileHandle, chunk: Uint8Array, file: string): Promise<void> {
  try {
    for (let at = 0; at < chunk.length;) at += (await handle.write(chunk, at)).bytesWritten;
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? cause.code : undefined;
    if (code !== 'ENOSPC') throw cause;
    throw new FetchError(file, 'there is no space left for it', {
      isTemporary: false,
      hint: 'give the host more with the kernel option buildos.tftp_size, or more RAM',
      cause,
    });
  }
}

async function withTries<T>(
  url: string,
  limits: FetchLimits,
  signal: AbortSignal | undefined,
  attempt: () => Promise<T>,
): Promise<T> {
  for (let tries = 1; ; tries += 1) {
    try {
      return await attempt();
    } catch (cause) {
      signal?.throwIfAborted();
      const error =
        cause instanceof FetchError ? cause : new FetchError(url, reasonOf(cause), { isTemporary: true, cause });
      if (!error.isTemporary || tries >= limits.tries) throw error;
    }
    await sleep(limits.pauseMs * 2 ** (tries - 1), undefined, signal === undefined ? {} : { signal });
  }
}

/** One try: hands each piece to `take`, within the limits. */
async function stream(url: string, limits: FetchLimits, signal: AbortSignal | undefined, take: Take): Promise<void> {
  const parsed = parseUrl(url);
  const stall = new AbortController();
  const total = AbortSignal.timeout(limits.totalMs);
  const all = AbortSignal.any([stall.signal, total, ...(signal === undefined ? [] : [signal])]);
  let timer: NodeJS.Timeout | undefined;
  const alive = (): void => {
    clearTimeout(timer);
    timer = setTimeout(() => stall.abort(), limits.idleMs);
  };
  let bytes = 0;
  const limited: Take = async (chunk) => {
    alive();
    bytes += chunk.length;
    if (bytes > limits.maxBytes) throw tooLarge(url, limits.maxBytes);
    await take(chunk);
  };
  alive();
  try {
    if (parsed.protocol === 'tftp:') await limited(await getOverTftp(parsed, limits, all, alive));
    else await streamHttp(parsed, limits, all, limited);
  } catch (cause) {
    if (stall.signal.aborted) {
      throw new FetchError(url, `nothing came for ${limits.idleMs} ms (after ${bytes} bytes)`, {
        isTemporary: true,
        cause,
      });
    }
    if (total.aborted) {
      throw new FetchError(url, `not finished after ${limits.totalMs} ms (${bytes} bytes)`, {
        isTemporary: true,
        cause,
      });
    }
    throw cause;
  } finally {
    clearTimeout(timer);
  }
}

async function streamHttp(url: URL, limits: FetchLimits, signal: AbortSignal, take: Take): Promise<void> {
  const response = await fetch(url, {
    signal,
    headers: { 'cache-control': 'no-cache', 'user-agent': 'buildos-monitor' },
  });
  try {
    if (response.status !== 200) {
      const isTemporary = response.status >= 500 || response.status === 408 || response.status === 429;
      throw new FetchError(url.href, `the server answers ${response.status} ${response.statusText}`.trimEnd(), {
        isTemporary,
        ...(response.status === 404 ? { hint: 'is it published there? A list names files relative to itself' } : {}),
      });
    }
    const length = Number(response.headers.get('content-length') ?? 0);
    if (length > limits.maxBytes) throw tooLarge(url.href, limits.maxBytes);
    if (response.body === null) return;
    for await (const chunk of response.body) await take(chunk);
  } finally {
    // Lets go of the connection when the body was not read to its end.
    await response.body?.cancel().catch(() => undefined);
  }
}

/**
 * RFC 3617: `tftp://host[:port]/file`, with an optional `;mode=octet`. The whole comes at once: what is published over
 * TFTP is meant to be loaded by firmware, and fits.
 */
async function getOverTftp(url: URL, limits: FetchLimits, signal: AbortSignal, alive: () => void): Promise<Uint8Array> {
  return get({
    host: url.hostname.replaceAll(/^\[|\]$/g, ''),
    name: decodeURIComponent(url.pathname.slice(1)).replace(/;mode=octet$/, ''),
    maxBytes: Math.min(limits.maxBytes, TFTP_MEMORY_BYTES),
    timeoutMs: limits.idleMs,
    signal,
    onProgress: alive,
    ...(url.port === '' ? {} : { port: Number(url.port) }),
  });
}

function parseUrl(url: string): URL {
  const parsed = URL.canParse(url) ? new URL(url) : undefined;
  if (parsed === undefined || !['http:', 'https:', 'tftp:'].includes(parsed.protocol)) {
    throw new FetchError(url, 'it is not a URL of http, https or tftp', { isTemporary: false });
  }
  return parsed;
}

function tooLarge(url: string, maxBytes: number): FetchError {
  return new FetchError(url, `it is larger than ${maxBytes} bytes`, {
    isTemporary: false,
    hint: 'is this the right URL?',
  });
}

/** fetch() hides what happened in the cause: "fetch failed" says nothing. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const { cause } = error;
  if (error.message === 'fetch failed' && cause instanceof Error) {
    const code = 'code' in cause && typeof cause.code === 'string' ? cause.code : '';
    return cause.message === '' ? code : cause.message;
  }
  return error.message;
}
