/** All that `image explain` knows of an image, read once. */
import type { ImageManifest } from '../../manifests/image-manifest.ts';
import type { PropertyApplication } from '../../properties/property.ts';
import { accountFor, type Item } from './account.ts';
import { appliedProperties } from './applied.ts';
import { type Subject, SubjectError } from './find-subject.ts';
import { type ImagePart, type MergedRoot, mergeLayers, readParts } from './image-parts.ts';
import { Origins } from './origins.ts';

/** An image, taken apart and explained. */
export interface Inspection {
  readonly subject: Subject;
  readonly manifest: ImageManifest;
  readonly kernelArgs: readonly string[];
  readonly parts: readonly ImagePart[];
  readonly root: MergedRoot;
  /** Absent: nobody noted where the files come from. */
  readonly origins: Origins | undefined;
  readonly properties: readonly PropertyApplication[];
  readonly items: readonly Item[];
}

/**
 * Reads an image.
 *
 * @throws {SubjectError} when it is a list of packages without bits
 * @throws {ImageFormatError} when it is damaged
 */
export async function inspectImage(subject: Subject): Promise<Inspection> {
  const { image, manifest } = subject;
  if (image === undefined || manifest === undefined) {
    throw new SubjectError(`Cannot explain ${subject.at}: it lists packages, and has no image`);
  }
  const parts = await readParts(image);
  const root = mergeLayers(parts);
  const { contents } = image;
  const { kernelVersion } = manifest;
  const origins =
    contents === undefined ? undefined : new Origins({ contents, kernelVersion, nodeVersion: manifest.node.version });
  return {
    subject,
    manifest,
    kernelArgs: image.kernelArgs ?? [],
    parts,
    root,
    origins,
    properties: appliedProperties(root) ?? [],
    items: accountFor(parts, root, origins),
  };
}
