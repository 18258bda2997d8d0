/**
 * The packages of a lock on this machine: `<cache>/debs/<sha256>.deb`, fetched once, named by what is in them.
 *
 * A file gets its name after its digest was checked and it is on the disk; so what is there was right, whoever else
 * writes, and whatever was cut off. It is checked again before it is used: disks forget, and an image must not.
 */
import { createHash, hash } from 'node:crypto';
import { mkdir, open, readdir, readFile, rename, rm, stat, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { LockedPackage, PackageLock } from '../manifests/package-lock.ts';
import { partSuffix } from './store.ts';

/** Downloads at once: more is no quicker on one mirror, and less friendly. */
const PARALLEL = 8;

/** Packages in the cache that are looked at at once. */
const PARALLEL_LOOKS = 4;

/** An archive that does not send a byte for so long is given up. */
const STALL_MS = 30_000;

/** A download in which nothing has come for so long is nobody's any more. */
const ABANDONED_MS = 3_600_000;

/** How often a package is tried on each place. */
const TRIES = 2;

/** A server that says "too many requests" or "later" is asked so often, after 1, 2, 4 … seconds; snapshot.debian.org does. */
const TRIES_LATER = 6;
const LATER_MS = 1000;

/** Where Debian keeps every version there ever was. */
export const SNAPSHOT_URL = 'https://snapshot.debian.org';

/**
 * The snapshot archive gives what it had last before the time that is asked for, and it looks at the archive some hours after
 * a release. A version stays in the archive for a day at least after the next one has come.
 */
const SNAPSHOT_LATER_MS = 12 * 3_600_000;

/** From where, and to where. */
export interface FetchOptions {
  readonly lock: PackageLock;
  readonly cache: string;
  /** Asked when the archive does not have a version any more; `undefined`: nobody is. Default {@link SNAPSHOT_URL}. */
  readonly snapshot?: string | undefined;
  /** Asks nobody: what is not in the cache cannot be had. */
  readonly offline?: boolean;
  /** How long to wait for the next bytes; default 30 s. */
  readonly stallMs?: number;
  /** The first pause before a server that said "later" is asked again; default 1 s. */
  readonly laterMs?: number;
  readonly signal?: AbortSignal;
  readonly onProgress?: (line: string) => void;
  /** Told each package that was fetched, once it is in the cache: the processor waits while others come. */
  readonly onFetched?: (file: string) => void;
}

/** A package cannot be had. */
export class FetchError extends Error {
  override readonly name = 'FetchError';
  readonly hint: string;

  constructor(message: string, hint: string) {
    super(message);
    this.hint = hint;
  }
}

/** What to do about a package that no place has given. */
const HINTS = {
  gone:
    'the archive has a newer version and no longer this one: "buildos image update" renews the lock, with other versions; ' +
    "for these very ones ask Debian's snapshot archive, or one of yours, with --snapshot",
  goneAndNoSnapshot:
    'the archive has a newer version and no longer this one, and the snapshot archive does not give it: check its address with ' +
    'curl, name another with --snapshot; or renew the lock with "buildos image update", with other versions',
  altered:
    'what the archive has is not what the lock says: take the lock from your version control again, or renew it with ' +
    '"buildos image update"; if it is right, somebody has changed the file: try another --mirror',
  unreachable: 'check the address with curl; another mirror can be given with --mirror',
  offline: 'build once without --offline; or take the folder cache/debs of a machine that has it',
} as const;

/** A place does not have it, or what it sends is not it. */
class PlaceError extends Error {
  readonly kind: 'gone' | 'later' | 'altered' | 'wrong';

  /** @param kind - `gone`: the place answers, and says that there is no such file; `later`: it has too much to do */
  constructor(message: string, kind: PlaceError['kind'] = 'wrong') {
    super(message);
    this.kind = kind;
  }
}

/**
 * Makes sure that every package of a lock is in the cache.
 *
 * @returns the files, in the order of the lock's packages
 * @throws {FetchError} when a package cannot be had, naming it and every place that was asked
 */
export async function fetchPackages(options: FetchOptions): Promise<readonly string[]> {
  const folder = join(options.cache, 'debs');
  await mkdir(folder, { recursive: true });
  const files = options.lock.packages.map((each) => join(folder, `${each.sha256}.deb`));
  const missing: { each: LockedPackage; file: string }[] = [];
  const states = await lookAt(options.lock.packages, files);
  for (const [index, each] of options.lock.packages.entries()) {
    const file = files[index] ?? '';
    const state = states[index];
    if (state === 'right') await utimes(file, new Date(), new Date());
    else missing.push({ each, file });
    if (state === 'damaged') options.onProgress?.(`${each.name} is damaged in the cache, and fetched again: ${file}`);
  }
  if (missing.length === 0) return files;
  if (options.offline === true) {
    const names = missing.map(({ each }) => `${each.name} ${each.version}`);
    const shown = `${names.slice(0, 5).join(', ')}${names.length > 5 ? ` and ${names.length - 5} more` : ''}`;
    throw new FetchError(`Cannot build offline: not in the cache: ${shown}`, HINTS.offline);
  }
  const mebibytes = missing.reduce((sum, { each }) => sum + each.sizeBytes, 0) / 2 ** 20;
  options.onProgress?.(
    `Fetching ${missing.length} ${missing.length === 1 ? 'package' : 'packages'}, ${mebibytes.toFixed(1)} MiB`,
  );
  await removeParts(folder);
  // The largest first: the last download is then a short one.
  missing.sort((a, b) => b.each.sizeBytes - a.each.sizeBytes);
  const failed = new AbortController();
  const signal = options.signal ? AbortSignal.any([options.signal, failed.signal]) : failed.signal;
  const queue = missing.values();
  const worker = async (): Promise<void> => {
    for (const { each, file } of queue) await fetchOne(each, file, { ...options, signal });
  };
  const workers = Array.from({ length: PARALLEL }, async () => {
    try {
      await worker();
    } catch (error) {
      failed.abort(error);
      throw error;
    }
  });
  const [first] = (await Promise.allSettled(workers)).filter((result) => result.status === 'rejected');
  if (first !== undefined) throw failed.signal.reason ?? first.reason;
  return files;
}

/** What the cache has of a package. */
type State = 'right' | 'damaged' | 'missing';

/** Looks at some files at once: what takes time is to open and to read each. */
async function lookAt(packages: readonly LockedPackage[], files: readonly string[]): Promise<readonly State[]> {
  const states: State[] = [];
  const queue = packages.entries();
  const work = async (): Promise<void> => {
    for (const [index, each] of queue) states[index] = await look(files[index] ?? '', each);
  };
  await Promise.all(Array.from({ length: PARALLEL_LOOKS }, work));
  return states;
}

async function look(file: string, each: LockedPackage): Promise<State> {
  const size = (await stat(file).catch(() => undefined))?.size;
  if (size === undefined) return 'missing';
  return size === each.sizeBytes && hash('sha256', await readFile(file)) === each.sha256 ? 'right' : 'damaged';
}

/** Removes what downloads that were killed have left. */
async function removeParts(folder: string): Promise<void> {
  for (const name of await readdir(folder)) {
    if (!name.includes('.part-')) continue;
    const file = join(folder, name);
    const changed = (await stat(file).catch(() => undefined))?.mtimeMs;
    if (changed !== undefined && Date.now() - changed > ABANDONED_MS) await rm(file, { force: true });
  }
}

async function fetchOne(
  each: LockedPackage,
  file: string,
  options: FetchOptions & { signal: AbortSignal },
): Promise<void> {
  const reasons: string[] = [];
  const places = placesOf(each, options);
  let [gone, altered] = [false, false];
  for (const [index, url] of places.entries()) {
    for (let tries = 1; ; tries += 1) {
      try {
        await download(url, each, file, options);
        options.onFetched?.(file);
        return;
      } catch (error) {
        options.signal.throwIfAborted();
        if (!(error instanceof PlaceError)) throw error;
        if (error.kind === 'later' && tries < TRIES_LATER) {
          await sleep((options.laterMs ?? LATER_MS) * 2 ** (tries - 1), undefined, { signal: options.signal });
          continue;
        }
        reasons.push(`${url}: ${error.message}`);
        if (error.kind === 'gone' && index === 0) gone = true;
        if (error.kind === 'altered' && index === 0) altered = true;
        if (error.kind === 'gone' || error.kind === 'later' || tries >= TRIES) break;
      }
    }
  }
  const hint = altered
    ? HINTS.altered
    : gone
      ? places.length > 1
        ? HINTS.goneAndNoSnapshot
        : HINTS.gone
      : HINTS.unreachable;
  throw new FetchError(`Cannot fetch ${each.name} ${each.version}: ${[...new Set(reasons)].join('; ')}`, hint);
}

/** The archive first; then the snapshot archive, as it was soon after the lock was made. */
function placesOf(each: LockedPackage, options: FetchOptions): readonly string[] {
  const source = options.lock.sources[each.source];
  if (source === undefined) throw new RangeError(`${each.name} names source ${each.source}, which the lock lacks`);
  const path = each.path.split('/').map(encodeURIComponent).join('/');
  const snapshot = 'snapshot' in options ? options.snapshot : SNAPSHOT_URL;
  const archive = /\/(debian[a-z-]*)$/.exec(source.uri)?.[1];
  const places = [`${source.uri}/${path}`];
  if (snapshot !== undefined && archive !== undefined) {
    const released = Date.parse(source.releaseDate);
    for (const time of [released + SNAPSHOT_LATER_MS, released]) {
      const name = new Date(time).toISOString().replaceAll(/[-:]|\.\d+/g, '');
      places.push(`${snapshot}/archive/${archive}/${name}/${path}`);
    }
  }
  return places;
}

async function download(
  url: string,
  each: LockedPackage,
  file: string,
  options: FetchOptions & { signal: AbortSignal },
): Promise<void> {
  const stallMs = options.stallMs ?? STALL_MS;
  const stalled = new AbortController();
  const reason = new PlaceError(`no data for ${stallMs / 1000} s`);
  let timer = setTimeout(() => stalled.abort(reason), stallMs);
  const part = `${file}${partSuffix()}`;
  try {
    const hash = createHash('sha256');
    let size = 0;
    {
      await using handle = await open(part, 'w');
      try {
        for await (const chunk of contentOf(url, each, AbortSignal.any([options.signal, stalled.signal]))) {
          clearTimeout(timer);
          timer = setTimeout(() => stalled.abort(reason), stallMs);
          size += chunk.length;
          if (size > each.sizeBytes) break;
          hash.update(chunk);
          await handle.writeFile(chunk);
        }
      } catch (error) {
        if (error instanceof Error && 'code' in error && error.code === 'ENOSPC') throw error;
        if (error instanceof PlaceError) throw error;
        options.signal.throwIfAborted();
        throw stalled.signal.aborted ? reason : new PlaceError(`cut off after ${size} of ${each.sizeBytes} bytes`);
      }
      if (size !== each.sizeBytes) {
        throw new PlaceError(
          `${size > each.sizeBytes ? 'more than' : `${size} bytes, not`} the ${each.sizeBytes} bytes of the lock`,
        );
      }
      const found = hash.digest('hex');
      if (found !== each.sha256)
        throw new PlaceError(`altered: its SHA-256 is ${found}, the lock says ${each.sha256}`, 'altered');
      await handle.sync();
    }
    await rename(part, file);
  } finally {
    clearTimeout(timer);
    await rm(part, { force: true });
  }
}

/**
 * What a place sends. The answer is held until its body is read: when it is collected as garbage before that, fetch gives
 * a body without a byte, and without an error.
 */
async function* contentOf(url: string, each: LockedPackage, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  if (url.startsWith('file:')) {
    try {
      await using handle = await open(new URL(url));
      yield* handle.createReadStream({ autoClose: false });
    } catch (error) {
      throw new PlaceError(error instanceof Error ? error.message : String(error), 'gone');
    }
    return;
  }
  const response = await request(url, signal);
  if (response.ok && response.body !== null) {
    yield* response.body;
    return;
  }
  await response.body?.cancel();
  const kind = { 404: 'gone', 410: 'gone', 429: 'later', 503: 'later' } as const;
  const known = Object.entries(kind).find(([status]) => Number(status) === response.status)?.[1];
  throw new PlaceError(`HTTP ${response.status} for a file of ${each.sizeBytes} bytes`, known);
}

async function request(url: string, signal: AbortSignal): Promise<Response> {
  try {
    return await fetch(url, { signal });
  } catch (error) {
    if (signal.aborted && signal.reason instanceof PlaceError) throw signal.reason;
    signal.throwIfAborted();
    const cause = error instanceof Error && error.cause instanceof Error ? error.cause.message : String(error);
    throw new PlaceError(`no answer (${cause})`);
  }
}
