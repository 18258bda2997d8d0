/**
 * Digests of our own code: what a step does is an input of it, like any other.
 *
 * esbuild tells which files a source imports; their contents are the digest, wherever the checkout is. Packages of
 * npm count by package-lock.json. What was found is kept with the digests of the files, so that the next time it is
 * enough to read them.
 */
import { createHash } from 'node:crypto';
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { dirname, join, relative, resolve } from 'node:path';
import { z } from 'zod';
import { partSuffix } from './store.ts';

/** The checkout, or wherever our sources are. */
export const SOURCES: string = join(import.meta.dirname, '..');

/** Files by path, from the checkout; with the SHA-256 of each. */
export type Inputs = Readonly<Record<string, string>>;

const schema = z.record(z.string(), z.string());

/**
 * The digest of sources and all that they import.
 *
 * @param entries - absolute paths
 */
export async function sourceDigest(entries: readonly string[], options: { readonly cache: string }): Promise<string> {
  const name = createHash('sha256')
    .update(entries.map((entry) => resolve(entry)).join('\n'))
    .digest('hex')
    .slice(0, 40);
  const file = join(options.cache, 'inputs', `${name}.json`);
  const known = await readInputs(file);
  if (known !== undefined && (await areUnchanged(known))) return digestOf(known);
  const { build } = await import('esbuild');
  const { metafile } = await build({
    entryPoints: entries.map((entry) => resolve(entry)),
    absWorkingDir: SOURCES,
    outdir: 'unused',
    bundle: true,
    write: false,
    metafile: true,
    packages: 'external',
    // A definition of somebody's own imports us by name (docs/decisions/013).
    alias: { buildos: SOURCES },
    platform: 'node',
    format: 'esm',
    logLevel: 'silent',
  });
  const inputs = await hashAll([...Object.keys(metafile.inputs), 'package-lock.json']);
  await writeInputs(file, inputs);
  return digestOf(inputs);
}

/** The inputs that were written here before, or nothing. */
export async function readInputs(file: string): Promise<Inputs | undefined> {
  try {
    return schema.parse(JSON.parse(await readFile(file, 'utf8')));
  } catch {
    return undefined;
  }
}

export async function writeInputs(file: string, inputs: Inputs): Promise<void> {
  await mkdir(dirname(file), { recursive: true });
  const part = `${file}${partSuffix()}`;
  await writeFile(part, JSON.stringify(inputs));
  await rename(part, file);
}

/** Whether every file still has the content that it had. */
export async function areUnchanged(inputs: Inputs): Promise<boolean> {
  try {
    const found = await hashAll(Object.keys(inputs));
    return Object.entries(inputs).every(([path, sha256]) => found[path] === sha256);
  } catch {
    return false;
  }
}

/** Digests of files by their path from the checkout. */
export async function hashAll(paths: readonly string[]): Promise<Inputs> {
  const pairs = await Promise.all(
    paths.map(async (path): Promise<[string, string]> => {
      const content = await readFile(join(SOURCES, path));
      return [path, createHash('sha256').update(content).digest('hex')];
    }),
  );
  return Object.fromEntries(pairs.sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** Files outside of the checkout count by their content and their place relative to each other. */
export function digestOf(inputs: Inputs): string {
  const paths = Object.keys(inputs);
  const foreign = paths.filter((path) => path.startsWith('..'));
  const top = foreign[0] === undefined ? '' : dirname(foreign[0]);
  const lines = paths.map((path) => `${path.startsWith('..') ? `@/${relative(top, path)}` : path} ${inputs[path]}\n`);
  return createHash('sha256').update(lines.sort().join('')).digest('hex');
}
