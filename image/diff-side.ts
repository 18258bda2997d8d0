/** One side of `image diff`, read from what is there: all of an image, or the packages of a lock or manifest. */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import type { DiffFile, DiffSide } from './diff.ts';
import type { Subject } from './explain/find-subject.ts';
import type { ImageEntry } from './explain/image-entry.ts';
import { type ImagePart, KnownParts, type MergedRoot, mergeLayers, readParts } from './explain/image-parts.ts';
import { appliedProperties } from './explain/applied.ts';
import { packageBytes } from './explain/account.ts';
import { Origins } from './explain/origins.ts';

/**
 * Reads one side.
 *
 * @param read - what was read of the other side
 * @throws {ImageFormatError} when the image is damaged
 */
export async function readSide(subject: Subject, read: KnownParts = new KnownParts()): Promise<DiffSide> {
  const { manifest, image } = subject;
  const known = {
    name: subject.name,
    packages: subject.packages,
    ...(manifest !== undefined && { kernelVersion: manifest.kernelVersion, nodeVersion: manifest.node.version }),
  };
  if (image === undefined || manifest === undefined) return known;
  const parts = await readParts(image, read);
  const root = mergeLayers(parts);
  const properties = appliedProperties(root);
  const origins =
    image.contents === undefined
      ? undefined
      : new Origins({
          contents: image.contents,
          kernelVersion: manifest.kernelVersion,
          nodeVersion: manifest.node.version,
        });
  return {
    ...known,
    ...(image.kernelArgs !== undefined && { kernelArgs: image.kernelArgs }),
    ...(properties !== undefined && { properties }),
    files: filesOf(parts, root),
    parts: parts.map(({ name, storedBytes, sha256 }) => ({ name, storedBytes, sha256 })),
    published: [sha256Of(await readFile(image.kernel)), sha256Of(await readFile(image.initrd))],
    ...(origins !== undefined && { packageBytes: packageBytes(parts, origins) }),
  };
}

/** The root as a host sees it, and stage 1. */
function filesOf(parts: readonly ImagePart[], { visible }: MergedRoot): ReadonlyMap<string, DiffFile> {
  const files = new Map<string, DiffFile>();
  for (const part of parts.filter(({ kind }) => kind === 'initrd')) {
    for (const entry of part.entries) files.set(`initrd:/${entry.path}`, fileOf(part, entry));
  }
  for (const [path, { part, entry }] of visible) files.set(`/${path}`, fileOf(part, entry));
  return files;
}

function fileOf(part: ImagePart, entry: ImageEntry): DiffFile {
  const { kind, mode, uid, gid, sizeBytes, target, device, xattrs } = entry;
  return {
    kind,
    mode,
    uid,
    gid,
    sizeBytes,
    ...(target !== undefined && { target }),
    ...(device !== undefined && { device }),
    ...(xattrs !== undefined && { xattrs }),
    partSha256: part.sha256,
    storedDigest: entry.storedDigest,
    digest: () => sha256Of(entry.content()),
  };
}

const sha256Of = (content: Uint8Array): string => createHash('sha256').update(content).digest('hex');
