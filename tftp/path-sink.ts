/**
 * Where the client's `getToFile` writes: a hidden file beside the target, which takes its place in one step when all is there.
 *
 *   .NAME.PID-RANDOM.part  ──commit: rename(2)──▶  NAME
 *
 * A download that ends early leaves the target as it was and nothing beside it. A process that is killed leaves its file:
 * the next download of the same target removes it, when its process is gone and it has been still for a minute (the folder
 * may be shared with another machine, whose processes cannot be seen).
 */
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  fchmodSync,
  lstatSync,
  openSync,
  readdirSync,
  renameSync,
  statfsSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';

import { systemCode } from './error.ts';
import type { Sink } from './sink.ts';

/** A name has 255 bytes at most, and what is added to it needs room. */
const STEM_BYTES_MAX = 200;
const STILL_MS = 60_000;
const MODE_BITS = 0o7777;

/** Writes beside the file, and takes its place when all is there. */
export class PathSink implements Sink {
  readonly #file: string;
  readonly #temporary: string;
  readonly #fd: number;
  #open = true;

  /** @throws {Error} when the target is not a regular file, or its folder cannot be written to */
  constructor(file: string) {
    const found = lstatSync(file, { throwIfNoEntry: false });
    if (found !== undefined && !found.isFile()) throw new Error('it is not a regular file');
    removeLeftovers(file);
    this.#file = file;
    this.#temporary = join(dirname(file), `${prefixOf(file)}${process.pid}-${randomBytes(6).toString('hex')}.part`);
    this.#fd = openSync(this.#temporary, 'wx');
    // What others may do with the file is not ours to change.
    if (found !== undefined) fchmodSync(this.#fd, found.mode & MODE_BITS);
  }

  /** Says why so many bytes will not fit, or nothing. */
  findObstacle(bytes: number): string | undefined {
    const { bavail, bsize } = statfsSync(dirname(this.#file));
    const free = bavail * bsize;
    return bytes > free ? `${bytes} bytes do not fit: ${dirname(this.#file)} has ${free} left` : undefined;
  }

  write(bytes: Uint8Array): void {
    let written = 0;
    while (written < bytes.length) written += writeSync(this.#fd, bytes, written);
  }

  commit(): void {
    renameSync(this.#temporary, this.#file);
  }

  [Symbol.dispose](): void {
    if (!this.#open) return;
    this.#open = false;
    closeSync(this.#fd);
    try {
      unlinkSync(this.#temporary);
    } catch (error) {
      // Gone by rename, or with its folder.
      if (systemCode(error) !== 'ENOENT') throw error;
    }
  }
}

/** What begins the names of a target's hidden files. */
function prefixOf(file: string): string {
  let stem = basename(file);
  while (Buffer.byteLength(stem) > STEM_BYTES_MAX) stem = stem.slice(0, -1);
  return `.${stem}.`;
}

/** Removes what downloads of this target left that were killed. */
function removeLeftovers(file: string): void {
  const prefix = prefixOf(file);
  for (const entry of readdirSync(dirname(file))) {
    if (!entry.startsWith(prefix)) continue;
    const [, pid] = /^(\d+)-[0-9a-f]{12}\.part$/.exec(entry.slice(prefix.length)) ?? [];
    if (pid === undefined || isAlive(Number(pid))) continue;
    const path = join(dirname(file), entry);
    const found = lstatSync(path, { throwIfNoEntry: false });
    if (found?.isFile() !== true || Date.now() - found.mtimeMs < STILL_MS) continue;
    try {
      unlinkSync(path);
    } catch {
      // Another download was faster, or it is somebody else's: it disturbs nothing.
    }
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return systemCode(error) !== 'ESRCH';
  }
}
