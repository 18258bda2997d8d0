/**
 * The bytes of a squashfs: its superblock, and tables of packed metadata blocks to read from.
 *
 * ```
 *   metadata block := size (16 bits; the highest set: stored as is) · up to 8192 bytes, packed
 * ```
 */
import { inflateSync, zstdDecompressSync } from 'node:zlib';
import { ImageFormatError } from './image-entry.ts';
import { decodeLz4Block } from './lz4.ts';

const MAGIC = 0x7371_7368;
const SUPERBLOCK_BYTES = 96;
/** Of a metadata block, unpacked. */
const METADATA_BYTES = 8192;
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

/** One reading position in a table of metadata blocks. */
export interface Cursor {
  block: number;
  offset: number;
}

/** A squashfs to read from. Numbers are little endian; what is past the end is a RangeError. */
export class SquashfsData {
  readonly compression: string;
  readonly blockBytes: number;
  readonly length: number;
  readonly #image: Uint8Array;
  readonly #view: DataView;
  readonly #unpack: Unpack;
  readonly #metadata = new Map<number, { readonly data: Uint8Array; readonly next: number }>();

  /** @throws {ImageFormatError} when there is no superblock, the end is missing, or Node cannot unpack it */
  constructor(image: Uint8Array) {
    if (image.length < SUPERBLOCK_BYTES) throw new ImageFormatError('Cannot read the squashfs: it is cut short');
    this.#image = image;
    this.length = image.length;
    this.#view = new DataView(image.buffer, image.byteOffset, image.byteLength);
    if (this.u32(0) !== MAGIC || this.u16(28) !== 4) {
      throw new ImageFormatError('Cannot read the squashfs: there is no superblock of version 4');
    }
    if (this.u64(40) > image.length) {
      throw new ImageFormatError(`Cannot read the squashfs: ${image.length} of its ${this.u64(40)} bytes are there`);
    }
    this.blockBytes = this.u32(12);
    if (this.blockBytes === 0 || this.blockBytes > LARGEST_BLOCK) {
      throw new ImageFormatError(`Cannot read the squashfs: blocks of ${this.blockBytes} bytes`);
    }
    const { name, unpack } = COMPRESSIONS[this.u16(20)] ?? { name: `method ${this.u16(20)}` };
    if (unpack === undefined) throw new ImageFormatError(`Cannot read the squashfs: it is packed with ${name}`);
    this.compression = name;
    this.#unpack = unpack;
  }

  /** Unpacks a block of data; `stored` is its size with bit 24 for "not packed". */
  unpackBlock(start: number, stored: number): Uint8Array {
    const bytes = this.bytes(start, stored & 0xff_ffff);
    return (stored & 0x100_0000) === 0 ? this.#unpack(bytes, this.blockBytes) : bytes;
  }

  /** A reference: the metadata block from the start of its table, and the offset in it. */
  cursorOf(ref: bigint, table: number): Cursor {
    return { block: table + Number(ref >> 16n), offset: Number(ref & 0xffffn) };
  }

  /** Of a table that is found through a list of its metadata blocks: the place of its item number `index`. */
  cursorIn(list: number, index: number, itemBytes: number): Cursor {
    const at = index * itemBytes;
    return { block: this.u64(list + Math.floor(at / METADATA_BYTES) * 8), offset: at % METADATA_BYTES };
  }

  /** Bytes of a table, which may go on in the next metadata block. */
  take(cursor: Cursor, length: number): Uint8Array {
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
    const header = this.u16(at);
    const bytes = this.bytes(at + 2, header & 0x7fff);
    const data = (header & 0x8000) === 0 ? this.#unpack(bytes, METADATA_BYTES) : bytes;
    const made = { data, next: at + 2 + bytes.length };
    this.#metadata.set(at, made);
    return made;
  }

  take16(cursor: Cursor): number {
    const [low = 0, high = 0] = this.take(cursor, 2);
    return low | (high << 8);
  }

  take32(cursor: Cursor): number {
    return this.take16(cursor) + this.take16(cursor) * 65_536;
  }

  take64(cursor: Cursor): number {
    return this.take32(cursor) + this.take32(cursor) * 2 ** 32;
  }

  take64big(cursor: Cursor): bigint {
    return BigInt(this.take32(cursor)) | (BigInt(this.take32(cursor)) << 32n);
  }

  bytes(at: number, length: number): Uint8Array {
    if (at + length > this.#image.length) throw new RangeError(`${length} bytes at ${at} are past the end`);
    return this.#image.subarray(at, at + length);
  }

  u16(at: number): number {
    return this.#view.getUint16(at, true);
  }

  u32(at: number): number {
    return this.#view.getUint32(at, true);
  }

  u64(at: number): number {
    return Number(this.#view.getBigUint64(at, true));
  }

  u64big(at: number): bigint {
    return this.#view.getBigUint64(at, true);
  }
}

/** Names are bytes; all but a few are UTF-8. */
export const textOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString('utf8');
