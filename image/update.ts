/** Renewing a lock: the packages that a definition asks for, chosen from the archives as they are now. */
import { join, resolve } from 'node:path';
import type { Connection } from '../connections/connection.ts';
import type { AptSource } from '../host/apt-resolve.ts';
import { compareLocks, type LockChanges } from '../manifests/package-lock.ts';
import { hostAttrs } from '../properties/host-definition.ts';
import { bundlePrograms, type ImageDefinition } from './build-inputs.ts';
import { announceBuild } from './in-use.ts';
import { chooseFromArchives, debianArchives, readLock, writeLock } from './lock.ts';
import { Store } from './store.ts';

/** What to renew. */
export interface UpdateOptions {
  readonly definition: ImageDefinition;
  /** The lock; made when absent. */
  readonly file: string;
  readonly work: string;
  readonly mirror?: string;
  /** Other archives than Debian's. */
  readonly sources?: readonly AptSource[];
  readonly keyring?: string;
  /** Write nothing. */
  readonly dryRun: boolean;
}

/**
 * Renews a lock.
 *
 * @returns what changes, and how many packages there are
 * @throws {ArchiveError | ResolveError} when an archive cannot be read; the lock is as before then
 * @throws {ManifestError} when the old lock cannot be read
 */
export async function updateLock(
  on: Connection,
  options: UpdateOptions,
): Promise<{ readonly changes: LockChanges; readonly packages: number }> {
  await using _mark = await announceBuild(resolve(options.work));
  const store = new Store(join(resolve(options.work), 'cache'));
  const definition = options.definition({ programs: await bundlePrograms(store), note: '' });
  const { suite } = definition.base;
  const after = await chooseFromArchives(on, {
    suite,
    packages: hostAttrs(definition).packages,
    sources:
      options.sources ?? debianArchives({ suite, ...(options.mirror !== undefined && { mirror: options.mirror }) }),
    cache: store.folder,
    ...(options.keyring !== undefined && { keyring: options.keyring }),
  });
  const before = await readLock(options.file).catch((error: unknown) => {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return { ...after, packages: [] };
    throw error;
  });
  if (!options.dryRun) await writeLock(options.file, after);
  return { changes: compareLocks(before, after), packages: after.packages.length };
}
