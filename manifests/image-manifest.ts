/** `buildos-manifest.json`: what a published image was made of; the SBOM is made from it. */
import * as z from 'zod';
import { findPathProblem } from './_sums.ts';
import { parseJson } from './_json.ts';
import type { ParseOptions } from './manifest.ts';

export interface ImageManifest {
  /** Version of this form. */
  readonly format: 1;
  readonly buildId: string;
  /** Name of the host definition, and the digest of what it says. */
  readonly host: string;
  readonly hostSha256: string;
  readonly architecture: string;
  /** `13` (trixie) → `{ name: 'debian', version: '13', suite: 'trixie' }`. */
  readonly base: { readonly name: string; readonly version: string; readonly suite: string };
  readonly kernelVersion: string;
  readonly node: { readonly version: string; readonly sha256: string };
  /** Sorted by name. */
  readonly packages: readonly ImagePackage[];
  /** What is published, but for this file, the sums and the build id; sorted by path. */
  readonly files: readonly ImageFile[];
  /** Unpacked root, in bytes. */
  readonly rootfsBytes: number;
}

export interface ImagePackage {
  readonly name: string;
  readonly version: string;
  readonly architecture: string;
  /** Of the package's archive; absent when only the installed package was seen. */
  readonly sha256?: string;
}

export interface ImageFile {
  readonly path: string;
  readonly sha256: string;
  readonly sizeBytes: number;
}

const word = z.string().min(1).max(1000);
const sha256 = z.string().regex(/^[0-9a-f]{64}$/, 'must be a SHA-256 in lower case hexadecimal');
const sizeBytes = z.int().min(0);

const schema: z.ZodType<ImageManifest> = z.object({
  format: z.literal(1),
  buildId: word,
  host: word,
  hostSha256: sha256,
  architecture: word,
  base: z.object({ name: word, version: word, suite: word }),
  kernelVersion: word,
  node: z.object({ version: word, sha256 }),
  packages: z.array(z.object({ name: word, version: word, architecture: word, sha256: z.exactOptional(sha256) })),
  files: z.array(
    z.object({
      path: word.refine((path) => findPathProblem(path) === undefined, 'must be a safe relative path'),
      sha256,
      sizeBytes,
    }),
  ),
  rootfsBytes: sizeBytes,
});

/** Unknown keys are dropped: a newer image may say more. @throws {ManifestError} */
export function parseImageManifest(text: string, options: ParseOptions = {}): ImageManifest {
  return parseJson(text, schema, options.name ?? 'buildos-manifest.json');
}

export function formatImageManifest(manifest: ImageManifest): string {
  return `${JSON.stringify(manifest, undefined, 2)}\n`;
}
