/**
 * Where a sender's bytes come from: memory, a file as it is, a file as netascii. Reading is synchronous: a window of
 * 64 blocks from the page cache costs less than one asynchronous call.
 */
import { closeSync, fstatSync, readSync, readvSync } from 'node:fs';

import { RefusedError } from './error.ts';
import { encodeNetascii, netasciiLength } from './netascii.ts';
import { ERROR_CODE } from './packet.ts';

/** Bytes that are sent. */
export interface Source extends Disposable {
  /** bytes on the wire, fixed when the source was opened */
  readonly size: number;
  /**
   * Fills the buffers, one after the other.
   *
   * @param offset - within 0 … size; what was read may be asked again
   * @throws {RefusedError} when the bytes are not there any more
   */
  read(offset: number, into: readonly Uint8Array[]): void;
}

/** Chunk in which a file is encoded. */
const CHUNK_BYTES = 64 * 1024;
/** Encoded bytes that are kept behind those asked: a window may be sent again. Before that, encoding begins anew. */
const KEPT_BYTES = 128 * 1024;

/** Bytes in memory. */
export class MemorySource implements Source {
  readonly size: number;
  readonly #bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.size = bytes.length;
  }

  read(offset: number, into: readonly Uint8Array[]): void {
    let at = offset;
    for (const buffer of into) {
      buffer.set(this.#bytes.subarray(at, at + buffer.length));
      at += buffer.length;
    }
  }

  [Symbol.dispose](): void {}
}

/** A regular file as it is. It may grow meanwhile: its size is that of the moment it was opened. */
export class FileSource implements Source {
  readonly size: number;
  readonly #fd: number;

  /** Takes over the descriptor, of a regular file, and closes it when disposed of. */
  constructor(fd: number) {
    this.#fd = fd;
    this.size = fstatSync(fd).size;
  }

  read(offset: number, into: readonly Uint8Array[]): void {
    let wanted = 0;
    for (const buffer of into) wanted += buffer.length;
    if (wanted === 0) return;
    if (readvSync(this.#fd, into, offset) === wanted) return;
    // Short, which a file on some network file systems may be: block by block, then.
    let at = offset;
    for (const buffer of into) at += readFully(this.#fd, buffer, at, this.size);
  }

  [Symbol.dispose](): void {
    closeSync(this.#fd);
  }
}

/** A regular file as netascii. Its size is found by reading it once, so that `tsize` is exact. */
export class NetasciiSource implements Source {
  readonly size: number;
  readonly #fd: number;
  readonly #fileSize: number;
  /** bytes of the file that are encoded */
  #fileAt = 0;
  /** encoded bytes that may be asked again, and where they begin */
  #held: Uint8Array = new Uint8Array(0);
  #heldAt = 0;

  private constructor(fd: number, fileSize: number, size: number) {
    this.#fd = fd;
    this.#fileSize = fileSize;
    this.size = size;
  }

  /** Takes over the descriptor, of a regular file; closes it when it throws. */
  static async open(fd: number): Promise<NetasciiSource> {
    try {
      const fileSize = fstatSync(fd).size;
      const chunk = new Uint8Array(CHUNK_BYTES);
      let size = 0;
      for (let at = 0; at < fileSize;) {
        const part = chunk.subarray(0, Math.min(chunk.length, fileSize - at));
        at += readFully(fd, part, at, fileSize);
        size += netasciiLength(part);
        // A long file must not hold up the other transfers.
        if (at % (16 * CHUNK_BYTES) === 0) await new Promise((resolve) => setImmediate(resolve));
      }
      return new NetasciiSource(fd, fileSize, size);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  read(offset: number, into: readonly Uint8Array[]): void {
    let at = offset;
    const end = offset + into.reduce((sum, buffer) => sum + buffer.length, 0);
    this.#holdTo(offset, end);
    for (const buffer of into) {
      const from = at - this.#heldAt;
      buffer.set(this.#held.subarray(from, from + buffer.length));
      at += buffer.length;
    }
  }

  [Symbol.dispose](): void {
    closeSync(this.#fd);
  }

  /** Drops what is long before `start`, and encodes on until `end`. */
  #holdTo(start: number, end: number): void {
    if (start < this.#heldAt) {
      this.#held = new Uint8Array(0);
      this.#heldAt = 0;
      this.#fileAt = 0;
    }
    const keptAt = Math.max(this.#heldAt, Math.min(start - KEPT_BYTES, this.#heldAt + this.#held.length));
    const parts = [this.#held.subarray(keptAt - this.#heldAt)];
    let length = parts[0]?.length ?? 0;
    while (keptAt + length < end) {
      const chunk = new Uint8Array(Math.min(CHUNK_BYTES, this.#fileSize - this.#fileAt));
      if (chunk.length === 0) throw new RefusedError(ERROR_CODE.notDefined, 'the file has changed while it was read');
      this.#fileAt += readFully(this.#fd, chunk, this.#fileAt, this.#fileSize);
      const encoded = encodeNetascii(chunk);
      parts.push(encoded);
      length += encoded.length;
    }
    this.#held = parts.length === 1 ? (parts[0] ?? this.#held) : Buffer.concat(parts);
    this.#heldAt = keptAt;
  }
}

/** Fills the buffer from the file, or says that the file has become shorter. */
function readFully(fd: number, buffer: Uint8Array, position: number, size: number): number {
  let filled = 0;
  while (filled < buffer.length) {
    const count = readSync(fd, buffer, filled, buffer.length - filled, position + filled);
    if (count === 0) {
      const message = `the file was cut to ${position + filled} bytes while its ${size} were read`;
      throw new RefusedError(ERROR_CODE.notDefined, message);
    }
    filled += count;
  }
  return filled;
}
