/** Packing: layers and programs become kernel and initrd. */
import { createHash } from 'node:crypto';
import { type FileHandle, mkdir, open, readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { ImageFile } from '../manifests/image-manifest.ts';
import type { BuiltImage } from './built-image.ts';
import type { Bundle } from './bundle.ts';
import { packStage1, packSystem, packTools, type Payload } from './initrd.ts';
import { LAYER_FILES } from './layers.ts';
import { NODE_LIBRARIES, NODE_LOADER, NODE_SYSTEM } from './node-runtime.ts';
import { SOURCES } from './source-digest.ts';
import { type Entry, fileOf, keyOf, type Store } from './store.ts';

/** What runs before init's bundle, and when that cannot: our sources that nothing imports. */
export const FIRST_STEPS = 'init/first-steps.sh';
export const RESCUE = 'init/rescue.sh';

/** What to pack. */
export interface PackOptions {
  /** The lowest first, which has kernel and runtime besides; see layers.ts. */
  readonly layers: readonly Entry[];
  /** The folder for the results. */
  readonly out: string;
  readonly store: Store;
  readonly buildId: string;
  /** Its file system; see `findOrPackNode()`. */
  readonly node: Entry;
  readonly init: Bundle;
}

/** What was packed; sizes in bytes. */
export interface Packed {
  readonly kernelRelease: string;
  /** Before compression, without Node. */
  readonly rootfsBytes: number;
  /** What is published of it, with digests. */
  readonly files: readonly ImageFile[];
  readonly sizes: BuiltImage['sizes'];
}

/**
 * Writes `buildos-image` and `buildos-initrd` into `out`.
 *
 * @throws {DamagedEntryError} when a layer in the cache is not what it was
 */
export async function packImage(options: PackOptions): Promise<Packed> {
  const { layers, out, store } = options;
  const [packages] = layers;
  if (packages === undefined) throw new RangeError('Cannot pack an image without layers');
  await mkdir(out, { recursive: true });
  const payload: Payload = {
    buildId: options.buildId,
    layers: layers.map((layer, index) => {
      const { sha256, sizeBytes: size } = fileOf(layer, LAYER_FILES.root);
      return { name: `layer-${index + 1}.squashfs`, size, sha256 };
    }),
  };
  const [kernelContent, tools, nodeSystem, ...systems] = await Promise.all([
    store.read(packages, LAYER_FILES.kernel),
    toolsSegment(options, packages),
    store.read(options.node, NODE_SYSTEM),
    ...layers.map((layer) => store.read(layer, LAYER_FILES.root)),
  ]);
  const node = packSystem({ name: NODE_SYSTEM, squashfs: nodeSystem });
  const segments = systems.flatMap((squashfs, index) =>
    packSystem({ name: payload.layers[index]?.name ?? '', squashfs }),
  );
  const names = (packages.facts['modules'] ?? '').split(' ').filter(Boolean);
  const stage1 = await packStage1({
    firstSteps: await readFile(join(SOURCES, FIRST_STEPS)),
    rescue: await readFile(join(SOURCES, RESCUE)),
    init: await readFile(options.init.file),
    payload,
    modules: await Promise.all(
      names.map(async (name) => ({ name, content: await store.read(packages, LAYER_FILES.module(name)) })),
    ),
  });
  const [kernel, initrd] = await Promise.all([
    writeParts(join(out, 'buildos-image'), [kernelContent]),
    writeParts(join(out, 'buildos-initrd'), [tools, stage1, ...node, ...segments]),
  ]);
  const runtime = [tools, ...node].reduce((sum, { length }) => sum + length, 0);
  return {
    kernelRelease: packages.facts['kernelRelease'] ?? '',
    rootfsBytes: layers.reduce((sum, { facts }) => sum + Number(facts['rootBytes'] ?? 0), 0),
    files: [kernel, initrd],
    sizes: {
      kernel: kernel.sizeBytes,
      initrd: initrd.sizeBytes,
      runtime,
      stage1: stage1.length,
      payload: initrd.sizeBytes - runtime - stage1.length,
    },
  };
}

/** The segment of tools changes with libraries only. */
async function toolsSegment({ store }: PackOptions, packages: Entry): Promise<Uint8Array> {
  const names = [LAYER_FILES.busybox, LAYER_FILES.loader, ...NODE_LIBRARIES.map(LAYER_FILES.library)];
  const digests = names.map((name) => fileOf(packages, name).sha256);
  const key = keyOf(['tools 1', process.versions.zstd, digests]);
  const { entry } = await store.findOrMake('runtime', key, async (folder) => {
    const libraries = new Map<string, Uint8Array>();
    for (const name of NODE_LIBRARIES) libraries.set(name, await store.read(packages, LAYER_FILES.library(name)));
    const segment = await packTools({
      busybox: await store.read(packages, LAYER_FILES.busybox),
      loader: { path: NODE_LOADER, content: await store.read(packages, LAYER_FILES.loader) },
      libraries,
    });
    await writeParts(join(folder, 'segment'), [segment]);
    return {};
  });
  return await store.read(entry, 'segment');
}

/** Writes a file in pieces, to the disk, and tells its digest, which is reckoned meanwhile. */
async function writeParts(file: string, parts: readonly Uint8Array[]): Promise<ImageFile> {
  await using handle = await open(file, 'w');
  const written = writeAll(handle, parts);
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part);
  const sizeBytes = await written;
  return { path: basename(file), sha256: hash.digest('hex'), sizeBytes };
}

async function writeAll(handle: FileHandle, parts: readonly Uint8Array[]): Promise<number> {
  const sizeBytes = parts.reduce((sum, { length }) => sum + length, 0);
  // The kernel takes 2 GiB at once (write(2)); that a disk is full the write after tells.
  for (let at = 0; at < sizeBytes;) at += (await handle.writev(restOf(parts, at))).bytesWritten;
  await handle.sync();
  return sizeBytes;
}

/** What comes after so many bytes. */
function restOf(parts: readonly Uint8Array[], after: number): Uint8Array[] {
  const rest: Uint8Array[] = [];
  let at = 0;
  for (const part of parts) {
    if (at + part.length > after) rest.push(part.subarray(Math.max(0, after - at)));
    at += part.length;
  }
  return rest;
}
