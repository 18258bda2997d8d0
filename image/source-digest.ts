/**
 * Digests of our own code: what a step does is an input of it, like any other.
 *
 * esbuild tells which files a source imports; their contents are the digest, wherever the checkout is. Packages of
 * npm count by package-lock.json. What was found is kept with the digests of the files, so that the next time it is
 * enough to read them.
 */
import { createHash } from 'node:crypto';
import { mkdir, readFile, realpath, rename, rm, writeFile } from 'node:fs/promises';
import { dirname, join, relative, resolve } from 'node:path';
import { z } from 'zod';
import { partSuffix } from './store.ts';

/** The checkout, or wherever our sources are. */
export const SOURCES: string = join(import.meta.dirname, '..');

/** Files by path, from the checkout; with the SHA-256 of each. */
export type Inputs = Readonly<Record<string, string>>;

const schema = z.record(z.string(), z.string());

/**
 * Digests of sources and all that they import, for several steps at once: what two of them share is looked at once.
 *
 * @param steps - absolute paths for each
 * @returns by the same names
 */
export async function sourceDigests<Name extends string>(
  steps: Readonly<Record<Name, readonly string[]>>,
  options: { readonly cache: string },
): Promise<Readonly<Record<Name, string>>> {
  const wanted: Wanted[] = [];
  for (const [name, paths] of Object.entries<readonly string[]>(steps)) {
    // Without links, as esbuild names them.
    const real = await Promise.all(paths.map((path) => realpath(path)));
    const entries = [...new Set(real.map((path) => relative(SOURCES, path)))].sort();
    const record = createHash('sha256')
      .update(entries.map((entry) => `${resolve(SOURCES, entry)}\n`).join(''))
      .digest('hex');
    wanted.push({ name, entries, file: join(options.cache, 'inputs', `${record.slice(0, 40)}.json`) });
  }
  const found = new Map<string, Inputs>();
  for (const { name, file } of wanted) {
    const known = await readInputs(file);
    if (known !== undefined && (await areUnchanged(known))) found.set(name, known);
  }
  const missing = wanted.filter(({ name }) => !found.has(name));
  const imports: ReadonlyMap<string, readonly string[]> =
    missing.length === 0 ? new Map() : await readImports(missing.flatMap(({ entries }) => entries));
  for (const { name, entries, file } of missing) {
    const inputs = await hashAll([...reachedFrom(entries, imports), 'package-lock.json']);
    await writeInputs(file, inputs);
    found.set(name, inputs);
  }
  const digests = wanted.map(({ name }) => [name, digestOf(found.get(name) ?? {})]);
  // One for each name of `steps`, as above.
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion
  return Object.fromEntries(digests) as Record<Name, string>;
}

/** The digest of the sources of one step. */
export async function sourceDigest(entries: readonly string[], options: { readonly cache: string }): Promise<string> {
  return (await sourceDigests({ only: entries }, options)).only;
}

/** A step's sources. */
interface Wanted {
  readonly name: string;
  /** From the checkout. */
  readonly entries: readonly string[];
  /** The record of what was found. */
  readonly file: string;
}

/** What every source imports, of those that can be reached from these; paths from the checkout. */
async function readImports(entries: readonly string[]): Promise<ReadonlyMap<string, readonly string[]>> {
  const { build } = await import('esbuild');
  const { metafile } = await build({
    entryPoints: [...new Set(entries)].map((entry) => resolve(SOURCES, entry)),
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
  const found = Object.entries(metafile.inputs).map(([path, { imports }]): [string, readonly string[]] => [
    path,
    imports.filter(({ external }) => external !== true).map((one) => one.path),
  ]);
  return new Map(found);
}

/** These and all that they import, and so on. */
function reachedFrom(entries: readonly string[], imports: ReadonlyMap<string, readonly string[]>): readonly string[] {
  const reached = new Set(entries);
  // What is added on the way is visited too.
  for (const path of reached) {
    const next = imports.get(path);
    if (next === undefined) throw new RangeError(`Cannot tell what ${path} imports`);
    for (const each of next) reached.add(each);
  }
  return [...reached];
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
  try {
    await writeFile(part, JSON.stringify(inputs));
    await rename(part, file);
  } finally {
    await rm(part, { force: true });
  }
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
