/** Where the bytes of an image go: each of them to one item, of one group. The items add up to kernel and initrd. */
import type { Origin } from '../trace.ts';
import { ALL_CLASSES } from '../module-classes.ts';
import type { ImageEntry } from './image-entry.ts';
import type { ImagePart, MergedRoot } from './image-parts.ts';
import type { Origins } from './origins.ts';

/** Groups, in the order in which they are shown. */
export const GROUPS = ['packages', 'kernel', 'ours', 'properties', 'form', 'unknown'] as const;

export type Group = (typeof GROUPS)[number];

/** What the groups are, for people. */
export const GROUP_NAMES: Readonly<Record<Group, string>> = {
  packages: 'packages',
  kernel: 'kernel and its modules',
  ours: 'our steps: Node, init, what is generated',
  properties: 'properties',
  form: 'tables and headers of file systems and archives',
  unknown: 'not noted where from',
};

/** One file, or what a part has besides files. */
export interface Item {
  readonly group: Group;
  /** A package, a class of kernel modules, a property, a step. */
  readonly name: string;
  /** `/usr/bin/x`, `initrd:/init`; of tables the part. */
  readonly path: string;
  readonly part: ImagePart;
  readonly entry?: ImageEntry;
  readonly origins: readonly Origin[];
  readonly storedBytes: number;
  readonly sizeBytes: number;
  /** It is in the image, but a layer above has something else there. */
  readonly hidden: boolean;
}

/** Sizes of something that items are summed up by. */
export interface Total {
  readonly name: string;
  readonly group: Group;
  readonly storedBytes: number;
  readonly sizeBytes: number;
  readonly files: number;
}

/** Accounts for every byte of an image. Without origins all files are `unknown`, kernel and modules excepted. */
export function accountFor(parts: readonly ImagePart[], root: MergedRoot, origins: Origins | undefined): Item[] {
  const hidden = new Set(root.hidden.map(({ entry }) => entry));
  return parts.flatMap((part) => [
    ...part.entries.map((entry): Item => {
      const from = origins?.of(part, entry.path) ?? [];
      return {
        ...groupOf(part, entry, from.at(-1)),
        path: pathIn(part, entry.path),
        part,
        entry,
        origins: from,
        storedBytes: entry.storedBytes,
        sizeBytes: entry.kind === 'file' ? entry.sizeBytes : 0,
        hidden: hidden.has(entry),
      };
    }),
    {
      group: 'form' as const,
      name: part.name,
      path: `${part.name}: ${part.form}`,
      part,
      origins: [{ kind: 'step' as const, name: `${part.form} of ${part.name}` }],
      storedBytes: part.overheadBytes,
      sizeBytes: 0,
      hidden: false,
    },
  ]);
}

/** Sums items up, the largest first. */
export function totals(items: readonly Item[], by: (item: Item) => string = (item) => item.name): Total[] {
  const sums = new Map<string, { name: string; group: Group; storedBytes: number; sizeBytes: number; files: number }>();
  for (const item of items) {
    const name = by(item);
    const sum = sums.get(name) ?? { name, group: item.group, storedBytes: 0, sizeBytes: 0, files: 0 };
    sum.storedBytes += item.storedBytes;
    sum.sizeBytes += item.sizeBytes;
    if (item.entry?.kind === 'file') sum.files += 1;
    sums.set(name, sum);
  }
  return [...sums.values()].toSorted((a, b) => b.storedBytes - a.storedBytes || (a.name < b.name ? -1 : 1));
}

/** Bytes in the image by package, kernel and its modules with theirs. */
export function packageBytes(parts: readonly ImagePart[], origins: Origins): Map<string, number> {
  const bytes = new Map<string, number>();
  for (const part of parts) {
    for (const { path, storedBytes } of part.entries) {
      const origin = origins.of(part, path).at(-1);
      if (origin?.kind === 'package') bytes.set(origin.name, (bytes.get(origin.name) ?? 0) + storedBytes);
    }
  }
  return bytes;
}

/** How a path is shown, so that it says where it is. */
function pathIn(part: Pick<ImagePart, 'kind'>, path: string): string {
  if (part.kind === 'kernel') return path;
  return part.kind === 'initrd' ? `initrd:/${path}` : `/${path}`;
}

function groupOf(part: ImagePart, entry: ImageEntry, origin: Origin | undefined): Pick<Item, 'group' | 'name'> {
  if (part.kind === 'kernel') return { group: 'kernel', name: 'Linux' };
  const module = /(?:^|\/)modules\/(?:[^/]+\/)?(.*\.ko(?:\.\w+)?|modules\.[\w.]+)$/.exec(entry.path)?.[1];
  if (module !== undefined) return { group: 'kernel', name: `modules: ${classOf(module, part)}` };
  switch (origin?.kind) {
    case 'package':
      return { group: 'packages', name: origin.name };
    case 'property':
      return { group: 'properties', name: origin.description };
    case 'step':
      return { group: 'ours', name: origin.name };
    case undefined:
      return { group: 'unknown', name: part.name };
    default:
      return origin satisfies never;
  }
}

/** `kernel/drivers/net/…` → the class that it was kept for; the others were kept because these need them. */
function classOf(module: string, part: ImagePart): string {
  if (module.startsWith('modules.')) return 'index';
  if (part.kind === 'initrd') return 'for stage 1';
  const found = ALL_CLASSES.find(({ prefixes }) => prefixes.some((prefix) => module.startsWith(`kernel/${prefix}`)));
  return found?.name ?? 'needed by others';
}
