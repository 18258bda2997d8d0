/**
 * Which packages an image gets: those of a lock file, or what the archives offer today.
 *
 * Without a lock the choice is apt's, made anew whenever an archive has published something; it is kept with the digests
 * of the archives' `InRelease` files, so that nothing is asked twice. With a lock no archive is asked at all.
 */
import { createHash } from 'node:crypto';
import { mkdir, mkdtempDisposable, readFile, rename, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Connection } from '../connections/connection.ts';
import { type AptSource, resolvePackages } from '../host/apt-resolve.ts';
import { ManifestError } from '../manifests/manifest.ts';
import { formatPackageLock, parsePackageLock, type PackageLock } from '../manifests/package-lock.ts';
import { keyOf, partSuffix } from './store.ts';

/** The architecture of images. */
export const ARCHITECTURE = 'amd64';

const DEBIAN = 'http://deb.debian.org/debian';
const DEBIAN_SECURITY = 'http://deb.debian.org/debian-security';

/** What to choose from. */
export interface ChoiceOptions {
  readonly suite: string;
  readonly packages: readonly string[];
  readonly sources: readonly AptSource[];
  /** Folder for apt's lists and for what was chosen. */
  readonly cache: string;
  /** `trusted`: an archive of one's own, without signatures. Default: Debian's keys. */
  readonly keyring?: string;
  readonly checkValidUntil?: boolean;
  /** How long to wait for an archive that does not answer; default 30 s. */
  readonly stallMs?: number;
  readonly signal?: AbortSignal;
}

const STALL_MS = 30_000;

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

/** A lock that is not one for this host. */
export class LockMismatchError extends Error {
  override readonly name = 'LockMismatchError';
  readonly hint: string;

  constructor(reason: string, file: string) {
    super(`Cannot build with the lock ${file}: ${reason}`);
    this.hint = 'renew it with "buildos image update", or build without it: --no-lock';
  }
}

/** Debian's archives for a release: what was released, and its security updates. */
export function debianArchives(options: { readonly suite: string; readonly mirror?: string }): readonly AptSource[] {
  return [
    { uri: trimSlash(options.mirror ?? DEBIAN), suite: options.suite, components: ['main'] },
    { uri: DEBIAN_SECURITY, suite: `${options.suite}-security`, components: ['main'] },
  ];
}

/**
 * Chooses the packages from the archives as they are now.
 *
 * @throws {ArchiveError | ResolveError} when an archive cannot be read, or lacks a package
 */
export async function chooseFromArchives(on: Connection, options: ChoiceOptions): Promise<PackageLock> {
  const requested = [...new Set(options.packages)].sort();
  const releases = await Promise.all(options.sources.map((source) => lookAtInRelease(source, options)));
  const question = { format: 1, suite: options.suite, sources: options.sources, requested, keyring: options.keyring };
  const fileFor = (releases: readonly string[]): string =>
    join(options.cache, 'choices', `${keyOf([question, releases])}.json`);
  // A choice from an archive that is past its date by now is none: apt is asked again, and says what is wrong.
  const expired = releases.some(({ validUntil }) => validUntil !== undefined && validUntil < new Date());
  const known = await readLock(fileFor(releases.map(({ sha256 }) => sha256))).catch(() => undefined);
  if (known !== undefined && !(expired && options.checkValidUntil !== false)) return known;
  await mkdir(options.cache, { recursive: true });
  // One for each choice, so that builds do not wait for each other; choices are few, since they are kept.
  await using state = await mkdtempDisposable(join(options.cache, 'apt-'));
  const resolved = await resolvePackages(on, {
    sources: options.sources,
    packages: requested,
    architecture: ARCHITECTURE,
    state: state.path,
    ...(options.keyring !== undefined && { keyring: options.keyring }),
    ...(options.checkValidUntil !== undefined && { checkValidUntil: options.checkValidUntil }),
    ...(options.stallMs !== undefined && { stallMs: options.stallMs }),
    ...(options.signal && { signal: options.signal }),
  });
  const lock: PackageLock = {
    format: 1,
    suite: options.suite,
    architecture: ARCHITECTURE,
    requested,
    sources: options.sources.map((source, index) => ({
      ...source,
      releaseSha256: resolved.releases[index]?.sha256 ?? '',
      releaseDate: resolved.releases[index]?.date ?? '',
    })),
    packages: resolved.packages,
  };
  await writeLock(fileFor(resolved.releases.map(({ sha256 }) => sha256)), lock);
  return lock;
}

/** @throws {ManifestError} when it is not a lock; an error of the file system, such as ENOENT */
export async function readLock(file: string): Promise<PackageLock> {
  const text = await readFile(file, 'utf8');
  try {
    return parsePackageLock(text, { name: file });
  } catch (error) {
    if (!(error instanceof ManifestError)) throw error;
    const hint = 'take it from your version control again; or remove it, and "buildos image update" makes a new one';
    throw new ManifestError(error.reason, error, { hint });
  }
}

/** Replaces the file in one step. */
export async function writeLock(file: string, lock: PackageLock): Promise<void> {
  await mkdir(dirname(file), { recursive: true });
  const part = `${file}${partSuffix()}`;
  await writeFile(part, formatPackageLock(lock));
  await rename(part, file);
}

/**
 * Refuses a lock that was made for something else.
 *
 * @throws {LockMismatchError}
 */
export function checkLock(
  lock: PackageLock,
  wanted: { readonly suite: string; readonly packages: readonly string[] },
  file = 'given',
): void {
  if (lock.suite !== wanted.suite) {
    throw new LockMismatchError(`it is for ${lock.suite}, the host is defined on ${wanted.suite}`, file);
  }
  if (lock.architecture !== ARCHITECTURE) throw new LockMismatchError(`it is for ${lock.architecture}`, file);
  const [asked, locked] = [new Set(wanted.packages), new Set(lock.requested)];
  const more = [...asked.difference(locked)];
  const fewer = [...locked.difference(asked)];
  if (more.length + fewer.length === 0) return;
  const reasons = [
    ...(more.length > 0 ? [`it lacks ${more.join(' ')}, which the host asks for`] : []),
    ...(fewer.length > 0 ? [`it has ${fewer.join(' ')}, which the host does not ask for any more`] : []),
  ];
  throw new LockMismatchError(reasons.join('; '), file);
}

/** The same lock with packages fetched from another mirror of Debian. */
export function withMirror(lock: PackageLock, mirror: string | undefined): PackageLock {
  if (mirror === undefined) return lock;
  const isDebian = ({ uri }: AptSource): boolean => uri.endsWith('/debian');
  return {
    ...lock,
    sources: lock.sources.map((source) => (isDebian(source) ? { ...source, uri: trimSlash(mirror) } : source)),
  };
}

/** What an archive has published last. It is not checked here: a choice is known by the digest of what apt has checked. */
async function lookAtInRelease(
  source: AptSource,
  limits: Pick<ChoiceOptions, 'stallMs' | 'signal'>,
): Promise<{ readonly sha256: string; readonly validUntil: Date | undefined }> {
  const place = source.suite.endsWith('/') ? source.suite : `dists/${source.suite}/`;
  const content = await fetchWhole(`${source.uri}/${place}InRelease`, limits);
  const validUntil = /^Valid-Until: *(.+)$/m.exec(Buffer.from(content).toString('utf8'))?.[1];
  return {
    sha256: createHash('sha256').update(content).digest('hex'),
    validUntil: validUntil === undefined ? undefined : new Date(validUntil),
  };
}

async function fetchWhole(
  url: string,
  { stallMs = STALL_MS, signal }: Pick<ChoiceOptions, 'stallMs' | 'signal'>,
): Promise<Uint8Array> {
  if (url.startsWith('file:')) {
    return await readFile(new URL(url)).catch((cause: unknown) => {
      throw new ArchiveError(url, 'no such file', { cause });
    });
  }
  const limits = [AbortSignal.timeout(stallMs), ...(signal ? [signal] : [])];
  try {
    const response = await fetch(url, { signal: AbortSignal.any(limits) });
    if (!response.ok) throw new ArchiveError(url, `HTTP ${response.status}`);
    return new Uint8Array(await response.arrayBuffer());
  } catch (cause) {
    signal?.throwIfAborted();
    if (cause instanceof ArchiveError) throw cause;
    const timeout = cause instanceof Error && cause.name === 'TimeoutError';
    throw new ArchiveError(url, timeout ? `no answer within ${stallMs / 1000} s` : 'no answer', { cause });
  }
}

function trimSlash(url: string): string {
  return url.replace(/\/+$/, '');
}
