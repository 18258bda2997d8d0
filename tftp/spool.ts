/**
 * Bytes on their way between a transfer and a stream of any speed, in a temporary file without a name, so that memory stays
 * small however large the file and however slow the stream: TFTP can neither wait for a reader (its peer gives up) nor send
 * what has no size yet. The space is the system's again when the descriptor is closed, also by kill -9.
 */
import { randomBytes } from 'node:crypto';
import { closeSync, openSync, readSync, unlinkSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import type { Sink } from './sink.ts';

const CHUNK_BYTES = 64 * 1024;

/** Takes the bytes of a transfer as they come, and gives them to one reader in its own time. */
export class SpoolSink implements Sink {
  readonly #fd: number = openNameless();
  #written = 0;
  #ended = false;
  #open = true;
  #changed: PromiseWithResolvers<void> = Promise.withResolvers();

  /** bytes taken so far */
  get bytes(): number {
    return this.#written;
  }

  write(bytes: Uint8Array): void {
    this.#written += writeFully(this.#fd, bytes, this.#written);
    this.#wake();
  }

  commit(): void {
    this.#ended = true;
    this.#wake();
  }

  /** The transfer is over, well or not: no more bytes come. */
  end(): void {
    this.commit();
  }

  /** The bytes as they come, in chunks of at most 64 KiB that the reader may keep; ends after `commit` or `end`. */
  async *chunks(): AsyncGenerator<Uint8Array, void> {
    let at = 0;
    for (;;) {
      const { promise } = this.#changed;
      if (at < this.#written) {
        const chunk = Buffer.allocUnsafe(Math.min(CHUNK_BYTES, this.#written - at));
        const count = readSync(this.#fd, chunk, 0, chunk.length, at);
        if (count === 0) throw new Error('the spool file was cut');
        at += count;
        yield chunk.subarray(0, count);
      } else if (this.#ended) {
        return;
      } else {
        await promise;
      }
    }
  }

  [Symbol.dispose](): void {
    if (this.#open) closeSync(this.#fd);
    this.#open = false;
  }

  #wake(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }
}

/**
 * Writes a stream to its end.
 *
 * @returns a descriptor of what was written, which is the caller's to close
 */
export async function spool(stream: AsyncIterable<Uint8Array>, signal: AbortSignal | undefined): Promise<number> {
  const fd = openNameless();
  try {
    let at = 0;
    for await (const chunk of stream) {
      signal?.throwIfAborted();
      at += writeFully(fd, chunk, at);
    }
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

function openNameless(): number {
  const path = join(tmpdir(), `tftp-${randomBytes(12).toString('hex')}.spool`);
  const fd = openSync(path, 'wx+', 0o600);
  unlinkSync(path);
  return fd;
}

function writeFully(fd: number, bytes: Uint8Array, position: number): number {
  let written = 0;
  while (written < bytes.length) {
    written += writeSync(fd, bytes, written, bytes.length - written, position + written);
  }
  return written;
}
