/**
 * The Debian root that a definition's properties are applied to, kept between builds.
 *
 * The key says what it was made from: the suite, the packages asked for, and the digests of the archives' signed
 * `InRelease` files. So an update in the archive gives a new root, and without one the old root is the right one.
 */
import { createHash } from 'node:crypto';
import { mkdir, readdir, rename, rm, stat, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import type { Connection } from '../connections/connection.ts';
import { bootstrap } from '../host/mmdebstrap.ts';

/** How many old roots are kept for builds with other package lists. */
const ROOTS_KEPT = 3;

/** What the root is made from. */
export interface BaseRootOptions {
  /** The release, such as `trixie`. */
  readonly suite: string;
  /** One-line apt sources: the archive, its security updates. */
  readonly sources: readonly string[];
  readonly packages: readonly string[];
  /** Folder for roots and downloaded packages. */
  readonly cache: string;
  readonly signal?: AbortSignal;
}

/** An archive did not answer as an archive does. */
export class ArchiveError extends Error {
  override readonly name = 'ArchiveError';
  readonly url: string;
  readonly hint = 'check the address with curl; another mirror can be given with --mirror';

  constructor(url: string, reason: string, options?: { readonly cause: unknown }) {
    super(`Cannot read the Debian archive's index ${url}: ${reason}`, options);
    this.url = url;
  }
}

/** A root in the cache. Copy it; nothing is to be changed in it. */
export interface BaseRoot {
  readonly folder: string;
  readonly key: string;
  /** Whether it was there already. */
  readonly cached: boolean;
}

/**
 * Finds the root in the cache or bootstraps it.
 *
 * @throws {ArchiveError} when a mirror cannot be reached
 * @throws {CommandError} when mmdebstrap fails; the cache is as before then
 */
export async function findOrMakeBaseRoot(on: Connection, options: BaseRootOptions): Promise<BaseRoot> {
  const key = await keyOf(options);
  const roots = join(options.cache, 'roots');
  const folder = join(roots, key);
  await mkdir(roots, { recursive: true });
  if (await exists(folder)) {
    await utimes(folder, new Date(), new Date());
    return { folder, key, cached: true };
  }
  const temporary = `${folder}.part-${process.pid}`;
  await removeOldRoots(roots);
  await rm(temporary, { recursive: true, force: true });
  try {
    await bootstrap(on, {
      suite: options.suite,
      sources: options.sources,
      variant: 'minbase',
      include: options.packages,
      into: temporary,
      cache: join(options.cache, 'debs'),
      ...(options.signal && { signal: options.signal }),
    });
    await rename(temporary, folder);
  } catch (error) {
    await rm(temporary, { recursive: true, force: true });
    // Two builds at once: the other one was quicker, and its root is as good.
    if (!(await exists(folder))) throw error;
  }
  return { folder, key, cached: false };
}

async function keyOf(options: BaseRootOptions): Promise<string> {
  const hash = createHash('sha256');
  const add = (text: string): void => void hash.update(`${text.length}:${text}\n`);
  add('base-root 1');
  add(options.suite);
  for (const source of options.sources) {
    add(source);
    add(await digestOfInRelease(source, options.signal));
  }
  for (const name of [...options.packages].sort()) add(name);
  return hash.digest('hex').slice(0, 32);
}

/** The URL of `InRelease` for a one-line source: `deb [options] URI suite components` (sources.list(5)). */
export function inReleaseUrl(source: string): string {
  const words = source
    .replace(/\[[^\]]*\]/, ' ')
    .split(/\s+/)
    .filter(Boolean);
  const [type, uri, suite] = words;
  if (type !== 'deb' || uri === undefined || suite === undefined) {
    throw new TypeError(`Cannot read the apt source "${source}": expected "deb URI suite components"`);
  }
  return suite.endsWith('/')
    ? `${uri.replace(/\/+$/, '')}/${suite}InRelease`
    : `${uri.replace(/\/+$/, '')}/dists/${suite}/InRelease`;
}

async function digestOfInRelease(source: string, signal?: AbortSignal): Promise<string> {
  const url = inReleaseUrl(source);
  const limits = [AbortSignal.timeout(60_000), ...(signal ? [signal] : [])];
  let response: Response;
  try {
    response = await fetch(url, { signal: AbortSignal.any(limits) });
  } catch (cause) {
    throw new ArchiveError(url, 'no answer', { cause });
  }
  if (!response.ok) throw new ArchiveError(url, `HTTP ${response.status}`);
  return createHash('sha256')
    .update(new Uint8Array(await response.arrayBuffer()))
    .digest('hex');
}

async function removeOldRoots(roots: string): Promise<void> {
  const dated: { name: string; time: number }[] = [];
  for (const name of await readdir(roots)) {
    if (name.includes('.part-')) continue;
    dated.push({ name, time: (await stat(join(roots, name))).mtimeMs });
  }
  dated.sort((a, b) => b.time - a.time);
  for (const { name } of dated.slice(ROOTS_KEPT - 1)) await rm(join(roots, name), { recursive: true, force: true });
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch {
    return false;
  }
}
