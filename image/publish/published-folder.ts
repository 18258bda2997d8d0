/**
 * A folder that hosts boot from, as those who change it find it: held by one process at a time, with what it was
 * told last.
 */
import { readFile, readlink, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { lockPath } from '../../host/flock.ts';
import { describeMismatch } from '../files.ts';
import { PUBLICATION_JSON, type Publication, parsePublication } from './publication.ts';
import { PublishError } from './publish-error.ts';

/** Locked while something is written. */
const LOCK = '.buildos-lock';

/** Publishing an ISO image, too, takes less than half of this. */
const LOCK_SECONDS = 120;

/** A folder that something is published in, held until it is disposed. */
export interface PublishedFolder extends AsyncDisposable {
  readonly publication: Publication;
  /** Build id of the version in force. */
  readonly current: string;
}

/**
 * Holds a folder that something is published in.
 *
 * @param verb - what is about to be done, for the error: `prune`
 * @throws {PublishError} when nothing is published there, or another process has it for too long
 */
export async function openPublished(into: string, verb: string): Promise<PublishedFolder> {
  if ((await stat(into).catch(() => undefined))?.isDirectory() !== true) throw nothingThere(verb, into);
  await using held = new AsyncDisposableStack();
  held.use(await lockFolder(into));
  const publication = await readPublication(into);
  const current = basename(await readlink(join(into, 'current')).catch(() => ''));
  if (publication === undefined || current === '') throw nothingThere(verb, into);
  const lock = held.move();
  return { publication, current, [Symbol.asyncDispose]: async () => await lock.disposeAsync() };
}

/**
 * Holds the folder, which may be empty yet.
 *
 * @param onWait - told when another process has it
 * @throws {PublishError} when another process has it for too long
 */
export async function lockFolder(into: string, onWait?: (line: string) => void): Promise<AsyncDisposable> {
  const file = join(into, LOCK);
  const free = await lockPath(file, 1);
  if (free !== undefined) return free;
  onWait?.(`waiting for another process that publishes into ${into}, for ${LOCK_SECONDS} s at most`);
  const held = await lockPath(file, LOCK_SECONDS);
  if (held !== undefined) return held;
  throw new PublishError(
    `Cannot write to ${into}: another process has been publishing there for ${LOCK_SECONDS} s`,
    `try again later; "fuser ${join(into, LOCK)}" names it`,
  );
}

/** What the folder was told last; undefined where nothing was published. @throws {PublishError} when it cannot be read */
export async function readPublication(into: string): Promise<Publication | undefined> {
  const file = join(into, PUBLICATION_JSON);
  let content: string;
  try {
    content = await readFile(file, 'utf8');
  } catch {
    return undefined;
  }
  try {
    return parsePublication(content);
  } catch (cause) {
    throw new PublishError(
      `Cannot read ${file}: not what this version writes: ${describeMismatch(cause)}`,
      'remove it, and publish again what hosts are to boot; versions that it knew can be rolled back to once they are published again',
    );
  }
}

/** Says what stands in the way of writing, which the system tells by a code. */
export async function explainWriting<T>(into: string, write: () => Promise<T>): Promise<T> {
  try {
    return await write();
  } catch (cause) {
    if (!(cause instanceof Error && 'code' in cause && 'path' in cause)) throw cause;
    const path = 'dest' in cause && typeof cause.dest === 'string' ? cause.dest : String(cause.path);
    const known: Readonly<Record<string, readonly [string, string]>> = {
      EISDIR: ['there is a folder of that name', `it is not ours: move it away, or publish into another folder`],
      ENOTDIR: ['a part of its path is a file', `it is not ours: move it away, or publish into another folder`],
      EACCES: ['this user may not', `who owns ${into}?`],
      EROFS: ['it can only be read', 'publish into another folder'],
      ENOSPC: ['no space is left', `"buildos image prune --into ${into}" removes old versions`],
      EDQUOT: ['the quota is used up', `"buildos image prune --into ${into}" removes old versions`],
    };
    const [reason, hint] = known[String(cause.code)] ?? [];
    if (reason === undefined || hint === undefined) throw cause;
    throw new PublishError(`Cannot write ${path}: ${reason}; hosts boot what they did before`, hint, { cause });
  }
}

function nothingThere(verb: string, into: string): PublishError {
  return new PublishError(
    `Cannot ${verb} ${into}: nothing is published there`,
    'is it the folder that "image publish --into" was given?',
  );
}
