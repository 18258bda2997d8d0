/** Packing: layers and programs become kernel and initrd. */
import { createHash } from 'node:crypto';
import { mkdir, open, readFile, writeFile } from 'node:fs/promises';
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
  const tools = await toolsSegment(options, packages);
  const node = packSystem({ name: NODE_SYSTEM, squashfs: stored(options.node, NODE_SYSTEM) });
  const segments = layers.flatMap((layer, index) =>
    packSystem({ name: payload.layers[index]?.name ?? '', squashfs: stored(layer, LAYER_FILES.root) }),
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
  const kernel = await writeParts(join(out, 'buildos-image'), [stored(packages, LAYER_FILES.kernel)], store);
  const initrd = await writeParts(join(out, 'buildos-initrd'), [tools, stage1, ...node, ...segments], store);
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
    await writeFile(join(folder, 'segment'), segment);
    return {};
  });
  return await store.read(entry, 'segment');
}

/** A file of the cache, in the place of its content. */
interface Stored {
  readonly entry: Entry;
  readonly name: string;
  readonly length: number;
}

const stored = (entry: Entry, name: string): Stored => ({ entry, name, length: fileOf(entry, name).sizeBytes });

/** Writes a file, to the disk, and tells its digest. */
async function writeParts(file: string, parts: readonly (Uint8Array | Stored)[], store: Store): Promise<ImageFile> {
  await using handle = await open(file, 'w');
  const hash = createHash('sha256');
  let sizeBytes = 0;
  const write = async (bytes: Uint8Array): Promise<void> => {
    const written = handle.writeFile(bytes);
    // Meanwhile.
    hash.update(bytes);
    sizeBytes += bytes.length;
    await written;
  };
  for (const part of parts) {
    if (part instanceof Uint8Array) await write(part);
    else for await (const piece of store.pieces(part.entry, part.name)) await write(piece);
  }
  await handle.sync();
  return { path: basename(file), sha256: hash.digest('hex'), sizeBytes };
}
