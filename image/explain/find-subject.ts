/**
 * What `image diff` and `image explain` are asked about: a build id, a folder of a built image, a published version, the
 * folder that versions are published into, a manifest, or a lock. Whatever it is, here it gets one form.
 */
import { readFile, realpath, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { type ImageManifest, parseImageManifest } from '../../manifests/image-manifest.ts';
import { type PackageLock, parsePackageLock } from '../../manifests/package-lock.ts';
import { findImage, IMAGE_JSON, readImage } from '../built-image.ts';
import { PUBLICATION_JSON, parsePublication } from '../publish/publication.ts';
import { PUBLISHED } from '../publish/published-version.ts';
import { type Contents, CONTENTS_JSON, parseContents } from '../trace.ts';

/** A package by name and version. */
export interface SubjectPackage {
  readonly name: string;
  readonly version: string;
  readonly sha256?: string;
}

/** What is known of the subject. */
export interface Subject {
  /** For people: the build id, or the name of the file. */
  readonly name: string;
  /** The folder or file that it is read from. */
  readonly at: string;
  readonly packages: readonly SubjectPackage[];
  /** Absent for a lock. */
  readonly manifest?: ImageManifest;
  /** Absent when only packages are known. */
  readonly image?: SubjectImage;
}

/** An image whose bits are there. */
export interface SubjectImage {
  readonly kernel: string;
  readonly initrd: string;
  /** Arguments that belong to the image; absent when nobody says. */
  readonly kernelArgs?: readonly string[];
  /** Absent when the image was made without it, or published without it and built elsewhere. */
  readonly contents?: Contents;
}

/** Something was asked for that is no image, no version, no manifest and no lock. */
export class SubjectError extends Error {
  override readonly name = 'SubjectError';
  readonly hint: string =
    'give a build id (see "buildos image list"), the folder of an image, or a folder that "image publish" wrote; a path in an image comes second: buildos image explain IMAGE /usr/bin/less';
}

/**
 * Finds what is asked for.
 *
 * @param asked - a path, or a build id or the beginning of it; `undefined`: the newest image in `work`
 * @throws {NoImageError | SubjectError | ManifestError} when there is no such thing, or it cannot be read
 */
export async function findSubject(asked: string | undefined, options: { readonly work: string }): Promise<Subject> {
  const { work } = options;
  const found = asked === undefined ? undefined : await stat(asked).catch(() => undefined);
  if (asked === undefined || found === undefined) {
    if (asked !== undefined && !/^[0-9a-f]{1,20}$/.test(asked)) {
      throw new SubjectError(`Cannot find the image "${asked}": no such file, and not the beginning of a build id`);
    }
    return await readFolder((await findImage(work, asked)).folder, work);
  }
  if (!found.isDirectory()) return await readList(asked);
  for (const folder of [asked, join(asked, 'current')]) {
    if (await exists(join(folder, PUBLISHED.initrd))) return await readFolder(folder, work);
  }
  throw new SubjectError(`Cannot find an image in ${asked}: it has no ${PUBLISHED.initrd}`);
}

async function readFolder(folder: string, work: string): Promise<Subject> {
  const file = join(folder, PUBLISHED.manifest);
  const manifest = parseImageManifest(await readFile(file, 'utf8'), { name: file });
  const { buildId } = manifest;
  const kernelArgs = await readKernelArgs(folder, buildId);
  const contents =
    (await readContents(join(folder, CONTENTS_JSON))) ??
    (await readContents(join(work, 'images', buildId, CONTENTS_JSON)));
  return {
    name: buildId,
    at: folder,
    packages: manifest.packages,
    manifest,
    image: {
      kernel: join(folder, PUBLISHED.kernel),
      initrd: join(folder, PUBLISHED.initrd),
      ...(kernelArgs !== undefined && { kernelArgs }),
      ...(contents !== undefined && { contents }),
    },
  };
}

/** Of a built image they are in `image.json`; of a published one in the publication, two folders above. */
async function readKernelArgs(folder: string, buildId: string): Promise<readonly string[] | undefined> {
  if (await exists(join(folder, IMAGE_JSON))) return (await readImage(folder)).kernelArgs;
  const into = dirname(dirname(await realpath(folder)));
  const text = await readFile(join(into, PUBLICATION_JSON), 'utf8').catch(() => undefined);
  if (text === undefined) return undefined;
  return parsePublication(text).versions.find((version) => version.buildId === buildId)?.kernelArgs;
}

/** A record that another version of ours wrote is as good as none. */
async function readContents(file: string): Promise<Contents | undefined> {
  const text = await readFile(file, 'utf8').catch(() => undefined);
  if (text === undefined) return undefined;
  try {
    return parseContents(text);
  } catch {
    return undefined;
  }
}

/** A manifest or a lock by itself. */
async function readList(file: string): Promise<Subject> {
  const text = await readFile(file, 'utf8');
  const isLock = /"requested"\s*:/.test(text);
  if (!isLock && !/"buildId"\s*:/.test(text)) throw new SubjectError(`Cannot read ${file}: no manifest and no lock`);
  const read: ImageManifest | PackageLock = isLock
    ? parsePackageLock(text, { name: file })
    : parseImageManifest(text, { name: file });
  return {
    name: 'buildId' in read ? read.buildId : file,
    at: file,
    packages: read.packages,
    ...('buildId' in read && { manifest: read }),
  };
}

async function exists(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined)) !== undefined;
}
