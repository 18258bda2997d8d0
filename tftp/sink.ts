/**
 * Where a receiver's bytes go: memory, or a hidden temporary file that is put in place in one step when all is there.
 * An upload that ends early leaves everything as it was.
 *
 *   .NAME.RANDOM.part  ──commit──▶  once      link(2): fails when NAME exists
 *                                   replace   rename(2) over NAME
 *                                   append    copied into NAME at the offset asked
 */
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  linkSync,
  openSync,
  readSync,
  renameSync,
  unlinkSync,
  writeSync,
} from 'node:fs';

import { RefusedError, systemCode } from './error.ts';
import { type Descriptor, findRegular, openToWrite, toRefused } from './folder.ts';
import { decodeNetascii, finishNetascii } from './netascii.ts';
import { ERROR_CODE } from './packet.ts';

/** Bytes that arrive. */
export interface Sink extends Disposable {
  /** Takes the next bytes. @throws {RefusedError} when they cannot be kept, or earlier ones could not */
  write(bytes: Uint8Array): void;
  /** All is there: puts it in place. @throws {RefusedError} when that fails; nothing has changed then */
  commit(): void;
  /** Forgets what was not committed; `write` and `commit` then throw. */
  [Symbol.dispose](): void;
}

/** What may happen to a file that is there: nothing, replacement, growth. */
export type WriteRule = 'once' | 'replace' | 'append';

/** Others (the read-only server on port 69) may read what was written. */
const FILE_MODE = 0o644;
const COPY_CHUNK_BYTES = 64 * 1024;
/** What is collected before it is written: a call for each block costs more than the block. */
const PENDING_BYTES_MAX = 32 * 1024;

/** Collects bytes in memory, as they are: the client's socket gives each datagram memory of its own. */
export class MemorySink implements Sink {
  readonly #chunks: Uint8Array[] = [];

  write(bytes: Uint8Array): void {
    this.#chunks.push(bytes);
  }

  commit(): void {}

  /** All bytes, as one. */
  take(): Uint8Array {
    return Buffer.concat(this.#chunks);
  }

  [Symbol.dispose](): void {}
}

/** Decodes netascii on the way to another sink. */
export class NetasciiSink implements Sink {
  readonly #to: Sink;
  #pendingCr = false;

  constructor(to: Sink) {
    this.#to = to;
  }

  write(bytes: Uint8Array): void {
    const decoded = decodeNetascii(bytes, this.#pendingCr);
    this.#pendingCr = decoded.pendingCr;
    if (decoded.bytes.length > 0) this.#to.write(decoded.bytes);
  }

  commit(): void {
    const rest = finishNetascii(this.#pendingCr);
    if (rest.length > 0) this.#to.write(rest);
    this.#to.commit();
  }

  [Symbol.dispose](): void {
    this.#to[Symbol.dispose]();
  }
}

/** Where a file is written. */
export interface FileSinkOptions {
  /** the folder; taken over, and closed at the end */
  readonly parent: Descriptor;
  /** the name in it, one part */
  readonly part: string;
  readonly rule: WriteRule;
  /** `append`: where the bytes go; `undefined`: only as the first ones */
  readonly offset?: number | undefined;
  /** `append`: size that the file may reach */
  readonly bytesMax: number;
  readonly onDispose?: ((sink: FileSink) => void) | undefined;
}

/** Writes a file, by one of the rules. */
export class FileSink implements Sink {
  readonly #options: FileSinkOptions;
  readonly #temporary: string;
  readonly #fd: number;
  /** not yet written; allocated with the first bytes */
  #pending: Uint8Array | undefined;
  #pendingLength = 0;
  #open = true;

  /** @throws {RefusedError} when the rule forbids it already now */
  constructor(options: FileSinkOptions) {
    this.#options = options;
    this.#temporary = `${options.parent.path}/.${options.part}.${randomBytes(6).toString('hex')}.part`;
    try {
      this.#checkRule();
      const { O_RDWR, O_CREAT, O_EXCL, O_NOFOLLOW } = constants;
      this.#fd = openSync(this.#temporary, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, FILE_MODE);
    } catch (error) {
      options.parent[Symbol.dispose]();
      throw toRefused(error);
    }
  }

  write(bytes: Uint8Array): void {
    this.#checkOpen();
    try {
      if (this.#pendingLength + bytes.length > PENDING_BYTES_MAX) this.#flush();
      if (bytes.length > PENDING_BYTES_MAX) {
        writeFully(this.#fd, bytes, null);
        return;
      }
      this.#pending ??= new Uint8Array(PENDING_BYTES_MAX);
      this.#pending.set(bytes, this.#pendingLength);
      this.#pendingLength += bytes.length;
    } catch (error) {
      throw toRefused(error);
    }
  }

  commit(): void {
    this.#checkOpen();
    const { parent, part, rule } = this.#options;
    const target = `${parent.path}/${part}`;
    try {
      this.#flush();
      this.#checkRule();
      if (rule === 'replace') renameSync(this.#temporary, target);
      // link(2) fails when the name is there, which rename(2) does not.
      else if (rule === 'once') linkSync(this.#temporary, target);
      else this.#append(target);
    } catch (error) {
      throw toRefused(error);
    }
  }

  [Symbol.dispose](): void {
    if (!this.#open) return;
    this.#open = false;
    this.#pending = undefined;
    try {
      unlinkSync(this.#temporary);
    } catch (error) {
      // Gone by rename, or with its folder.
      if (systemCode(error) !== 'ENOENT') throw error;
    } finally {
      this.#options.parent[Symbol.dispose]();
      this.#options.onDispose?.(this);
      closeSync(this.#fd);
    }
  }

  #flush(): void {
    if (this.#pending === undefined || this.#pendingLength === 0) return;
    writeFully(this.#fd, this.#pending.subarray(0, this.#pendingLength), null);
    this.#pendingLength = 0;
  }

  #checkOpen(): void {
    if (!this.#open) throw new RefusedError(ERROR_CODE.notDefined, 'a newer upload of this name has begun');
  }

  #checkRule(): void {
    const { parent, part, rule, offset } = this.#options;
    const found = findRegular(parent, part);
    if (rule === 'once' && found !== undefined) {
      throw new RefusedError(ERROR_CODE.alreadyExists, 'the file exists and is written once only');
    }
    if (rule !== 'append') return;
    const size = found?.size ?? 0;
    if (offset === undefined && size > 0) {
      const message = `the file exists and only grows: its size is ${size}, ask with the option offset`;
      throw new RefusedError(ERROR_CODE.alreadyExists, message);
    }
    if ((offset ?? 0) > size) {
      throw new RefusedError(ERROR_CODE.notDefined, `offset ${offset} is behind the end: the size is ${size}`);
    }
  }

  /** The first time the temporary file becomes the file; later its bytes are copied in, or none of them. */
  #append(target: string): void {
    const { parent, part, offset = 0, bytesMax } = this.#options;
    const length = fstatSync(this.#fd).size;
    if (offset + length > bytesMax) {
      throw new RefusedError(
        ERROR_CODE.diskFull,
        `${offset + length} bytes are more than the ${bytesMax} allowed here`,
      );
    }
    if (findRegular(parent, part) === undefined) {
      renameSync(this.#temporary, target);
      return;
    }
    using file = openToWrite(parent, part);
    const sizeBefore = fstatSync(file.fd).size;
    const chunk = new Uint8Array(Math.min(COPY_CHUNK_BYTES, length));
    try {
      for (let at = 0; at < length;) {
        const count = readSync(this.#fd, chunk, 0, chunk.length, at);
        if (count === 0) throw new RefusedError(ERROR_CODE.notDefined, 'the server lost a part of the upload');
        writeFully(file.fd, chunk.subarray(0, count), offset + at);
        at += count;
      }
    } catch (error) {
      ftruncateSync(file.fd, sizeBefore);
      throw error;
    }
  }
}

function writeFully(fd: number, bytes: Uint8Array, position: number | null): void {
  let written = 0;
  while (written < bytes.length) {
    const at = position === null ? null : position + written;
    written += writeSync(fd, bytes, written, bytes.length - written, at);
  }
}
