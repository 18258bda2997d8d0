/**
 * A squashfs read without mounting it: every entry, and what its content takes.
 *
 * Specification: Linux `Documentation/filesystems/squashfs.rst` and `fs/squashfs/squashfs_fs.h`, version 4.0. Left out:
 * LZMA, LZO and xz, which Node cannot unpack and the pipeline does not use.
 *
 * ```
 *   superblock · data blocks and fragments · inodes · directories · fragment table · export table · ids · xattrs
 * ```
 */
import { createHash } from 'node:crypto';
import { type ImageEntry, ImageFormatError } from './image-entry.ts';
import { shareOut } from './share-out.ts';
import { type Cursor, SquashfsData, textOf } from './squashfs-data.ts';
import { type FileData, type Inode, kindOf, readInode, readXattrs } from './squashfs-inode.ts';

/** Linux has no longer paths. */
const DEEPEST = 2048;
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

class Reader {
  readonly #data: SquashfsData;
  readonly #inodeTable: number;
  readonly #directoryTable: number;
  readonly #ids: readonly number[];
  readonly #fragments: readonly { readonly start: number; readonly size: number }[];
  readonly #inodes = new Map<number, Inode>();
  /** The fragment that was unpacked last: small files of a folder lie in the same. */
  #unpacked: { readonly index: number; readonly data: Uint8Array } | undefined;

  constructor(image: Uint8Array) {
    const data = new SquashfsData(image);
    this.#data = data;
    this.#inodeTable = data.u64(64);
    this.#directoryTable = data.u64(72);
    const [idTable, fragmentTable] = [data.u64(48), data.u64(80)];
    this.#ids = listOf(data.u16(26), (index) => data.take32(data.cursorIn(idTable, index, 4)));
    this.#fragments = listOf(data.u32(16), (index) => {
      const cursor = data.cursorIn(fragmentTable, index, 16);
      return { start: data.take64(cursor), size: data.take32(cursor) };
    });
  }

  read(): Squashfs {
    const found: { readonly path: string; readonly inode: Inode }[] = [];
    this.#walk('', this.#data.cursorOf(this.#data.u64big(32), this.#inodeTable), found, 0);
    const stored = this.#shares(found.map(({ inode }) => inode));
    const content = [...stored.values()].reduce((sum, bytes) => sum + bytes, 0);
    const entries = found.map(({ path, inode }) => {
      const storedBytes = stored.get(inode) ?? 0;
      // A hard link is the same inode again: it is counted where it comes first.
      stored.delete(inode);
      return this.#entryOf(path, inode, storedBytes);
    });
    return {
      compression: this.#data.compression,
      blockBytes: this.#data.blockBytes,
      entries,
      overheadBytes: this.#data.length - content,
    };
  }

  #entryOf(path: string, inode: Inode, storedBytes: number): ImageEntry {
    const { [OPAQUE]: opaque, ...xattrs } = readXattrs(this.#data, inode.xattr);
    const shown = Object.entries(xattrs).filter(([name]) => !name.startsWith('trusted.overlay.'));
    return {
      path,
      kind: kindOf(inode, path),
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
    const inode = known ?? readInode(this.#data, at, this.#ids);
    this.#inodes.set(key, inode);
    found.push({ path, inode });
    if (inode.directory === undefined) return;
    const { start, offset, bytes } = inode.directory;
    const cursor: Cursor = { block: this.#directoryTable + start, offset };
    for (let left = bytes; left > 0;) {
      const count = this.#data.take32(cursor) + 1;
      const block = this.#data.take32(cursor);
      this.#data.take32(cursor);
      left -= 12;
      for (let n = 0; n < count; n += 1) {
        const inodeOffset = this.#data.take16(cursor);
        this.#data.take32(cursor);
        const nameBytes = this.#data.take16(cursor) + 1;
        const name = textOf(this.#data.take(cursor, nameBytes));
        left -= 8 + nameBytes;
        const child = { block: this.#inodeTable + block, offset: inodeOffset };
        this.#walk(path === '' ? name : `${path}/${name}`, child, found, depth + 1);
      }
    }
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
      list.push({ inode, weight: inode.sizeBytes % this.#data.blockBytes });
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
      if (bytes > 0) content.set(this.#data.unpackBlock(from, block), to);
      from += bytes;
      to += this.#data.blockBytes;
    }
    if (data.fragment !== undefined) {
      const { index, offset } = data.fragment;
      const end = offset + (sizeBytes % this.#data.blockBytes);
      content.set(this.#fragment(index).subarray(offset, end), sizeBytes - (end - offset));
    }
    return content;
  }

  /** Of the blocks as they are, with what tells how to unpack them; of the fragment, which others share, the content. */
  #storedDigest({ data, sizeBytes }: Inode): string {
    const hash = createHash('sha256').update(`${this.#data.compression} ${this.#data.blockBytes} ${sizeBytes}\n`);
    if (data === undefined) return hash.digest('hex');
    let at = data.start;
    for (const block of data.blocks) {
      hash.update(`${block}\n`).update(this.#data.bytes(at, block & 0xff_ffff));
      at += block & 0xff_ffff;
    }
    if (data.fragment !== undefined) {
      const { index, offset } = data.fragment;
      hash.update(this.#fragment(index).subarray(offset, offset + (sizeBytes % this.#data.blockBytes)));
    }
    return hash.digest('hex');
  }

  #fragment(index: number): Uint8Array {
    if (this.#unpacked?.index === index) return this.#unpacked.data;
    const { start, size } = this.#fragments[index] ?? { start: 0, size: 0 };
    const data = this.#data.unpackBlock(start, size);
    this.#unpacked = { index, data };
    return data;
  }
}

function listOf<T>(length: number, read: (index: number) => T): T[] {
  return Array.from({ length }, (_, index) => read(index));
}
