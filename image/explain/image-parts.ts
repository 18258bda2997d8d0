/**
 * An image taken apart: kernel, segments of the initrd, layers of the root. Every byte of the published files is in
 * exactly one part, and in a part either in an entry or in its overhead.
 */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { type ImageEntry, ImageFormatError, isWhiteout } from './image-entry.ts';
import { readInitrd, type Segment } from './read-initrd.ts';
import { readSquashfs, type Squashfs } from './squashfs.ts';

/** A part. */
export interface ImagePart {
  /** `kernel`, `tools`, `stage 1`, `Node`, `layer 1`… */
  readonly name: string;
  /** `initrd`: entries are files of stage 1; `layer`: of the root, numbered from 0. */
  readonly kind: 'kernel' | 'initrd' | 'layer';
  readonly layer?: number;
  /** How it is packed, such as `zstd` or `squashfs lz4`. */
  readonly form: string;
  readonly sha256: string;
  readonly storedBytes: number;
  readonly overheadBytes: number;
  readonly entries: readonly ImageEntry[];
}

/** An entry with the part that it is in. */
export interface PlacedEntry {
  readonly part: ImagePart;
  readonly entry: ImageEntry;
}

/** The root as a host sees it: the layers over each other. */
export interface MergedRoot {
  /** By path; the root itself is `''`. */
  readonly visible: ReadonlyMap<string, PlacedEntry>;
  /** What is in the image and cannot be seen: replaced or removed by a layer above. */
  readonly hidden: readonly (PlacedEntry & { readonly by: PlacedEntry })[];
}

/** A file system in the initrd: a layer of the root, or Node's. */
const SYSTEM = /^buildos\/.*\.squashfs$/;
const NODE_SYSTEM = 'buildos/node.squashfs';

/** What was read of another image: parts that are the same are not read again. */
export class KnownParts {
  readonly segments: Map<string, Segment> = new Map();
  readonly systems: Map<string, Squashfs> = new Map();
}

/**
 * Reads an image.
 *
 * @throws {ImageFormatError} when a part is damaged; an error of the file system
 */
export async function readParts(
  image: { readonly kernel: string; readonly initrd: string },
  known: KnownParts = new KnownParts(),
): Promise<ImagePart[]> {
  const kernel = await readFile(image.kernel);
  const segments = readInitrd(await readFile(image.initrd), known.segments);
  let layers = 0;
  const parts: ImagePart[] = [
    {
      ...partOf('kernel', 'kernel', kernel),
      form: 'bzImage',
      overheadBytes: 0,
      entries: [kernelEntry(kernel)],
    },
  ];
  for (const [index, segment] of segments.entries()) {
    const systems = segment.entries.filter(({ path, kind }) => kind === 'file' && SYSTEM.test(path));
    const rest = segment.entries.filter((entry) => !systems.includes(entry) && entry.path !== 'buildos');
    const alone = systems.length === 1 && rest.length === 0;
    if (!alone) {
      const bytes = segment.bytes.length - systems.reduce((all, { sizeBytes }) => all + sizeBytes, 0);
      const entries = systems.length === 0 ? segment.entries : rest;
      parts.push({ ...partOf(nameOf(segment, index), 'initrd', segment.bytes), ...sized(segment, entries, bytes) });
    }
    for (const system of systems) {
      const content = system.content();
      // The cpio header before it, and padding, are part of it, unless something else stands beside it.
      const around = alone ? segment.bytes.length - content.length : 0;
      const isNode = system.path === NODE_SYSTEM;
      const part = isNode ? partOf('Node', 'initrd', content) : partOf(`layer ${layers + 1}`, 'layer', content);
      const found = known.systems.get(part.sha256) ?? readSquashfs(content);
      known.systems.set(part.sha256, found);
      const { compression, entries, overheadBytes } = found;
      parts.push({
        ...part,
        ...(!isNode && { layer: layers }),
        form: `squashfs ${compression}`,
        storedBytes: content.length + around,
        overheadBytes: overheadBytes + around,
        // Where init mounts it.
        entries: isNode ? entries.map((entry) => ({ ...entry, path: `node/${entry.path}` })) : entries,
      });
      if (!isNode) layers += 1;
    }
  }
  return parts;
}

/** Puts the layers over each other, as overlayfs does: names in an upper layer hide those below. */
export function mergeLayers(parts: readonly ImagePart[]): MergedRoot {
  const visible = new Map<string, PlacedEntry>();
  const hidden: (PlacedEntry & { readonly by: PlacedEntry })[] = [];
  for (const part of parts.filter(({ kind }) => kind === 'layer')) {
    for (const entry of part.entries) {
      const by = { part, entry };
      const below = visible.get(entry.path);
      const bothFolders = below?.entry.kind === 'directory' && entry.kind === 'directory';
      if (below !== undefined) hidden.push({ ...below, by });
      if (below?.entry.kind === 'directory' && (entry.opaque === true || !bothFolders)) hideBelow(entry.path, by);
      if (isWhiteout(entry)) visible.delete(entry.path);
      else visible.set(entry.path, by);
    }
  }
  return { visible: new Map([...visible].toSorted(([a], [b]) => (a < b ? -1 : 1))), hidden };

  /** Of the layers below only: in its own layer a folder comes before what is in it. */
  function hideBelow(folder: string, by: PlacedEntry): void {
    for (const [path, placed] of visible) {
      if (!path.startsWith(`${folder}/`)) continue;
      hidden.push({ ...placed, by });
      visible.delete(path);
    }
  }
}

function partOf(
  name: string,
  kind: ImagePart['kind'],
  bytes: Uint8Array,
): Pick<ImagePart, 'name' | 'kind' | 'sha256' | 'storedBytes'> {
  return { name, kind, sha256: createHash('sha256').update(bytes).digest('hex'), storedBytes: bytes.length };
}

function sized(
  segment: Segment,
  entries: readonly ImageEntry[],
  storedBytes: number,
): Pick<ImagePart, 'form' | 'storedBytes' | 'overheadBytes' | 'entries'> {
  const content = entries.reduce((all, entry) => all + entry.storedBytes, 0);
  const form = segment.compression === 'zstd' ? 'cpio zstd' : 'cpio';
  return { form, storedBytes, overheadBytes: storedBytes - content, entries };
}

/** By what is in it: the pipeline writes busybox and Node's libraries into one, init into another. */
function nameOf({ entries }: Segment, index: number): string {
  const has = (path: string): boolean => entries.some((entry) => entry.path === path);
  if (has('bin/busybox')) return 'tools';
  return has('init') ? 'stage 1' : `segment ${index + 1}`;
}

function kernelEntry(content: Uint8Array): ImageEntry {
  if (content.length === 0) throw new ImageFormatError('Cannot read the kernel: the file is empty');
  const owner = { mode: 0o644, uid: 0, gid: 0 };
  return {
    path: 'buildos-image',
    kind: 'file',
    ...owner,
    sizeBytes: content.length,
    storedBytes: content.length,
    content: () => content,
    storedDigest: () => createHash('sha256').update(content).digest('hex'),
  };
}
