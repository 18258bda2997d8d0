/** Puts the files of packages into a root: as many tars as there are cores, each fed one package after the other. */
import { availableParallelism } from 'node:os';
import type { Connection } from '../connections/connection.ts';
import { BootstrapError } from './bootstrap-error.ts';
import type { RootPackage } from './root-packages.ts';
import { END_OF_ARCHIVE } from './tar-members.ts';

/** Unpacked before all else: the links of the merged /usr. */
export const FIRST = 'base-files';

const TIMEOUT_MS = 10 * 60_000;

const TAR: readonly string[] = [
  'tar',
  '--extract',
  '--numeric-owner',
  '--preserve-permissions',
  '--keep-directory-symlink',
  '--no-overwrite-dir',
];

/** Where to unpack. */
export interface UnpackOptions {
  /** Folder of the root, as `on` sees it. */
  readonly root: string;
  /** Whether it is empty yet. */
  readonly empty: boolean;
  readonly signal?: AbortSignal;
}

/**
 * Unpacks packages, but those that divert files of others, which dpkg has to unpack.
 *
 * @throws {BootstrapError} when nothing can be unpacked before all else
 */
export async function unpackAll(
  on: Connection,
  packages: readonly RootPackage[],
  options: UnpackOptions,
): Promise<void> {
  const { root, empty, signal } = options;
  const unpack = async (queue: Iterator<RootPackage>): Promise<void> => {
    await on.run(TAR, { cwd: root, input: archiveOf(queue), timeoutMs: TIMEOUT_MS, ...(signal && { signal }) });
  };
  const largest = packages.toSorted((a, b) => b.locked.sizeBytes - a.locked.sizeBytes);
  if (empty) {
    const first = packages.filter(({ locked }) => locked.name === FIRST);
    if (first.length === 0) {
      throw new BootstrapError(`Cannot make a root without the package ${FIRST}`, 'is the lock one of "image update"?');
    }
    await unpack(first.values());
  }
  const queue = largest.filter(({ locked }) => !empty || locked.name !== FIRST).values();
  const all = await Promise.allSettled(Array.from({ length: availableParallelism() }, () => unpack(queue)));
  for (const each of all) if (each.status === 'rejected') throw each.reason;
}

/** Packages as one archive; the next is made ready while one is written. */
async function* archiveOf(queue: Iterator<RootPackage>): AsyncGenerator<Uint8Array> {
  const take = (): Promise<Uint8Array> | undefined => {
    const { value, done } = queue.next();
    if (done === true) return undefined;
    const tar = value.readTar();
    // Who awaits it hears of a failure; it may come before that.
    tar.catch(() => undefined);
    return tar;
  };
  for (let next = take(); next !== undefined;) {
    const tar = await next;
    next = take();
    if (tar.length > 0) yield tar;
  }
  yield END_OF_ARCHIVE;
}
