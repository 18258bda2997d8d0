/** Images that were built: a folder each in `<work>/images/`, described by its `image.json`. */
import { readdir, readFile, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { z } from 'zod';
import { describeMismatch } from './files.ts';

/** What was built. */
export interface BuiltImage {
  readonly buildId: string;
  readonly folder: string;
  readonly kernel: string;
  readonly initrd: string;
  /** `buildos-manifest.json`. */
  readonly manifest: string;
  /** Kernel arguments that the definition asks for. */
  readonly kernelArgs: readonly string[];
  /** In bytes; the last three are the segments of the initrd. */
  readonly sizes: {
    readonly kernel: number;
    readonly initrd: number;
    readonly runtime: number;
    readonly stage1: number;
    readonly payload: number;
  };
}

/** No such image. */
export class NoImageError extends Error {
  override readonly name = 'NoImageError';
  readonly hint = 'build it with "buildos image build"; "buildos image list" shows what is there';
}

/** An image is not what was built. */
export class DamagedImageError extends Error {
  override readonly name = 'DamagedImageError';
  readonly hint: string;

  constructor(folder: string, file: string, reason: string) {
    super(`Cannot use the image in ${folder}: ${file} is damaged: ${reason}`);
    this.hint = `remove the folder, and build the image again: rm -r ${folder}`;
  }
}

const size = z.int().min(0);

const schema = z.object({
  buildId: z.string().regex(/^[0-9a-f]{20}$/),
  kernelArgs: z.array(z.string()),
  sizes: z.object({ kernel: size, initrd: size, runtime: size, stage1: size, payload: size }),
});

/** The text of `image.json`. */
export function formatBuiltImage(image: Pick<BuiltImage, 'buildId' | 'kernelArgs' | 'sizes'>): string {
  return `${JSON.stringify({ buildId: image.buildId, kernelArgs: image.kernelArgs, sizes: image.sizes }, undefined, 2)}\n`;
}

/** The file in an image's folder that describes it. */
export const IMAGE_JSON = 'image.json';

/**
 * Reads one image.
 *
 * @throws {NoImageError} when the folder holds none
 * @throws {DamagedImageError} when it is of another form
 */
export async function readImage(folder: string): Promise<BuiltImage> {
  let text: string;
  try {
    text = await readFile(join(folder, IMAGE_JSON), 'utf8');
  } catch (cause) {
    throw new NoImageError(`Cannot read the image in ${folder}: no ${IMAGE_JSON}`, { cause });
  }
  try {
    return {
      ...schema.parse(JSON.parse(text)),
      folder,
      kernel: join(folder, 'buildos-image'),
      initrd: join(folder, 'buildos-initrd'),
      manifest: join(folder, 'buildos-manifest.json'),
    };
  } catch (cause) {
    throw new DamagedImageError(folder, IMAGE_JSON, `not what this version writes: ${describeMismatch(cause)}`);
  }
}

/** All images below a work folder, the newest first. */
export async function listImages(work: string): Promise<readonly BuiltImage[]> {
  const folder = join(work, 'images');
  const names = await readdir(folder).catch(() => []);
  const found: { image: BuiltImage; time: number }[] = [];
  for (const name of names) {
    try {
      const image = await readImage(join(folder, name));
      found.push({ image, time: (await stat(join(image.folder, IMAGE_JSON))).mtimeMs });
    } catch (error) {
      if (!(error instanceof NoImageError) && !(error instanceof DamagedImageError)) throw error;
    }
  }
  return found.sort((a, b) => b.time - a.time).map((each) => each.image);
}

/**
 * One image by its build id, by the beginning of it, or by its folder; without one the newest.
 *
 * @throws {NoImageError} when there is none, or the beginning fits several
 */
export async function findImage(work: string, id?: string): Promise<BuiltImage> {
  if (id?.includes('/')) return await readImage(id);
  const images = await listImages(work);
  const fitting = id === undefined ? images.slice(0, 1) : images.filter((image) => image.buildId.startsWith(id));
  const [image] = fitting;
  if (image === undefined)
    throw new NoImageError(`No image${id === undefined ? '' : ` ${id}`} in ${join(work, 'images')}`);
  if (fitting.length > 1) throw new NoImageError(`"${id}" is the beginning of ${fitting.length} images`);
  return image;
}

/**
 * Hands on an image whose files are as large as they were built: what is quick to see. Their digests are compared when they
 * are read anyway, as for publishing.
 *
 * @throws {DamagedImageError}
 */
export async function checkWhole(image: BuiltImage): Promise<BuiltImage> {
  for (const name of ['kernel', 'initrd'] as const) {
    const found = (await stat(image[name]).catch(() => undefined))?.size;
    if (found === image.sizes[name]) continue;
    const reason =
      found === undefined ? 'it is not there' : `it has ${found} bytes, and had ${image.sizes[name]} when it was built`;
    throw new DamagedImageError(image.folder, basename(image[name]), reason);
  }
  return image;
}
