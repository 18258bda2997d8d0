/**
 * Which packages an image gets: those of a lock file, or what the archives offer today.
 *
 * Without a lock the choice is apt's, made anew whenever an archive has published something; it is kept with the digests
 * of the archives' `InRelease` files, so that nothing is asked twice. When no archive answers, the choice that was made
 * last may do. With a lock no archive is asked at all.
 */
import { mkdir, mkdtempDisposable, readFile, rename, utimes, writeFile } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { z } from 'zod';
import type { Connection } from '../connections/connection.ts';
import { type AptSource, resolvePackages } from '../host/apt-resolve.ts';
import { ManifestError } from '../manifests/manifest.ts';
import { formatPackageLock, parsePackageLock, type PackageLock } from '../manifests/package-lock.ts';
import { ArchiveError, lookAtInRelease, type Release } from './archive-index.ts';
import { keyOf, partSuffix } from './store.ts';
import { makeFolders } from './work-folder.ts';

/** The architecture of images. */
const ARCHITECTURE = 'amd64';

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
  /** Default `must-answer`. */
  readonly archives?: Archives;
  readonly onWarning?: (line: string) => void;
  /** How long to wait for an archive that does not answer; default 30 s. */
  readonly stallMs?: number;
  readonly signal?: AbortSignal;
}

/**
 * `must-answer`: the choice is that of now, or there is none; `ask`: when they do not answer, that of the last time will do;
 * `offline`: nobody is asked, that of the last time it is.
 */
export type Archives = 'must-answer' | 'ask' | 'offline';

/** Offline, and nothing was ever chosen here for these packages. */
export class NoChoiceError extends Error {
  override readonly name = 'NoChoiceError';
  readonly hint = 'build once without --offline; or from a lock, which "buildos image update" makes';
}

/** A lock that is not one for this host. */
export class LockMismatchError extends Error {
  override readonly name = 'LockMismatchError';
  readonly hint: string;

  constructor(reason: string, file: string, options?: ErrorOptions) {
    super(`Cannot build with the lock ${file}: ${reason}`, options);
    this.hint = 'renew it with "buildos image update", or build without it: --no-lock';
  }
}

/** There is no place for a lock. */
export class LockWriteError extends Error {
  override readonly name = 'LockWriteError';
  readonly hint = '--lock names another file';
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
  const question = { format: 1, suite: options.suite, sources: options.sources, requested, keyring: options.keyring };
  const choices = join(options.cache, 'choices');
  const lastFile = join(choices, `${keyOf(question)}.last`);
  const fileFor = (releases: readonly string[]): string => join(choices, `${keyOf([question, releases])}.json`);
  if (options.archives === 'offline') return await chosenLast(choices, lastFile, options, 'nobody was asked');
  let releases: readonly Release[];
  try {
    releases = await Promise.all(options.sources.map((source) => lookAtInRelease(source, options)));
  } catch (error) {
    if (!(error instanceof ArchiveError) || !error.unreachable || options.archives !== 'ask') throw error;
    return await chosenLast(choices, lastFile, options, error);
  }
  // A choice from an archive that is past its date by now is none: apt is asked again, and says what is wrong.
  const expired = releases.some(({ validUntil }) => validUntil !== undefined && validUntil < new Date());
  const fileKnown = fileFor(releases.map(({ sha256 }) => sha256));
  const known = await readLock(fileKnown).catch(() => undefined);
  if (known !== undefined && !(expired && options.checkValidUntil !== false)) {
    // For "image prune": it is used.
    await utimes(fileKnown, new Date(), new Date());
    await remember(lastFile, fileKnown, releases);
    return known;
  }
  const lock = await askApt(on, requested, options);
  const file = fileFor(lock.sources.map(({ releaseSha256 }) => releaseSha256));
  await writeLock(file, lock);
  await remember(lastFile, file, releases);
  return lock;
}

/** What apt would install of the archives as they are now. */
async function askApt(on: Connection, requested: readonly string[], options: ChoiceOptions): Promise<PackageLock> {
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
  return {
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
}

/** What was chosen last for a question: its file, when the archives were asked, and how long they said that they are valid. */
interface Last {
  readonly choice: string;
  readonly asked: string;
  readonly validUntil?: string;
}

const last: z.ZodType<Last> = z.object({
  choice: z.string().regex(/^[0-9a-f]{40}\.json$/),
  asked: z.iso.datetime(),
  validUntil: z.exactOptional(z.iso.datetime()),
});

/** Writes down what was chosen. @param releases - of the archives that were asked */
async function remember(lastFile: string, file: string, releases: readonly Release[]): Promise<void> {
  const untils = releases.flatMap(({ validUntil }) => (validUntil === undefined ? [] : [validUntil.getTime()]));
  const content: Last = {
    choice: basename(file),
    asked: new Date().toISOString(),
    ...(untils.length > 0 && { validUntil: new Date(Math.min(...untils)).toISOString() }),
  };
  await replace(lastFile, `${JSON.stringify(content)}\n`);
}

/** What was chosen last, with a warning that says how old it is. @throws what `why` is, or else {@link NoChoiceError} */
async function chosenLast(
  choices: string,
  file: string,
  { suite, onWarning }: ChoiceOptions,
  why: ArchiveError | string,
): Promise<PackageLock> {
  let found: { readonly lock: PackageLock; readonly last: Last };
  try {
    const of = last.parse(JSON.parse(await readFile(file, 'utf8')));
    found = { last: of, lock: await readLock(join(choices, of.choice)) };
  } catch {
    if (typeof why !== 'string') throw why;
    throw new NoChoiceError(
      `Cannot choose packages offline: none were chosen here before for these packages of ${suite}`,
    );
  }
  const { asked, validUntil } = found.last;
  const reason = typeof why === 'string' ? why : `${why.reason} from ${why.url}`;
  onWarning?.(
    `warning: ${reason}; going on with the packages that were chosen ${describeAge(Date.now() - Date.parse(asked))} ago, on ${dayOf(asked)}`,
  );
  if (validUntil !== undefined && Date.parse(validUntil) < Date.now()) {
    onWarning?.(
      `warning: the archives said themselves that this is good until ${dayOf(validUntil)}: security updates may be missing`,
    );
  }
  return found.lock;
}

const dayOf = (time: string): string => `${time.slice(0, 16).replace('T', ' ')} UTC`;

/** Such as `3 days`. */
function describeAge(ms: number): string {
  const minutes = Math.max(0, Math.round(ms / 60_000));
  if (minutes < 120) return `${minutes} minutes`;
  return minutes < 48 * 60 ? `${Math.round(minutes / 60)} hours` : `${Math.round(minutes / 1440)} days`;
}

/** @throws {ManifestError} when it is not a lock; an error of the file system, such as ENOENT */
export async function readLock(file: string): Promise<PackageLock> {
  const text = await readFile(file, 'utf8').catch((error: unknown) => {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') throw error;
    throw new LockMismatchError('it cannot be read', file, { cause: error });
  });
  try {
    return parsePackageLock(text, { name: file });
  } catch (error) {
    if (!(error instanceof ManifestError)) throw error;
    const hint = 'take it from your version control again; or remove it, and "buildos image update" makes a new one';
    throw new ManifestError(error.reason, error, { hint });
  }
}

/** Replaces the file in one step. @throws {LockWriteError} */
export async function writeLock(file: string, lock: PackageLock): Promise<void> {
  try {
    await replace(file, formatPackageLock(lock));
  } catch (cause) {
    throw new LockWriteError(`Cannot write the lock ${file}; it is as it was`, { cause });
  }
}

async function replace(file: string, content: string): Promise<void> {
  await makeFolders(resolve(dirname(file)));
  const part = `${file}${partSuffix()}`;
  await writeFile(part, content);
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

function trimSlash(url: string): string {
  return url.replace(/\/+$/, '');
}
