/** What an archive of Debian packages has published last: its `InRelease`. */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import type { AptSource } from '../host/apt-resolve.ts';

const STALL_MS = 30_000;

/** How long to wait. */
export interface Limits {
  /** For an archive that does not answer; default 30 s. */
  readonly stallMs?: number;
  readonly signal?: AbortSignal;
}

/** An `InRelease`. */
export interface Release {
  readonly sha256: string;
  /** As the archive says itself; not every one does. */
  readonly validUntil: Date | undefined;
}

/** An archive did not answer as an archive does. */
export class ArchiveError extends Error {
  override readonly name = 'ArchiveError';
  readonly url: string;
  readonly reason: string;
  /** Nobody is there, or nobody who has time: another day it may be. */
  readonly unreachable: boolean;
  readonly hint: string;

  constructor(url: string, reason: string, options: { readonly unreachable: boolean; readonly cause?: unknown }) {
    super(`Cannot read the Debian archive's index ${url}: ${reason}`, { cause: options.cause });
    this.url = url;
    this.reason = reason;
    this.unreachable = options.unreachable;
    this.hint = options.unreachable
      ? 'check the address with curl; another mirror can be given with --mirror'
      : 'is the suite of the definition right (base.suite), and does this archive have it? Another mirror can be given with --mirror';
  }
}

/** What an archive has published last. It is not checked here: a choice is known by the digest of what apt has checked. */
export async function lookAtInRelease(source: AptSource, limits: Limits): Promise<Release> {
  const place = source.suite.endsWith('/') ? source.suite : `dists/${source.suite}/`;
  const content = await fetchWhole(`${source.uri}/${place}InRelease`, limits);
  const validUntil = /^Valid-Until: *(.+)$/m.exec(Buffer.from(content).toString('utf8'))?.[1];
  return {
    sha256: createHash('sha256').update(content).digest('hex'),
    validUntil: validUntil === undefined ? undefined : new Date(validUntil),
  };
}

async function fetchWhole(url: string, { stallMs = STALL_MS, signal }: Limits): Promise<Uint8Array> {
  if (url.startsWith('file:')) {
    return await readFile(new URL(url)).catch((cause: unknown) => {
      throw new ArchiveError(url, 'no such file', { unreachable: false, cause });
    });
  }
  const limits = [AbortSignal.timeout(stallMs), ...(signal ? [signal] : [])];
  try {
    const response = await fetch(url, { signal: AbortSignal.any(limits) });
    // With 4xx somebody is there who knows of no such suite.
    if (!response.ok) throw new ArchiveError(url, `HTTP ${response.status}`, { unreachable: response.status >= 500 });
    return new Uint8Array(await response.arrayBuffer());
  } catch (cause) {
    signal?.throwIfAborted();
    if (cause instanceof ArchiveError) throw cause;
    const timeout = cause instanceof Error && cause.name === 'TimeoutError';
    const reason = timeout ? `no answer within ${stallMs / 1000} s` : `no answer${causeOf(cause)}`;
    throw new ArchiveError(url, reason, { unreachable: true });
  }
}

/** What fetch() hides behind "fetch failed". */
const causeOf = (error: unknown): string =>
  error instanceof Error && error.cause instanceof Error ? ` (${error.cause.message})` : '';
