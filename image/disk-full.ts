/** A disk without room, wherever in a build it shows: in a call of ours, in esbuild, in a program on a connection. */
import { statfs } from 'node:fs/promises';
import { CommandError } from '../connections/connection.ts';

const NO_SPACE = /no space left on device|ENOSPC|disk quota exceeded/i;

/** A script that met a full disk may say nothing and leave a file cut; so where less is left, it is taken for full. */
const ROOM_BYTES = 16 * 2 ** 20;

const AFTERWARDS = 'Images that were there are as they were; the next build goes on from the last step that was done';

/** There was no room for what a build makes. */
export class DiskFullError extends Error {
  override readonly name = 'DiskFullError';
  readonly hint: string;

  constructor(work: string, cause: unknown) {
    super(`Cannot build the image: no space is left for ${work}`, { cause });
    this.hint = `make room ("df -h ${work}" tells how much there is; a build host needs 2 GB), or give another folder with --work. ${AFTERWARDS}`;
  }
}

/** There was no room in the RAM disk that a build works in. */
export class RamFullError extends Error {
  override readonly name = 'RamFullError';
  readonly hint: string = `let other programs end ("free -h" tells who has the memory), or let the build work on the disk. ${AFTERWARDS}`;

  constructor(sizeBytes: number, cause: unknown) {
    super(`Cannot build the image: no space is left in its RAM disk of ${Math.round(sizeBytes / 2 ** 20)} MiB`, {
      cause,
    });
  }
}

/**
 * Tells a full RAM disk from a full disk, while it is there to be asked.
 *
 * @returns the error itself when it says nothing of a full disk, or the disk is another one
 */
export async function nameFullDisk(
  workshop: { readonly inRam: boolean; readonly folder: string; readonly seen: (path: string) => string } | undefined,
  error: unknown,
): Promise<unknown> {
  if (workshop?.inRam !== true || !isDiskFull(error)) return error;
  const found = await statfs(workshop.seen(workshop.folder));
  return found.bavail * found.bsize < ROOM_BYTES ? new RamFullError(found.blocks * found.bsize, error) : error;
}

/**
 * Makes sure that there was room for what was written last.
 *
 * @param cause - what failed; it may have said nothing of a full disk
 * @throws {Error} that isDiskFull() knows, when there may have been none
 */
export async function checkRoom(folder: string, what: string, cause?: unknown): Promise<void> {
  const { bavail, bsize } = await statfs(folder);
  if (bavail * bsize >= ROOM_BYTES) return;
  throw new Error(`No space left on device, or nearly so, after ${what}: what they wrote may be cut off`, { cause });
}

/** Whether an error, or what led to it, is that a disk or a quota is full. */
export function isDiskFull(error: unknown): boolean {
  for (let each = error; each instanceof Error; each = each.cause) {
    if (NO_SPACE.test(each.message)) return true;
    if (each instanceof CommandError && NO_SPACE.test(Buffer.from(each.stderr).toString('utf8'))) return true;
  }
  return false;
}
