/**
 * The Debian root that a definition's properties are applied to: the packages of a lock, installed, in the cache as one
 * file. The key says what it was made from, to the byte; so a root that is there is the right one.
 */
import { basename, join } from 'node:path';
import { openLocal } from '../connections/local.ts';
import { makeSquashfs } from '../host/squashfs.ts';
import type { PackageLock } from '../manifests/package-lock.ts';
import { bootstrapRoot } from './bootstrap.ts';
import { fetchPackages, type FetchOptions } from './deb-cache.ts';
import { EPOCH_SECONDS } from './epoch.ts';
import { sourceDigest, SOURCES } from './source-digest.ts';
import { type Entry, fileOf, keyOf, type Store } from './store.ts';
import { PackageCache, removeOldPackages } from './unpacked-package.ts';
import type { Workshop } from './workshop.ts';

/** The one file of a root. */
export const ROOT_FILE = 'root.squashfs';

const FORM_DIGITS = 16;

/** What a root is made from. */
export interface BaseRootOptions extends Omit<FetchOptions, 'cache'> {
  readonly store: Store;
  /** Digest of the code that makes it. */
  readonly code: string;
  readonly workshop: () => Promise<Workshop>;
  readonly onStep?: (step: string) => void;
  /** Told the folder of a root whose kernel modules are indexed, in the workshop, while packages are configured. Read-only. */
  readonly onIndexed?: (folder: string) => void;
  /** Told the folder of a root that was made, in the workshop, before it is in the cache. Read-only. */
  readonly onRoot?: (folder: string) => void;
}

/** The key of the root that a lock and our code make; where the packages come from does not count. */
export function baseRootKey(lock: PackageLock, code: string): string {
  return keyOf({
    kind: 'base root 1',
    code,
    suite: lock.suite,
    requested: lock.requested,
    sources: lock.sources.map(({ suite, components, uri }) => [uri, suite, components]),
    packages: lock.packages.map(({ name, version, architecture, sha256 }) => [name, version, architecture, sha256]),
  });
}

/**
 * Finds the root in the cache, or makes it.
 *
 * @throws {FetchError} when a package cannot be had
 * @throws {BootstrapError} when packages cannot be installed; the cache is as before then
 */
export async function findOrMakeBaseRoot(
  options: BaseRootOptions,
): Promise<{ readonly entry: Entry; readonly cached: boolean }> {
  const { store, lock, code } = options;
  return await store.findOrMake('roots', baseRootKey(lock, code), async (out) => {
    options.onStep?.('fetch packages');
    const sinceMs = Date.now();
    const folder = join(store.folder, 'debs');
    const signal = options.signal ? { signal: options.signal } : {};
    await using packages = new PackageCache(openLocal(), { folder, form: await packageForm(store), ...signal });
    const unpacked = unpackInTurn(packages);
    const debs = await fetchPackages({ ...options, cache: store.folder, onFetched: unpacked.add });
    unpacked.stop();
    const workshop = await options.workshop();
    const root = join(workshop.folder, 'bootstrap');
    await bootstrapRoot(workshop, {
      lock,
      debs,
      root,
      packages,
      stages: { store, code, lock },
      ...(options.onStep && { onStep: options.onStep }),
      ...(options.onIndexed && { onIndexed: options.onIndexed }),
      ...signal,
    });
    await removeOldPackages(folder, { sinceMs });
    // By another name: what is mounted on it there is not seen by who packs it here.
    const shown = join(workshop.folder, 'base');
    await workshop.on.run(['sh', '-c', 'mkdir "$1" && mount --bind -o ro "$0" "$1"', root, shown]);
    options.onRoot?.(shown);
    options.onStep?.('keep root');
    await makeSquashfs(workshop.on, {
      folder: root,
      file: join(out, ROOT_FILE),
      timeSeconds: EPOCH_SECONDS,
      compression: 'lz4',
      nice: true,
      ...signal,
    });
    return {};
  });
}

/** The name of what our code unpacks packages to. */
async function packageForm(store: Store): Promise<string> {
  const source = join(SOURCES, 'image/package-content.ts');
  return (await sourceDigest([source], { cache: store.folder })).slice(0, FORM_DIGITS);
}

/**
 * Unpacks packages one after the other while others are fetched: the processor waits then. What is left in the end, and what
 * fails here, is for who makes a root of them.
 */
function unpackInTurn(packages: PackageCache): { readonly add: (deb: string) => void; readonly stop: () => void } {
  let last = Promise.resolve<unknown>(undefined);
  let isOver = false;
  return {
    add: (deb) => {
      last = last.then(() => (isOver ? undefined : packages.get(basename(deb)).open())).catch(() => undefined);
    },
    stop: () => {
      isOver = true;
    },
  };
}

/** Mounts a root in the workshop, read-only; gone with the workshop. */
export async function mountBaseRoot(workshop: Workshop, entry: Entry): Promise<string> {
  const at = join(workshop.folder, 'base');
  const script = 'mkdir -p "$1" && mount -t squashfs -o loop,ro "$0" "$1"';
  await workshop.on.run(['sh', '-c', script, fileOf(entry, ROOT_FILE).path, at]);
  return at;
}
