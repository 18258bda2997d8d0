/**
 * `<host>.lock.json`: every package of an image by version and digest, and the archives' state they were chosen from.
 * With it the same image can be built again, whatever has come into the archive meanwhile.
 */
import * as z from 'zod';
import { parseJson } from './_json.ts';
import { findPathProblem } from './_sums.ts';
import type { ParseOptions } from './manifest.ts';

export interface PackageLock {
  /** Version of this form. */
  readonly format: 1;
  /** The release, such as `trixie`. */
  readonly suite: string;
  readonly architecture: string;
  /** What was asked for; all else came along. Sorted. */
  readonly requested: readonly string[];
  readonly sources: readonly LockedSource[];
  /** Sorted by name; a name comes once. */
  readonly packages: readonly LockedPackage[];
}

/** An archive, and the signed `Release` that the packages were chosen by. */
export interface LockedSource {
  /** Without a final slash. */
  readonly uri: string;
  readonly suite: string;
  readonly components: readonly string[];
  /** Of `InRelease`. */
  readonly releaseSha256: string;
  /** Its `Date`, in ISO 8601. */
  readonly releaseDate: string;
}

export interface LockedPackage {
  readonly name: string;
  readonly version: string;
  /** `all`, or that of the lock. */
  readonly architecture: string;
  /** Index in `sources`. */
  readonly source: number;
  /** Below the archive's URI. */
  readonly path: string;
  readonly sizeBytes: number;
  readonly sha256: string;
}

/** What a newer lock changes. */
export interface LockChanges {
  readonly added: readonly LockedPackage[];
  readonly removed: readonly LockedPackage[];
  readonly changed: readonly {
    readonly name: string;
    readonly from: string;
    readonly to: string;
    /** The new version comes from the archive of security updates. */
    readonly security: boolean;
  }[];
}

const word = z.string().min(1).max(1000);
const sha256 = z.string().regex(/^[0-9a-f]{64}$/, 'must be a SHA-256 in lower case hexadecimal');
/** Words of `sources.list` and of command lines: nothing that a shell, apt or a path could take for something else. */
const name = z.string().regex(/^[a-z0-9][a-z0-9+.-]+$/, 'must be the name of a package');
const suite = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._/-]*$/, 'must be the name of a suite');

const schema: z.ZodType<PackageLock> = z.object({
  format: z.literal(1),
  suite,
  architecture: z.string().regex(/^[a-z0-9-]+$/, 'must be the name of an architecture'),
  requested: z.array(name),
  sources: z
    .array(
      z.object({
        uri: z.string().regex(/^(https?|file):\/\/\S+[^/\s]$/, 'must be a URL without a final slash'),
        suite,
        components: z.array(z.string().regex(/^[a-z][a-z0-9-]*$/, 'must be the name of a component')),
        releaseSha256: sha256,
        releaseDate: z.iso.datetime(),
      }),
    )
    .min(1),
  packages: z.array(
    z.object({
      name,
      version: z.string().regex(/^[A-Za-z0-9][A-Za-z0-9.+:~-]*$/, 'must be the version of a package'),
      architecture: word,
      source: z.int().min(0),
      path: word.refine((path) => findPathProblem(path) === undefined, 'must be a safe relative path'),
      sizeBytes: z.int().min(1),
      sha256,
    }),
  ),
});

const checked: z.ZodType<PackageLock> = schema
  .refine(({ packages, sources }) => packages.every((each) => each.source < sources.length), {
    message: 'a package names a source that is not there',
    path: ['packages'],
  })
  .refine(({ packages }) => new Set(packages.map((each) => each.name)).size === packages.length, {
    message: 'a package comes twice',
    path: ['packages'],
  });

/** @throws {ManifestError} */
export function parsePackageLock(text: string, options: ParseOptions = {}): PackageLock {
  return parseJson(text, checked, options.name ?? 'lock.json');
}

/** A package a line, so that a difference between two locks can be read. */
export function formatPackageLock(lock: PackageLock): string {
  const list = (items: readonly object[]): string =>
    items.length === 0 ? '[]' : `[\n${items.map((item) => `    ${JSON.stringify(item)}`).join(',\n')}\n  ]`;
  return [
    '{',
    `  "format": ${lock.format},`,
    `  "suite": ${JSON.stringify(lock.suite)},`,
    `  "architecture": ${JSON.stringify(lock.architecture)},`,
    `  "requested": ${JSON.stringify(lock.requested)},`,
    `  "sources": ${list(lock.sources)},`,
    `  "packages": ${list(lock.packages)}`,
    '}',
    '',
  ].join('\n');
}

/** What is different in `after`. Packages that were built again under the same version count as changed. */
export function compareLocks(before: PackageLock, after: PackageLock): LockChanges {
  const old = new Map(before.packages.map((each) => [each.name, each]));
  const now = new Set(after.packages.map((each) => each.name));
  return {
    added: after.packages.filter((each) => !old.has(each.name)),
    removed: before.packages.filter((each) => !now.has(each.name)),
    changed: after.packages.flatMap((each) => {
      const was = old.get(each.name);
      if (was === undefined || was.sha256 === each.sha256) return [];
      const security = after.sources[each.source]?.suite.endsWith('-security') === true;
      return [{ name: each.name, from: was.version, to: each.version, security }];
    }),
  };
}
