/** Inodes of a squashfs and their extended attributes (`fs/squashfs/squashfs_fs.h`). */
import { type EntryKind, ImageFormatError } from './image-entry.ts';
import { type Cursor, type SquashfsData, textOf } from './squashfs-data.ts';

const NONE_32 = 0xffff_ffff;
const NONE_64 = 0xffff_ffff_ffff_ffffn;

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

/** An inode; data of files as it lies on the disk. */
export interface Inode {
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

export interface FileData {
  readonly start: number;
  /** As stored: size with bit 24 for "not packed", 0 for a hole. */
  readonly blocks: readonly number[];
  readonly fragment?: { readonly index: number; readonly offset: number };
}

/** What an inode is. @throws {ImageFormatError} */
export function kindOf({ type }: Inode, path: string): EntryKind {
  const kind = KINDS[type > 7 ? type - 7 : type];
  if (kind === undefined) throw new ImageFormatError(`Cannot read the squashfs: /${path} is of type ${type}`);
  return kind;
}

/** @param ids - of owners, which inodes name by their index */
export function readInode(from: SquashfsData, at: Cursor, ids: readonly number[]): Inode {
  const cursor = { ...at };
  const type = from.take16(cursor);
  const mode = from.take16(cursor) & 0o7777;
  const uid = ids[from.take16(cursor)] ?? 0;
  const gid = ids[from.take16(cursor)] ?? 0;
  from.take64(cursor); // time and number
  const common = { type, mode, uid, gid, xattr: NONE_32, sizeBytes: 0 };
  switch (type) {
    case 1: {
      const start = from.take32(cursor);
      from.take32(cursor);
      const bytes = from.take16(cursor) - 3;
      return { ...common, directory: { start, offset: from.take16(cursor), bytes } };
    }
    case 8: {
      from.take32(cursor);
      const bytes = from.take32(cursor) - 3;
      const start = from.take32(cursor);
      from.take32(cursor);
      from.take16(cursor);
      const offset = from.take16(cursor);
      return { ...common, directory: { start, offset, bytes }, xattr: from.take32(cursor) };
    }
    case 2: {
      const start = from.take32(cursor);
      const fragment = { index: from.take32(cursor), offset: from.take32(cursor) };
      const sizeBytes = from.take32(cursor);
      return { ...common, sizeBytes, data: readBlocks(from, cursor, { start, fragment, sizeBytes }) };
    }
    case 9: {
      const start = from.take64(cursor);
      const sizeBytes = from.take64(cursor);
      from.take64(cursor);
      from.take32(cursor);
      const fragment = { index: from.take32(cursor), offset: from.take32(cursor) };
      const xattr = from.take32(cursor);
      return { ...common, sizeBytes, xattr, data: readBlocks(from, cursor, { start, fragment, sizeBytes }) };
    }
    case 3:
    case 10: {
      from.take32(cursor);
      const sizeBytes = from.take32(cursor);
      const target = textOf(from.take(cursor, sizeBytes));
      return { ...common, sizeBytes, target, xattr: type === 10 ? from.take32(cursor) : NONE_32 };
    }
    case 4:
    case 5:
    case 11:
    case 12: {
      from.take32(cursor);
      const number = from.take32(cursor);
      // new_encode_dev() of Linux: 12 bits of the major number between the parts of the minor number.
      const device = [(number >>> 8) & 0xfff, (number & 0xff) | ((number >>> 12) & 0xfff00)] as const;
      return { ...common, device, xattr: type > 7 ? from.take32(cursor) : NONE_32 };
    }
    default: {
      from.take32(cursor);
      return { ...common, xattr: type > 7 ? from.take32(cursor) : NONE_32 };
    }
  }
}

function readBlocks(
  from: SquashfsData,
  cursor: Cursor,
  file: {
    readonly start: number;
    readonly fragment: { readonly index: number; readonly offset: number };
    readonly sizeBytes: number;
  },
): FileData {
  const { start, fragment, sizeBytes } = file;
  const whole = fragment.index === NONE_32;
  const count = whole ? Math.ceil(sizeBytes / from.blockBytes) : Math.floor(sizeBytes / from.blockBytes);
  if (count > from.length) throw new RangeError(`a file of ${sizeBytes} bytes`);
  const blocks = Array.from({ length: count }, () => from.take32(cursor));
  return { start, blocks, ...(!whole && { fragment }) };
}

/** Values in hex, by name; none for an index that says so. */
export function readXattrs(from: SquashfsData, index: number): Record<string, string> {
  const found: Record<string, string> = {};
  const table = from.u64big(56);
  if (index === NONE_32 || table === NONE_64) return found;
  const header = Number(table);
  const entries = from.u64(header);
  const at = from.cursorIn(header + 16, index, 16);
  const cursor = from.cursorOf(from.take64big(at), entries);
  const count = from.take32(at);
  for (let n = 0; n < count; n += 1) {
    const type = from.take16(cursor);
    const name = textOf(from.take(cursor, from.take16(cursor)));
    let value = from.take(cursor, from.take32(cursor));
    if ((type & XATTR_ELSEWHERE) !== 0) {
      const elsewhere = from.cursorOf(new DataView(value.buffer, value.byteOffset, 8).getBigUint64(0, true), entries);
      value = from.take(elsewhere, from.take32(elsewhere));
    }
    found[`${XATTR_PREFIXES[type & 0xff] ?? `type ${type}.`}${name}`] = Buffer.from(value).toString('hex');
  }
  return found;
}
