/**
 * A squashfs read without mounting it: every entry, and what its content takes.
 *
 * Specification: Linux `Documentation/filesystems/squashfs.rst` and `fs/squashfs/squashfs_fs.h`, version 4.0. Left out:
 * LZMA, LZO and xz, which Node cannot unpack and the pipeline does not use.
 *
 * ```
 *   superblock · data blocks and fragments · inodes · directories · fragment table · export table · ids · xattrs
 *   metadata block := size (16 bits; the highest set: stored as is) · up to 8192 bytes, packed
 * ```
 */
import { createHash } from 'node:crypto';
import { inflateSync, zstdDecompressSync } from 'node:zlib';
import { type EntryKind, type ImageEntry, ImageFormatError } from './image-entry.ts';
import { decodeLz4Block } from './lz4.ts';
import { shareOut } from './share-out.ts';

const MAGIC = 0x7371_7368;
const SUPERBLOCK_BYTES = 96;
const METADATA_BYTES = 8192;
const NONE_32 = 0xffff_ffff;
const NONE_64 = 0xffff_ffff_ffff_ffffn;
const FRAGMENTS_PER_BLOCK = METADATA_BYTES / 16;
const IDS_PER_BLOCK = METADATA_BYTES / 4;
/** Linux has no longer paths. */
const DEEPEST = 2048;
/** squashfs_fs.h, `SQUASHFS_FILE_MAX_SIZE`. */
const LARGEST_BLOCK = 1_048_576;

type Unpack = (input: Uint8Array, maximum: number) => Uint8Array;

/** By `compression` of the superblock. */
const COMPRESSIONS: Readonly<Record<number, { readonly name: string; readonly unpack?: Unpack }>> = {
  1: { name: 'gzip', unpack: (input, maximum) => inflateSync(input, { maxOutputLength: maximum }) },
  2: { name: 'lzma' },
  3: { name: 'lzo' },
  4: { name: 'xz' },
  5: { name: 'lz4', unpack: decodeLz4Block },
  6: { name: 'zstd', unpack: (input, maximum) => zstdDecompressSync(input, { maxOutputLength: maximum }) },
};

/** Inode types; 8 to 14 are the same with more fields. */
const KINDS: readonly (EntryKind | undefined)[] = [
  undefined,
  'directory',
  'file',
  'symlink',
  'block-device',
  'character-device',
  'fifo',
  'socket',
];

/** Prefixes of extended attributes by their type. */
const XATTR_PREFIXES = ['user.', 'trusted.', 'security.'] as const;
const XATTR_ELSEWHERE = 0x100;
const OPAQUE = 'trusted.overlay.opaque';

/** What a squashfs holds. */
export interface Squashfs {
  /** Such as `lz4`. */
  readonly compression: string;
  readonly blockBytes: number;
  /** In the order of the file system; the root itself is `''`, first. */
  readonly entries: readonly ImageEntry[];
  /** Superblock, tables of inodes, names and so on, and the padding at the end. */
  readonly overheadBytes: number;
}

/**
 * Reads a squashfs.
 *
 * @param image - all of it; what follows `bytes_used` counts as padding
 * @throws {ImageFormatError} when it is none, is damaged, or is compressed in a way that Node cannot unpack
 */
export function readSquashfs(image: Uint8Array): Squashfs {
  try {
    return new Reader(image).read();
  } catch (cause) {
    if (cause instanceof ImageFormatError) throw cause;
    throw new ImageFormatError('Cannot read the squashfs: it is damaged', { cause });
  }
}

/** An inode; data of files as it lies on the disk. */
interface Inode {
  readonly type: number;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly xattr: number;
  readonly sizeBytes: number;
  readonly target?: string;
  readonly device?: readonly [number, number];
  readonly directory?: { readonly start: number; readonly offset: number; readonly bytes: number };
  readonly data?: FileData;
}

interface FileData {
  readonly start: number;
  /** As stored: size with bit 24 for "not packed", 0 for a hole. */
  readonly blocks: readonly number[];
  readonly fragment?: { readonly index: number; readonly offset: number };
}

/** One reading position in a table of metadata blocks. */
interface Cursor {
  block: number;
  offset: number;
}

class Reader {
  readonly #image: Uint8Array;
  readonly #view: DataView;
  readonly #blockBytes: number;
  readonly #compression: string;
  readonly #unpack: Unpack;
  readonly #inodeTable: number;
  readonly #directoryTable: number;
  readonly #ids: readonly number[];
  readonly #fragments: readonly { readonly start: number; readonly size: number }[];
  readonly #metadata = new Map<number, { readonly data: Uint8Array; readonly next: number }>();
  /** The fragment that was unpacked last: small files of a folder lie in the same. */
  #unpacked: { readonly index: number; readonly data: Uint8Array } | undefined;

  constructor(image: Uint8Array) {
    if (image.length < SUPERBLOCK_BYTES) throw new ImageFormatError('Cannot read the squashfs: it is cut short');
    this.#image = image;
    this.#view = new DataView(image.buffer, image.byteOffset, image.byteLength);
    if (this.#u32(0) !== MAGIC || this.#u16(28) !== 4) {
      throw new ImageFormatError('Cannot read the squashfs: there is no superblock of version 4');
    }
    if (this.#u64(40) > image.length) {
      throw new ImageFormatError(`Cannot read the squashfs: ${image.length} of its ${this.#u64(40)} bytes are there`);
    }
    this.#blockBytes = this.#u32(12);
    if (this.#blockBytes === 0 || this.#blockBytes > LARGEST_BLOCK) {
      throw new ImageFormatError(`Cannot read the squashfs: blocks of ${this.#blockBytes} bytes`);
    }
    const { name, unpack } = COMPRESSIONS[this.#u16(20)] ?? { name: `method ${this.#u16(20)}` };
    if (unpack === undefined) throw new ImageFormatError(`Cannot read the squashfs: it is packed with ${name}`);
    this.#compression = name;
    this.#unpack = unpack;
    this.#inodeTable = this.#u64(64);
    this.#directoryTable = this.#u64(72);
    this.#ids = this.#readTable(this.#u64(48), this.#u16(26), IDS_PER_BLOCK, (cursor) => this.#take32(cursor));
    this.#fragments = this.#readTable(this.#u64(80), this.#u32(16), FRAGMENTS_PER_BLOCK, (cursor) => {
      const start = this.#take64(cursor);
      const size = this.#take32(cursor);
      this.#take32(cursor);
      return { start, size };
    });
  }

  read(): Squashfs {
    const found: { readonly path: string; readonly inode: Inode }[] = [];
    this.#walk('', this.#refOf(this.#view.getBigUint64(32, true)), found, 0);
    const stored = this.#shares(found.map(({ inode }) => inode));
    const content = [...stored.values()].reduce((sum, bytes) => sum + bytes, 0);
    const entries = found.map(({ path, inode }) => {
      const storedBytes = stored.get(inode) ?? 0;
      // A hard link is the same inode again: it is counted where it comes first.
      stored.delete(inode);
      return this.#entryOf(path, inode, storedBytes);
    });
    return {
      compression: this.#compression,
      blockBytes: this.#blockBytes,
      entries,
      overheadBytes: this.#image.length - content,
    };
  }

  #entryOf(path: string, inode: Inode, storedBytes: number): ImageEntry {
    const kind = KINDS[inode.type > 7 ? inode.type - 7 : inode.type];
    if (kind === undefined) throw new ImageFormatError(`Cannot read the squashfs: /${path} is of type ${inode.type}`);
    const { [OPAQUE]: opaque, ...xattrs } = this.#xattrs(inode.xattr);
    const shown = Object.entries(xattrs).filter(([name]) => !name.startsWith('trusted.overlay.'));
    return {
      path,
      kind,
      mode: inode.mode,
      uid: inode.uid,
      gid: inode.gid,
      sizeBytes: inode.sizeBytes,
      storedBytes,
      ...(inode.target !== undefined && { target: inode.target }),
      ...(inode.device !== undefined && { device: inode.device }),
      ...(opaque !== undefined && { opaque: true }),
      ...(shown.length > 0 && { xattrs: Object.fromEntries(shown) }),
      content: () => (inode.data === undefined ? new Uint8Array(0) : this.#content(inode.data, inode.sizeBytes)),
      storedDigest: () => this.#storedDigest(inode),
    };
  }

  /** Depth first, names in the order of the directory: sorted. */
  #walk(path: string, at: Cursor, found: { path: string; inode: Inode }[], depth: number): void {
    if (depth > DEEPEST) throw new ImageFormatError(`Cannot read the squashfs: /${path} is too deep`);
    const key = at.block * 65_536 + at.offset;
    const known = this.#inodes.get(key);
    if (known?.directory !== undefined) throw new ImageFormatError(`Cannot read the squashfs: /${path} is a loop`);
    const inode = known ?? this.#readInode(at);
    this.#inodes.set(key, inode);
    found.push({ path, inode });
    if (inode.directory === undefined) return;
    const { start, offset, bytes } = inode.directory;
    const cursor: Cursor = { block: this.#directoryTable + start, offset };
    for (let left = bytes; left > 0;) {
      const count = this.#take32(cursor) + 1;
      const block = this.#take32(cursor);
      this.#take32(cursor);
      left -= 12;
      for (let n = 0; n < count; n += 1) {
        const inodeOffset = this.#take16(cursor);
        this.#take32(cursor);
        const nameBytes = this.#take16(cursor) + 1;
        const name = textOf(this.#take(cursor, nameBytes));
        left -= 8 + nameBytes;
        const child = { block: this.#inodeTable + block, offset: inodeOffset };
        this.#walk(path === '' ? name : `${path}/${name}`, child, found, depth + 1);
      }
    }
  }

  readonly #inodes = new Map<number, Inode>();

  #readInode(at: Cursor): Inode {
    const cursor = { ...at };
    const type = this.#take16(cursor);
    const mode = this.#take16(cursor) & 0o7777;
    const uid = this.#ids[this.#take16(cursor)] ?? 0;
    const gid = this.#ids[this.#take16(cursor)] ?? 0;
    this.#take64(cursor); // time and number
    const common = { type, mode, uid, gid, xattr: NONE_32, sizeBytes: 0 };
    switch (type) {
      case 1: {
        const start = this.#take32(cursor);
        this.#take32(cursor);
        const bytes = this.#take16(cursor) - 3;
        return { ...common, directory: { start, offset: this.#take16(cursor), bytes } };
      }
      case 8: {
        this.#take32(cursor);
        const bytes = this.#take32(cursor) - 3;
        const start = this.#take32(cursor);
        this.#take32(cursor);
        this.#take16(cursor);
        const offset = this.#take16(cursor);
        return { ...common, directory: { start, offset, bytes }, xattr: this.#take32(cursor) };
      }
      case 2: {
        const start = this.#take32(cursor);
        const fragment = { index: this.#take32(cursor), offset: this.#take32(cursor) };
        const sizeBytes = this.#take32(cursor);
        return { ...common, sizeBytes, data: this.#readBlocks(cursor, { start, fragment, sizeBytes }) };
      }
      case 9: {
        const start = this.#take64(cursor);
        const sizeBytes = this.#take64(cursor);
        this.#take64(cursor);
        this.#take32(cursor);
        const fragment = { index: this.#take32(cursor), offset: this.#take32(cursor) };
        const xattr = this.#take32(cursor);
        return { ...common, sizeBytes, xattr, data: this.#readBlocks(cursor, { start, fragment, sizeBytes }) };
      }
      case 3:
      case 10: {
        this.#take32(cursor);
        const sizeBytes = this.#take32(cursor);
        const target = textOf(this.#take(cursor, sizeBytes));
        return { ...common, sizeBytes, target, xattr: type === 10 ? this.#take32(cursor) : NONE_32 };
      }
      case 4:
      case 5:
      case 11:
      case 12: {
        this.#take32(cursor);
        const number = this.#take32(cursor);
        // new_encode_dev() of Linux: 12 bits of the major number between the parts of the minor number.
        const device = [(number >>> 8) & 0xfff, (number & 0xff) | ((number >>> 12) & 0xfff00)] as const;
        return { ...common, device, xattr: type > 7 ? this.#take32(cursor) : NONE_32 };
      }
      default: {
        this.#take32(cursor);
        return { ...common, xattr: type > 7 ? this.#take32(cursor) : NONE_32 };
      }
    }
  }

  #readBlocks(
    cursor: Cursor,
    file: {
      readonly start: number;
      readonly fragment: { readonly index: number; readonly offset: number };
      readonly sizeBytes: number;
    },
  ): FileData {
    const { start, fragment, sizeBytes } = file;
    const whole = fragment.index === NONE_32;
    const count = whole ? Math.ceil(sizeBytes / this.#blockBytes) : Math.floor(sizeBytes / this.#blockBytes);
    if (count > this.#image.length) throw new RangeError(`a file of ${sizeBytes} bytes`);
    const blocks = Array.from({ length: count }, () => this.#take32(cursor));
    return { start, blocks, ...(!whole && { fragment }) };
  }

  /**
   * What the content of each inode takes: its own blocks, and its share of the fragments that it has bytes in. Blocks
   * that several files have in common (mksquashfs finds those) are the first one's.
   */
  #shares(inodes: readonly Inode[]): Map<Inode, number> {
    const stored = new Map<Inode, number>();
    const add = (inode: Inode, bytes: number): void => void stored.set(inode, (stored.get(inode) ?? 0) + bytes);
    const seen = new Set<number | string>();
    const users = new Map<number, { readonly inode: Inode; readonly weight: number }[]>();
    for (const inode of new Set(inodes)) {
      const { data } = inode;
      if (data === undefined) continue;
      let at = data.start;
      for (const block of data.blocks) {
        const bytes = block & 0xff_ffff;
        if (bytes > 0 && !seen.has(at)) add(inode, bytes);
        seen.add(at);
        at += bytes;
      }
      const { fragment } = data;
      if (fragment === undefined || seen.has(`${fragment.index} ${fragment.offset}`)) continue;
      seen.add(`${fragment.index} ${fragment.offset}`);
      const list = users.get(fragment.index) ?? [];
      list.push({ inode, weight: inode.sizeBytes % this.#blockBytes });
      users.set(fragment.index, list);
    }
    for (const [index, list] of users) {
      const total = (this.#fragments[index]?.size ?? 0) & 0xff_ffff;
      const shares = shareOut(
        total,
        list.map(({ weight }) => weight),
      );
      for (const [n, { inode }] of list.entries()) add(inode, shares[n] ?? 0);
    }
    return stored;
  }

  #content(data: FileData, sizeBytes: number): Uint8Array {
    const content = new Uint8Array(sizeBytes);
    let [from, to] = [data.start, 0];
    for (const block of data.blocks) {
      const bytes = block & 0xff_ffff;
      if (bytes > 0) content.set(this.#unpackBlock(from, block), to);
      from += bytes;
      to += this.#blockBytes;
    }
    if (data.fragment !== undefined) {
      const { index, offset } = data.fragment;
      const end = offset + (sizeBytes % this.#blockBytes);
      content.set(this.#fragment(index).subarray(offset, end), sizeBytes - (end - offset));
    }
    return content;
  }

  /** Of the blocks as they are, with what tells how to unpack them; of the fragment, which others share, the content. */
  #storedDigest({ data, sizeBytes }: Inode): string {
    const hash = createHash('sha256').update(`${this.#compression} ${this.#blockBytes} ${sizeBytes}\n`);
    if (data === undefined) return hash.digest('hex');
    let at = data.start;
    for (const block of data.blocks) {
      hash.update(`${block}\n`).update(this.#bytes(at, block & 0xff_ffff));
      at += block & 0xff_ffff;
    }
    if (data.fragment !== undefined) {
      const { index, offset } = data.fragment;
      hash.update(this.#fragment(index).subarray(offset, offset + (sizeBytes % this.#blockBytes)));
    }
    return hash.digest('hex');
  }

  #fragment(index: number): Uint8Array {
    if (this.#unpacked?.index === index) return this.#unpacked.data;
    const { start, size } = this.#fragments[index] ?? { start: 0, size: 0 };
    const data = this.#unpackBlock(start, size);
    this.#unpacked = { index, data };
    return data;
  }

  #unpackBlock(start: number, stored: number): Uint8Array {
    const bytes = this.#bytes(start, stored & 0xff_ffff);
    return (stored & 0x100_0000) === 0 ? this.#unpack(bytes, this.#blockBytes) : bytes;
  }

  #xattrs(index: number): Record<string, string> {
    const found: Record<string, string> = {};
    const table = this.#view.getBigUint64(56, true);
    if (index === NONE_32 || table === NONE_64) return found;
    const header = Number(table);
    const entries = this.#u64(header);
    const block = this.#u64(header + 16 + Math.floor((index * 16) / METADATA_BYTES) * 8);
    const at: Cursor = { block, offset: (index * 16) % METADATA_BYTES };
    const cursor = this.#refOf(this.#take64big(at), entries);
    const count = this.#take32(at);
    for (let n = 0; n < count; n += 1) {
      const type = this.#take16(cursor);
      const name = textOf(this.#take(cursor, this.#take16(cursor)));
      let value = this.#take(cursor, this.#take32(cursor));
      if ((type & XATTR_ELSEWHERE) !== 0) {
        const elsewhere = this.#refOf(new DataView(value.buffer, value.byteOffset, 8).getBigUint64(0, true), entries);
        value = this.#take(elsewhere, this.#take32(elsewhere));
      }
      found[`${XATTR_PREFIXES[type & 0xff] ?? `type ${type}.`}${name}`] = Buffer.from(value).toString('hex');
    }
    return found;
  }

  /** A reference: the metadata block from the start of its table, and the offset in it. */
  #refOf(ref: bigint, table: number = this.#inodeTable): Cursor {
    return { block: table + Number(ref >> 16n), offset: Number(ref & 0xffffn) };
  }

  /** A table that is found through a list of its metadata blocks. */
  #readTable<T>(start: number, count: number, perBlock: number, read: (cursor: Cursor) => T): T[] {
    const items: T[] = [];
    for (let first = 0; first < count; first += perBlock) {
      const cursor: Cursor = { block: this.#u64(start + (first / perBlock) * 8), offset: 0 };
      for (let n = first; n < Math.min(count, first + perBlock); n += 1) items.push(read(cursor));
    }
    return items;
  }

  /** Bytes of a table, which may go on in the next metadata block. */
  #take(cursor: Cursor, length: number): Uint8Array {
    const taken = new Uint8Array(length);
    for (let done = 0; done < length;) {
      const { data, next } = this.#metadataAt(cursor.block);
      if (cursor.offset >= data.length) {
        if (data.length === 0) throw new RangeError('an empty metadata block');
        cursor.block = next;
        cursor.offset -= data.length;
        continue;
      }
      const part = data.subarray(cursor.offset, cursor.offset + length - done);
      taken.set(part, done);
      done += part.length;
      cursor.offset += part.length;
    }
    return taken;
  }

  #metadataAt(at: number): { readonly data: Uint8Array; readonly next: number } {
    const known = this.#metadata.get(at);
    if (known !== undefined) return known;
    const header = this.#u16(at);
    const bytes = this.#bytes(at + 2, header & 0x7fff);
    const data = (header & 0x8000) === 0 ? this.#unpack(bytes, METADATA_BYTES) : bytes;
    const made = { data, next: at + 2 + bytes.length };
    this.#metadata.set(at, made);
    return made;
  }

  #take16(cursor: Cursor): number {
    const [low = 0, high = 0] = this.#take(cursor, 2);
    return low | (high << 8);
  }

  #take32(cursor: Cursor): number {
    return this.#take16(cursor) + this.#take16(cursor) * 65_536;
  }

  #take64(cursor: Cursor): number {
    return this.#take32(cursor) + this.#take32(cursor) * 2 ** 32;
  }

  #take64big(cursor: Cursor): bigint {
    return BigInt(this.#take32(cursor)) | (BigInt(this.#take32(cursor)) << 32n);
  }

  #bytes(at: number, length: number): Uint8Array {
    if (at + length > this.#image.length) throw new RangeError(`${length} bytes at ${at} are past the end`);
    return this.#image.subarray(at, at + length);
  }

  #u16(at: number): number {
    return this.#view.getUint16(at, true);
  }

  #u32(at: number): number {
    return this.#view.getUint32(at, true);
  }

  #u64(at: number): number {
    return Number(this.#view.getBigUint64(at, true));
  }
}

const textOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString('utf8');
