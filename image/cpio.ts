/**
 * The "newc" cpio format, as the Linux kernel reads an initramfs from it.
 *
 * Specification: Linux `Documentation/driver-api/early-userspace/buffer-format.rst`.
 * We write it ourselves because an initramfs needs a device node (`/dev/console`) without root, owners and times that
 * do not depend on who builds, and an order that never changes. Hard links are left out: nothing here has any.
 *
 * ```
 *   archive := entry* trailer
 *   entry   := header(110 bytes: "070701" + 13 fields of 8 hex digits) name NUL pad(4) data pad(4)
 * ```
 */

/**
 * Something that an initramfs holds. Paths are relative, without a leading slash; `mode` holds permission bits only.
 *
 * @typeParam Content - bytes, or whatever stands for so many of them
 */
export type CpioEntry<Content extends Sized = Uint8Array> =
  | { readonly kind: 'directory'; readonly path: string; readonly mode: number }
  | { readonly kind: 'file'; readonly path: string; readonly mode: number; readonly content: Content }
  | { readonly kind: 'symlink'; readonly path: string; readonly target: string }
  | {
      readonly kind: 'character-device';
      readonly path: string;
      readonly mode: number;
      readonly major: number;
      readonly minor: number;
    };

/** Its length in bytes. */
interface Sized {
  readonly length: number;
}

/** File type bits of `mode` (inode(7)). */
const TYPE_BITS = {
  directory: 0o040000,
  file: 0o100000,
  symlink: 0o120000,
  'character-device': 0o020000,
} as const;

/** No file in newc can be larger: its size has 8 hex digits (buffer-format, `c_filesize`). */
const MAX_FILE_BYTES = 0xffff_ffff;

const TRAILER = 'TRAILER!!!';
const ALIGNMENT = 4;

/**
 * Encodes entries as one newc archive: owner 0:0, times 0, inodes counted from 1, missing parent folders added.
 *
 * @param entries - in the order in which the kernel creates them; a path may come once
 * @returns the archive, a multiple of 4 bytes, so that another segment can follow it
 * @throws {RangeError} when a path is absolute, leaves the root, comes twice, or a file is too large
 */
export function encodeCpio(entries: readonly CpioEntry[]): Uint8Array {
  return concatenate(encodeCpioParts(entries));
}

/** The same as pieces one after the other, the content of files as it was handed in: nothing large is copied. */
export function encodeCpioParts<Content extends Sized>(
  entries: readonly CpioEntry<Content>[],
): (Uint8Array | Content)[] {
  const parts: (Uint8Array | Content)[] = [];
  const seen = new Set<string>();
  let inode = 0;
  const add = (entry: CpioEntry<Content>): void => {
    inode += 1;
    parts.push(...encodeEntry(entry, inode));
  };
  for (const entry of entries) {
    checkPath(entry.path);
    for (const parent of parentsOf(entry.path)) {
      if (seen.has(parent)) continue;
      seen.add(parent);
      add({ kind: 'directory', path: parent, mode: 0o755 });
    }
    if (seen.has(entry.path)) {
      if (entry.kind === 'directory') continue;
      throw new RangeError(`Cannot pack "${entry.path}" into the initramfs: the path comes twice`);
    }
    seen.add(entry.path);
    add(entry);
  }
  parts.push(...encodeRecord({ name: TRAILER, inode: 0, mode: 0, links: 1, data: new Uint8Array(0) }));
  return parts;
}

function encodeEntry<Content extends Sized>(entry: CpioEntry<Content>, inode: number): (Uint8Array | Content)[] {
  const name = entry.path;
  switch (entry.kind) {
    case 'directory':
      return encodeRecord({ name, inode, mode: TYPE_BITS.directory | entry.mode, links: 2, data: new Uint8Array(0) });
    case 'file':
      if (entry.content.length > MAX_FILE_BYTES) {
        throw new RangeError(`Cannot pack "${name}" into the initramfs: ${entry.content.length} bytes are over 4 GiB`);
      }
      return encodeRecord({ name, inode, mode: TYPE_BITS.file | entry.mode, links: 1, data: entry.content });
    case 'symlink': {
      const data = new TextEncoder().encode(entry.target);
      return encodeRecord({ name, inode, mode: TYPE_BITS.symlink | 0o777, links: 1, data });
    }
    case 'character-device': {
      const mode = TYPE_BITS['character-device'] | entry.mode;
      return encodeRecord({ name, inode, mode, links: 1, data: new Uint8Array(0), device: [entry.major, entry.minor] });
    }
    default:
      return entry satisfies never;
  }
}

interface CpioRecord<Content> {
  readonly name: string;
  readonly inode: number;
  /** Type and permission bits. */
  readonly mode: number;
  readonly links: number;
  readonly data: Content;
  /** Major and minor number of a device node. */
  readonly device?: readonly [number, number];
}

function encodeRecord<Content extends Sized>(record: CpioRecord<Content>): (Uint8Array | Content)[] {
  const name = new TextEncoder().encode(`${record.name}\0`);
  const [major, minor] = record.device ?? [0, 0];
  const fields = [
    record.inode,
    record.mode,
    0, // uid
    0, // gid
    record.links,
    0, // mtime
    record.data.length,
    0, // major number of the device that the file is on
    0, // its minor number
    major,
    minor,
    name.length,
    0, // checksum: always 0 in newc
  ];
  const header = `070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}`;
  const head = concatenate([new TextEncoder().encode(header), name]);
  return [head, padding(head.length), record.data, padding(record.data.length)];
}

function padding(length: number): Uint8Array {
  return new Uint8Array((ALIGNMENT - (length % ALIGNMENT)) % ALIGNMENT);
}

function parentsOf(path: string): string[] {
  const parts = path.split('/');
  return parts.slice(1).map((_, index) => parts.slice(0, index + 1).join('/'));
}

function checkPath(path: string): void {
  const parts = path.split('/');
  if (parts.some((part) => part === '' || part === '.' || part === '..') || path.includes('\0')) {
    throw new RangeError(`Cannot pack "${path}" into the initramfs: not a relative path inside it`);
  }
}

function concatenate(parts: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    all.set(part, offset);
    offset += part.length;
  }
  return all;
}
