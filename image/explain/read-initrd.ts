/**
 * An initrd taken apart: its segments as the kernel finds them, and the entries of each.
 *
 * Specifications: Linux `Documentation/driver-api/early-userspace/buffer-format.rst` for segments and "newc";
 * RFC 8878 §3.1 for where a zstd frame ends. The pipeline writes no other kinds (see ../initrd.ts).
 */
import { createHash } from 'node:crypto';
import { zstdCompressSync, constants, zstdDecompressSync } from 'node:zlib';
import { type EntryKind, type ImageEntry, ImageFormatError } from './image-entry.ts';
import { shareOut } from './share-out.ts';

const ZSTD_MAGIC = 0xfd2f_b528;
const ALIGNMENT = 4;
const TRAILER = 'TRAILER!!!';
const HEADER_BYTES = 110;

/** A stretch of the initrd: one cpio archive, packed as a whole or as it is. */
export interface Segment {
  readonly compression: 'zstd' | 'none';
  /** As it lies in the file, with the padding after it. */
  readonly bytes: Uint8Array;
  readonly entries: readonly ImageEntry[];
  /** What is no content: headers, padding. Of a compressed segment nothing: it counts with the contents. */
  readonly overheadBytes: number;
}

/**
 * Reads an initrd.
 *
 * @param known - packed segments that were read before, by digest: they are not unpacked again; new ones are added
 * @throws {ImageFormatError} when it is cut short, or holds something that the pipeline does not write
 */
export function readInitrd(initrd: Uint8Array, known: Map<string, Segment> = new Map()): Segment[] {
  const segments: Segment[] = [];
  const view = new DataView(initrd.buffer, initrd.byteOffset, initrd.byteLength);
  for (let at = 0; at < initrd.length;) {
    const segment = readSegment(initrd, view, at, known);
    segments.push(segment);
    at += segment.bytes.length;
  }
  return segments;
}

function readSegment(initrd: Uint8Array, view: DataView, at: number, known: Map<string, Segment>): Segment {
  try {
    if (view.getUint32(at, true) === ZSTD_MAGIC) {
      const end = endOfFrame(view, at);
      const bytes = initrd.subarray(at, skipZeros(initrd, end));
      const digest = createHash('sha256').update(bytes).digest('hex');
      const found = known.get(digest);
      if (found !== undefined) return found;
      const { entries } = readCpio(zstdDecompressSync(initrd.subarray(at, end)));
      const segment = {
        compression: 'zstd',
        bytes,
        entries: weighed(entries, bytes.length),
        overheadBytes: 0,
      } as const;
      known.set(digest, segment);
      return segment;
    }
    const { entries, length } = readCpio(initrd.subarray(at));
    const bytes = initrd.subarray(at, skipZeros(initrd, at + length));
    const content = entries.reduce((sum, { storedBytes }) => sum + storedBytes, 0);
    return { compression: 'none', bytes, entries, overheadBytes: bytes.length - content };
  } catch (cause) {
    if (cause instanceof ImageFormatError) throw cause;
    throw new ImageFormatError(`Cannot read the initrd: the segment at byte ${at} is damaged`, { cause });
  }
}

/**
 * The first byte after a zstd frame. Sizes of blocks are in their headers, so nothing has to be unpacked.
 *
 * @throws {RangeError} when the frame is cut short
 */
export function endOfFrame(view: DataView, start: number): number {
  const descriptor = view.getUint8(start + 4);
  const single = (descriptor & 0x20) !== 0;
  const contentSize = [single ? 1 : 0, 2, 4, 8][descriptor >> 6] ?? 0;
  const dictionary = [0, 1, 2, 4][descriptor & 3] ?? 0;
  let at = start + 5 + (single ? 0 : 1) + dictionary + contentSize;
  for (let last = false; !last;) {
    const header = view.getUint16(at, true) | (view.getUint8(at + 2) << 16);
    last = (header & 1) === 1;
    const repeated = ((header >> 1) & 3) === 1;
    at += 3 + (repeated ? 1 : header >> 3);
  }
  const end = at + ((descriptor & 4) === 0 ? 0 : 4);
  if (end > view.byteLength) throw new RangeError(`the frame at ${start} ends after the file`);
  return end;
}

/** Entries of one newc archive, and how long it is. */
function readCpio(archive: Uint8Array): { readonly entries: ImageEntry[]; readonly length: number } {
  const entries: ImageEntry[] = [];
  for (let at = 0; ;) {
    const header = Buffer.from(archive.subarray(at, at + HEADER_BYTES)).toString('latin1');
    if (!header.startsWith('070701') || header.length < HEADER_BYTES) {
      throw new ImageFormatError(
        `Cannot read the initrd: no cpio header of the form "newc" at byte ${at} of a segment`,
      );
    }
    const field = (index: number): number => Number.parseInt(header.slice(6 + index * 8, 14 + index * 8), 16);
    const [mode, uid, gid, size, nameBytes] = [field(1), field(2), field(3), field(6), field(11)];
    const dataAt = align(at + HEADER_BYTES + nameBytes);
    const end = dataAt + size;
    if (!(end <= archive.length)) throw new RangeError(`the entry at ${at} ends after the archive`);
    const name = Buffer.from(archive.subarray(at + HEADER_BYTES, at + HEADER_BYTES + nameBytes - 1)).toString('utf8');
    at = align(end);
    if (name === TRAILER) return { entries, length: at };
    const data = archive.subarray(dataAt, end);
    const kind = kindOf(mode);
    entries.push({
      path: name.replace(/^(\.?\/)+/, ''),
      kind,
      mode: mode & 0o7777,
      uid,
      gid,
      sizeBytes: size,
      storedBytes: kind === 'file' ? size : 0,
      ...(kind === 'symlink' && { target: Buffer.from(data).toString('utf8') }),
      ...(kind.endsWith('-device') && { device: [field(9), field(10)] as const }),
      content: () => data,
      storedDigest: () => createHash('sha256').update(data).digest('hex'),
    });
  }
}

/** Type bits of `mode` (inode(7)). */
function kindOf(mode: number): EntryKind {
  const kinds: Readonly<Record<number, EntryKind>> = {
    1: 'fifo',
    2: 'character-device',
    4: 'directory',
    6: 'block-device',
    8: 'file',
    10: 'symlink',
    12: 'socket',
  };
  const kind = kinds[mode >> 12];
  if (kind === undefined) throw new ImageFormatError(`Cannot read the initrd: an entry with mode ${mode.toString(8)}`);
  return kind;
}

/**
 * The bytes of a segment that is packed as a whole, shared out among its files by what each of them takes when it is
 * packed alone: the nearest to the truth that there is.
 */
function weighed(entries: readonly ImageEntry[], total: number): ImageEntry[] {
  const files = entries.filter(({ kind, sizeBytes }) => kind === 'file' && sizeBytes > 0);
  const weights = files.map((file) =>
    files.length === 1
      ? 1
      : zstdCompressSync(file.content(), { params: { [constants.ZSTD_c_compressionLevel]: 1 } }).length,
  );
  const shares = new Map(shareOut(total, weights).map((share, index) => [files[index], share]));
  return entries.map((entry) => ({ ...entry, storedBytes: shares.get(entry) ?? 0 }));
}

const align = (at: number): number => Math.ceil(at / ALIGNMENT) * ALIGNMENT;

/** The kernel skips zeros between segments. */
function skipZeros(bytes: Uint8Array, from: number): number {
  let at = from;
  while (bytes[at] === 0) at += 1;
  return at;
}
