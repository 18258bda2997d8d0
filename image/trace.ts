/**
 * Where every file of an image comes from: a package, a property, or a step of ours. Noted while the image is made, since
 * the image itself has no package database; kept beside it and not in it, so the bits that boot do not depend on it.
 *
 * ```
 *   layer of packages ──► trace-packages.ts ───┐
 *   layer of properties ─► trace-properties.ts ┼──► origins.json of each layer ──► buildos-contents.json of the image
 *   layer of programs ──► trace-properties.ts ─┘
 * ```
 */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { type Entry, fileOf } from './store.ts';

/** Where something comes from. */
export type Origin =
  | {
      readonly kind: 'package';
      readonly name: string;
      readonly version: string;
      /** `shipped`: it is in the .deb. Otherwise the package has it made when it is installed: how that is known. */
      readonly how: 'shipped' | 'alternative' | 'link' | 'script' | 'folder';
    }
  | {
      readonly kind: 'property';
      /** Id, such as `file.hasContent`. */
      readonly p: string;
      readonly description: string;
    }
  | {
      readonly kind: 'step';
      /** What we do ourselves when an image is made, in a few words. */
      readonly name: string;
    };

/** The origins of one layer of the root, with what comes from each: paths from the root, without the first slash. */
export interface LayerOrigins {
  /** In the order in which it was done; a path that several properties touched is with each. */
  readonly origins: readonly { readonly origin: Origin; readonly paths: readonly string[] }[];
}

/** `buildos-contents.json`. */
export interface Contents {
  readonly format: 1;
  /** As in the image: the lowest first. Also paths that are left out when packing. */
  readonly layers: readonly LayerOrigins[];
}

/** The file beside an image that says where its files come from. */
export const CONTENTS_JSON = 'buildos-contents.json';

/** The same for a layer, in its entry of the cache. */
const ORIGINS_JSON = 'origins.json';

const originSchema = z.discriminatedUnion('kind', [
  z.object({
    kind: z.literal('package'),
    name: z.string(),
    version: z.string(),
    how: z.enum(['shipped', 'alternative', 'link', 'script', 'folder']),
  }),
  z.object({ kind: z.literal('property'), p: z.string(), description: z.string() }),
  z.object({ kind: z.literal('step'), name: z.string() }),
]);
/** The schema of what was noted so far: a path, and what touched it; in the order in which it was done. */
export const touchedSchema: z.ZodType<readonly (readonly [path: string, origin: Origin])[]> = z.array(
  z.tuple([z.string(), originSchema]),
);

const layerSchema = z.object({ origins: z.array(z.object({ origin: originSchema, paths: z.array(z.string()) })) });
const schema: z.ZodType<Contents> = z.object({ format: z.literal(1), layers: z.array(layerSchema) });

/** Groups paths by their origins: origins in the order in which they come first, paths sorted. */
export function groupOrigins(traced: Iterable<readonly [path: string, origin: Origin]>): LayerOrigins {
  const groups = new Map<string, { readonly origin: Origin; readonly paths: string[] }>();
  for (const [path, origin] of traced) {
    const key = JSON.stringify(origin);
    const group = groups.get(key) ?? { origin, paths: [] };
    group.paths.push(path);
    groups.set(key, group);
  }
  return {
    origins: [...groups.values()].map(({ origin, paths }) => ({ origin, paths: [...new Set(paths)].toSorted() })),
  };
}

/** Notes the origins of a layer in the folder that becomes its entry. */
export async function writeOrigins(out: string, origins: LayerOrigins): Promise<void> {
  await writeFile(join(out, ORIGINS_JSON), `${JSON.stringify(origins)}\n`);
}

/** Writes `buildos-contents.json` of an image beside it, from what was noted with its layers. */
export async function writeContents(out: string, layers: readonly Entry[]): Promise<void> {
  const read = async (entry: Entry): Promise<LayerOrigins> =>
    layerSchema.parse(JSON.parse(await readFile(fileOf(entry, ORIGINS_JSON).path, 'utf8')));
  await writeFile(join(out, CONTENTS_JSON), formatContents({ format: 1, layers: await Promise.all(layers.map(read)) }));
}

/** An origin a line. */
export function formatContents(contents: Contents): string {
  const layers = contents.layers.map(({ origins }) => {
    const lines = origins.map((each) => JSON.stringify(each)).join(',\n');
    return `{"origins":[${lines === '' ? '' : `\n${lines}\n`}]}`;
  });
  return `{"format":${contents.format},"layers":[${layers.join(',\n')}]}\n`;
}

/** @throws {SyntaxError | z.ZodError} when it is of another form */
export function parseContents(text: string): Contents {
  return schema.parse(JSON.parse(text));
}
