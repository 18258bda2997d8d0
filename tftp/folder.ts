/**
 * A folder without a way out: names from the network to files in it.
 *
 * A name is split at `/` (and `\`, as Windows boot files are named); a leading one means the folder itself, as firmware
 * sends it. `..` is refused, hidden parts (`.name`) are not there, nothing is decoded. Each part is opened below the one
 * before it through `/proc/self/fd`, which is openat(2) in a language without it, and never through a symlink. The file itself
 * is first opened with O_PATH, which touches nothing, then looked at, and only a regular file is opened for real: a
 * FIFO cannot block, a device cannot be woken, a symlink swapped in meanwhile is not followed.
 */
import { type Stats, closeSync, constants, fstatSync, openSync } from 'node:fs';

import { RefusedError, systemCode } from './error.ts';
import { ERROR_CODE } from './packet.ts';

/** open(2): a handle for the place only; asm-generic/fcntl.h, the same on x86-64 and arm64. Not in `constants`. */
const O_PATH = 0o10000000;

const PART_BYTES_MAX = 255;
const PARTS_MAX = 32;

/** A descriptor that is closed when its block ends. */
export class Descriptor implements Disposable {
  readonly fd: number;
  #open = true;

  constructor(fd: number) {
    this.fd = fd;
  }

  /** Where the kernel shows the file behind it. */
  get path(): string {
    return `/proc/self/fd/${this.fd}`;
  }

  /** Gives the descriptor away: it is not closed here any more. */
  release(): number {
    this.#open = false;
    return this.fd;
  }

  [Symbol.dispose](): void {
    if (this.#open) closeSync(this.fd);
    this.#open = false;
  }
}

/**
 * Splits a name into its parts: at least one, none of them `.` or `..`, hidden or with control characters.
 *
 * @throws {RefusedError} ERROR 1 or 2
 */
export function parseName(name: string): readonly string[] {
  const parts = name.split(/[/\\]/).filter((part) => part !== '' && part !== '.');
  if (parts.includes('..')) throw new RefusedError(ERROR_CODE.accessViolation, 'a name with ".." is refused');
  // eslint-disable-next-line no-control-regex -- control characters are what is looked for
  if (/[\u0000-\u001f\u007f]/.test(name)) {
    throw new RefusedError(ERROR_CODE.accessViolation, 'a name with control characters is refused');
  }
  const isTooLong = parts.length > PARTS_MAX || parts.some((part) => Buffer.byteLength(part) > PART_BYTES_MAX);
  if (parts.length === 0 || isTooLong || parts.some((part) => part.startsWith('.'))) throw notFound();
  return parts;
}

/**
 * Opens a regular file for reading.
 *
 * @param parts - from `parseName`
 * @returns the descriptor, which is the caller's to close
 * @throws {RefusedError} ERROR 1 when it is not there, 2 when it is not a regular file or not readable
 */
export function openToRead(folder: string, parts: readonly string[]): number {
  using parent = openParent(folder, parts);
  using place = openPlace(parent, parts.at(-1) ?? '');
  checkRegular(fstatSync(place.fd));
  return open(place.path, constants.O_RDONLY | constants.O_NONBLOCK);
}

/**
 * Opens the folder that holds the last part, for the place only.
 *
 * @throws {RefusedError} ERROR 1 when it is not there, 2 when a part is no folder
 */
export function openParent(folder: string, parts: readonly string[]): Descriptor {
  let parent = new Descriptor(open(folder, O_PATH | constants.O_DIRECTORY));
  for (const part of parts.slice(0, -1)) {
    using above = parent;
    parent = new Descriptor(open(`${above.path}/${part}`, O_PATH | constants.O_DIRECTORY | constants.O_NOFOLLOW));
  }
  return parent;
}

/**
 * Looks at a file in a folder, without following it.
 *
 * @returns its state, or `undefined` when it is not there
 * @throws {RefusedError} ERROR 2 when it is there and not a regular file
 */
export function findRegular(parent: Descriptor, part: string): Stats | undefined {
  try {
    using place = openPlace(parent, part);
    const stats = fstatSync(place.fd);
    checkRegular(stats);
    return stats;
  } catch (error) {
    if (error instanceof RefusedError && error.code === ERROR_CODE.notFound) return undefined;
    throw error;
  }
}

/**
 * Opens a regular file for writing, which must be there, without emptying it.
 *
 * @throws {RefusedError} as `openToRead`
 */
export function openToWrite(parent: Descriptor, part: string): Descriptor {
  using place = openPlace(parent, part);
  checkRegular(fstatSync(place.fd));
  return new Descriptor(open(place.path, constants.O_RDWR | constants.O_NONBLOCK));
}

function openPlace(parent: Descriptor, part: string): Descriptor {
  return new Descriptor(open(`${parent.path}/${part}`, O_PATH | constants.O_NOFOLLOW));
}

function checkRegular(stats: Stats): void {
  if (!stats.isFile()) throw new RefusedError(ERROR_CODE.accessViolation, 'not a regular file');
}

function open(path: string, flags: number): number {
  try {
    return openSync(path, flags);
  } catch (error) {
    throw toRefused(error);
  }
}

/** Says a system error in TFTP's words. The peer learns no path of ours; the cause keeps it for the log. */
export function toRefused(error: unknown): RefusedError {
  if (error instanceof RefusedError) return error;
  const options = { cause: error };
  switch (systemCode(error) ?? '') {
    case 'ENOENT':
    case 'ENOTDIR':
    case 'ENAMETOOLONG':
      return notFound(options);
    case 'EACCES':
    case 'EPERM':
    case 'ELOOP':
    case 'EROFS':
      return new RefusedError(ERROR_CODE.accessViolation, 'access denied', options);
    case 'EEXIST':
      return new RefusedError(ERROR_CODE.alreadyExists, 'the file exists', options);
    case 'ENOSPC':
    case 'EDQUOT':
    case 'EFBIG':
      return new RefusedError(ERROR_CODE.diskFull, 'no space left', options);
    case 'EMFILE':
    case 'ENFILE':
    case 'ENOMEM':
      return new RefusedError(ERROR_CODE.notDefined, 'the server is busy', options);
    default:
      return new RefusedError(ERROR_CODE.notDefined, 'the server failed', options);
  }
}

function notFound(options?: ErrorOptions): RefusedError {
  return new RefusedError(ERROR_CODE.notFound, 'file not found', options);
}
