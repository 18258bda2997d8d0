/** Why one path is in an image, or why not. */
import type { PropertyApplication } from '../../properties/property.ts';
import type { Origin } from '../trace.ts';
import { countFiles } from './format-bytes.ts';
import type { ImageEntry } from './image-entry.ts';
import type { ImagePart, MergedRoot, PlacedEntry } from './image-parts.ts';
import { describeOrigin, findExclude, type Origins } from './origins.ts';

/** What is to be said of a path. */
export interface Why {
  readonly path: string;
  /** `present`; `left-out` when it was packed: the pattern says why; `removed` by a property. */
  readonly state: 'present' | 'left-out' | 'removed' | 'absent';
  readonly entry?: ImageEntry;
  readonly part?: string;
  /** Where it comes from; the last one has had the last word. */
  readonly origins: readonly Origin[];
  /** Of `left-out`: the pattern of `image.excludes`. */
  readonly pattern?: string;
  /** What the image has of it besides, which nobody sees. */
  readonly hidden: readonly {
    readonly part: string;
    readonly entry: ImageEntry;
    readonly origins: readonly Origin[];
  }[];
  /** Of a folder: the sum of all that is in it. */
  readonly inside?: { readonly files: number; readonly storedBytes: number; readonly sizeBytes: number };
  /** Links on the way: `bin -> usr/bin`. */
  readonly links: readonly string[];
}

/** What an image is known by. */
export interface Known {
  readonly parts: readonly ImagePart[];
  readonly root: MergedRoot;
  readonly origins: Origins | undefined;
  readonly properties: readonly PropertyApplication[];
}

/** How many links are followed. */
const LINKS = 40;

/**
 * Explains a path.
 *
 * @param asked - `/usr/bin/x`, `initrd:/init` or `kernel`
 */
export function explainPath(asked: string, known: Known): Why {
  const found = findInInitrd(asked, known);
  if (found !== undefined) {
    const { part, entry } = found;
    return present(asked, found, { origins: known.origins?.of(part, entry.path) ?? [], links: [], hidden: [] }, known);
  }
  const { path, links } = resolveLinks(asked.replace(/^\/+|\/+$/g, ''), known.root);
  const { visible } = known.root;
  const hidden = known.root.hidden
    .filter((each) => each.entry.path === path && each.entry.kind !== 'directory')
    .map(({ part, entry }) => ({ part: part.name, entry, origins: known.origins?.of(part, path) ?? [] }));
  const placed = visible.get(path);
  const all = layersWith(path, known.origins);
  if (placed !== undefined) {
    // A folder is in every layer that has something in it: it comes from the lowest.
    const merged = placed.entry.kind === 'directory' && placed.entry.opaque !== true;
    const origins = known.origins?.of(merged ? lowestWith(path, known, placed) : placed.part, path) ?? [];
    return present(`/${path}`, placed, { origins, links, hidden }, known);
  }
  const remover = known.root.hidden.findLast(({ entry }) => entry.path === path)?.by;
  if (remover !== undefined) {
    const origins = known.origins?.of(remover.part, remover.entry.path) ?? [];
    return { path: `/${path}`, state: 'removed', part: remover.part.name, origins, hidden, links };
  }
  const patterns = known.properties.flatMap(({ p, a }) => (p === 'image.excludes' && Array.isArray(a[0]) ? a[0] : []));
  const pattern = findExclude(
    path,
    patterns.filter((each) => typeof each === 'string'),
  );
  const state = all.length > 0 ? 'left-out' : 'absent';
  return {
    path: `/${path}`,
    state,
    origins: all,
    hidden,
    links,
    ...(state === 'left-out' && pattern !== undefined && { pattern }),
  };
}

/** The answer in lines. */
export function formatWhy(why: Why): string[] {
  const lines = [why.path, ...why.links.map((link) => `  through the link ${link}`)];
  const from = why.origins.map((origin) => describeOrigin(origin));
  const { entry } = why;
  switch (why.state) {
    case 'present':
      if (entry !== undefined) lines.push(`  ${describeEntry(entry)}, in ${why.part}`);
      if (why.inside !== undefined) {
        const { files, storedBytes, sizeBytes } = why.inside;
        lines.push(`  ${countFiles(files)} in it: ${sizeBytes} bytes, ${storedBytes} in the image`);
      }
      break;
    case 'removed':
      lines.push('  is not in the image: it was removed after the packages were installed');
      break;
    case 'left-out':
      lines.push(`  is not in the image: left out when it was packed${reasonOf(why)}`);
      break;
    case 'absent':
      lines.push('  is not in the image, and was not there when it was made');
      break;
    default:
      why.state satisfies never;
  }
  const word = why.state === 'removed' ? 'by' : 'from';
  if (from.length === 0 && why.state === 'present') lines.push('  nobody noted where it comes from');
  for (const [index, each] of from.entries()) lines.push(`  ${index === 0 ? word : 'then changed by'} ${each}`);
  for (const { part, entry: below, origins } of why.hidden) {
    const whose = origins.map((origin) => describeOrigin(origin)).join(', ');
    lines.push(`  ${part} has another below it, unseen: ${describeEntry(below)}, from ${whose || 'nobody knows'}`);
  }
  return lines;
}

function reasonOf({ path, pattern }: Why): string {
  if (pattern !== undefined) return ` (image.excludes "${pattern}")`;
  return path.startsWith('/usr/lib/modules/') ? ' (of the kernel modules those of the hardware profile are kept)' : '';
}

function describeEntry(entry: ImageEntry): string {
  const { kind, mode, uid, gid, sizeBytes, storedBytes, target } = entry;
  const octal = mode.toString(8).padStart(4, '0');
  if (kind === 'symlink') return `link to ${target ?? ''}`;
  const size = kind === 'file' ? `, ${sizeBytes} bytes, ${storedBytes} in the image` : '';
  return `${kind} ${octal}, owner ${uid}:${gid}${size}`;
}

function present(
  path: string,
  { part, entry }: PlacedEntry,
  rest: Pick<Why, 'origins' | 'links' | 'hidden'>,
  known: Known,
): Why {
  const within = entry.kind === 'directory' && part.kind === 'layer' ? insideOf(entry.path, known.root) : undefined;
  return { path, state: 'present', entry, part: part.name, ...rest, ...(within !== undefined && { inside: within }) };
}

function insideOf(folder: string, root: MergedRoot): NonNullable<Why['inside']> {
  let [files, storedBytes, sizeBytes] = [0, 0, 0];
  for (const [path, { entry }] of root.visible) {
    if (entry.kind !== 'file' || !(folder === '' || path.startsWith(`${folder}/`))) continue;
    files += 1;
    storedBytes += entry.storedBytes;
    sizeBytes += entry.sizeBytes;
  }
  return { files, storedBytes, sizeBytes };
}

function findInInitrd(asked: string, { parts }: Known): PlacedEntry | undefined {
  const inner = /^initrd:\/*(.*)$/.exec(asked)?.[1];
  for (const part of parts) {
    if (part.kind === 'layer') continue;
    const wanted = part.kind === 'kernel' && ['kernel', 'buildos-image'].includes(asked) ? 'buildos-image' : inner;
    const entry = part.entries.find(({ path }) => path === wanted);
    if (entry !== undefined) return { part, entry };
  }
  return undefined;
}

/** Links of folders on the way, such as /bin; the last name stays what it is. */
function resolveLinks(asked: string, root: MergedRoot): { readonly path: string; readonly links: readonly string[] } {
  const links: string[] = [];
  let rest = asked.split('/').filter((name) => name !== '' && name !== '.');
  let done: string[] = [];
  while (rest.length > 1 && links.length < LINKS) {
    const [name = '', ...after] = rest;
    const at = [...done, name].join('/');
    const target = root.visible.get(at)?.entry.target;
    if (target === undefined) {
      done = name === '..' ? done.slice(0, -1) : [...done, name];
      rest = after;
      continue;
    }
    links.push(`/${at} -> ${target}`);
    if (target.startsWith('/')) done = [];
    rest = [...target.split('/').filter((each) => each !== '' && each !== '.'), ...after];
  }
  return { path: [...done, ...rest].join('/'), links };
}

function lowestWith(path: string, { root }: Known, placed: PlacedEntry): ImagePart {
  return root.hidden.find(({ entry }) => entry.path === path && entry.kind === 'directory')?.part ?? placed.part;
}

function layersWith(path: string, origins: Origins | undefined): Origin[] {
  const found: Origin[] = [];
  for (let layer = 0; layer < (origins?.layers ?? 0); layer += 1) found.push(...(origins?.inLayer(layer, path) ?? []));
  return found;
}
