/** The folder of an image: written beside its place, complete there or not at all. */
import { chmod, mkdir, mkdtemp, open, readFile, rename, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { formatImageManifest } from '../manifests/image-manifest.ts';
import { OUTCOMES_SCHEMA, type PropertyOutcome } from './apply-properties.ts';
import type { Inputs } from './build-inputs.ts';
import { manifestOf } from './build-manifest.ts';
import { type BuiltImage, formatBuiltImage, IMAGE_JSON, readImage } from './built-image.ts';
import { packImage } from './pack.ts';
import type { Entry, Store } from './store.ts';
import { writeContents } from './trace.ts';
import { removeLeftOver } from './workshop.ts';

const MANIFEST = 'buildos-manifest.json';

/** What the properties did, for who builds an image that is there already. */
const OUTCOMES = 'properties.json';

/** What an image is put together from. */
export interface ImageParts {
  readonly buildId: string;
  /** The lowest first. */
  readonly layers: readonly Entry[];
  readonly nodeSystem: Entry;
  readonly properties: readonly PropertyOutcome[];
}

/** Packs an image, into `<work>/images/<build id>`. */
export async function writeImage(
  inputs: Inputs,
  parts: ImageParts,
  at: { readonly work: string; readonly store: Store },
): Promise<BuiltImage> {
  const { buildId, layers, nodeSystem, properties } = parts;
  const parent = join(at.work, 'images');
  const scratch = join(at.work, 'tmp');
  for (const folder of [parent, scratch]) await mkdir(folder, { recursive: true });
  await removeLeftOver(scratch);
  // Named like a workshop, so that the next build removes it if this one is killed.
  const out = await mkdtemp(join(scratch, `build-${process.pid}-`));
  try {
    const init = inputs.programs['init.mjs'];
    const packed = await packImage({ layers, out, store: at.store, buildId, node: nodeSystem, init });
    await writeFile(join(out, MANIFEST), formatImageManifest(manifestOf(inputs, buildId, packed)));
    await writeContents(out, layers);
    await writeFile(join(out, OUTCOMES), `${JSON.stringify(properties)}\n`);
    const { kernelOptions } = inputs.attrs;
    await writeFile(
      join(out, IMAGE_JSON),
      formatBuiltImage({ buildId, kernelArgs: kernelOptions, sizes: packed.sizes }),
    );
    await chmod(out, 0o755);
    return await keep(out, join(parent, buildId));
  } finally {
    await rm(out, { recursive: true, force: true });
  }
}

/** An image that is there, and what its properties did when they were applied. */
export interface BuildOutcome {
  readonly image: BuiltImage;
  readonly properties: readonly PropertyOutcome[];
}

/** The image that was built from the same inputs before, if all of it is there; it is the newest again then. */
export async function findResult(work: string, buildId: string): Promise<BuildOutcome | undefined> {
  const folder = join(work, 'images', buildId);
  const image = await findBuilt(folder);
  if (image === undefined) return undefined;
  return { image, properties: OUTCOMES_SCHEMA.parse(JSON.parse(await readFile(join(folder, OUTCOMES), 'utf8'))) };
}

async function findBuilt(folder: string): Promise<BuiltImage | undefined> {
  try {
    const image = await readImage(folder);
    const [kernel, initrd] = [await stat(image.kernel), await stat(image.initrd)];
    if (kernel.size !== image.sizes.kernel || initrd.size !== image.sizes.initrd) return undefined;
    await stat(join(folder, OUTCOMES));
    await utimes(join(folder, IMAGE_JSON), new Date(), new Date());
    return image;
  } catch {
    return undefined;
  }
}

/** Moves the results to their place: the image is there complete or not at all. */
async function keep(out: string, folder: string): Promise<BuiltImage> {
  await syncFolder(out);
  const other = await findBuilt(folder);
  // A build of the same inputs was quicker, and its image is as good.
  if (other !== undefined) return other;
  await rm(folder, { recursive: true, force: true });
  await rename(out, folder);
  await syncFolder(dirname(folder));
  return await readImage(folder);
}

async function syncFolder(path: string): Promise<void> {
  await using handle = await open(path);
  await handle.sync();
}
