/**
 * The first stage of a root in the cache: a Debian system that most roots of a suite begin with, installed, as one tar.
 *
 * The key is what it was made from: packages, archives, our code. So the files are those of a stage made anew.
 */
import { createReadStream, createWriteStream } from 'node:fs';
import { join } from 'node:path';
import { pipeline } from 'node:stream';
import { pipeline as flow } from 'node:stream/promises';
import { constants, createZstdCompress, createZstdDecompress } from 'node:zlib';
import type { PackageLock } from '../manifests/package-lock.ts';
import type { RootPackage } from './root-packages.ts';
import { keyOf, type Store } from './store.ts';
import type { Workshop } from './workshop.ts';

const FILE = 'stage.tar.zst';
const TIMEOUT_MS = 10 * 60_000;

const CHUNK_BYTES = 2 ** 18;

const ATTRIBUTES: readonly string[] = ['--numeric-owner', '--xattrs', '--xattrs-include=*'];

/** Where first stages are kept. */
export interface StageCache {
  readonly store: Store;
  /** Digest of the code that makes them. */
  readonly code: string;
  readonly lock: PackageLock;
}

/**
 * Puts the stage into an empty folder.
 *
 * @returns whether there is one
 * @throws {DamagedEntryError} when it has changed since it was made
 */
export async function restoreStage(
  { on }: Workshop,
  root: string,
  stage: { readonly cache: StageCache; readonly packages: readonly RootPackage[]; readonly signal?: AbortSignal },
): Promise<boolean> {
  const { cache, packages, signal } = stage;
  const entry = await cache.store.find('stages', stageKey(cache, packages));
  if (entry === undefined) return false;
  const packed = createReadStream(await cache.store.check(entry, FILE), { highWaterMark: CHUNK_BYTES });
  // Unpacked while it is written. Who reads the last of the two hears what went wrong with the first.
  const tar = pipeline(packed, createZstdDecompress({ chunkSize: CHUNK_BYTES }), () => undefined);
  await on.run(['tar', '--extract', '--preserve-permissions', ...ATTRIBUTES], {
    cwd: root,
    input: tar,
    timeoutMs: TIMEOUT_MS,
    ...(signal && { signal }),
  });
  return true;
}

/**
 * Copies a root in which the stage is installed, and puts that into the cache.
 *
 * @returns when it is copied; `kept` settles when it is in the cache
 */
export async function keepStage(
  { on, seen }: Workshop,
  root: string,
  stage: { readonly cache: StageCache; readonly packages: readonly RootPackage[]; readonly signal?: AbortSignal },
): Promise<{ readonly kept: Promise<void> }> {
  const { cache, packages, signal } = stage;
  const copy = `${root}.stage`;
  await on.run(['tar', '--create', `--file=${copy}`, '--format=posix', '--sort=name', ...ATTRIBUTES, '.'], {
    cwd: root,
    timeoutMs: TIMEOUT_MS,
    ...(signal && { signal }),
  });
  const keep = async (): Promise<void> => {
    await cache.store.findOrMake('stages', stageKey(cache, packages), async (out) => {
      await flow(
        createReadStream(seen(copy), { highWaterMark: CHUNK_BYTES }),
        createZstdCompress({ params: { [constants.ZSTD_c_compressionLevel]: 1 }, chunkSize: CHUNK_BYTES }),
        createWriteStream(join(out, FILE)),
      );
      return {};
    });
    await on.run(['rm', copy]);
  };
  const kept = keep();
  // Who awaits it hears of a failure; it may come before that.
  kept.catch(() => undefined);
  return { kept };
}

function stageKey({ code, lock }: StageCache, packages: readonly RootPackage[]): string {
  return keyOf({
    kind: 'first stage 1',
    code,
    suite: lock.suite,
    sources: lock.sources.map(({ suite, components, uri }) => [uri, suite, components]),
    packages: packages.map(({ locked: { name, version, architecture, sha256 } }) => [
      name,
      version,
      architecture,
      sha256,
    ]),
  });
}
