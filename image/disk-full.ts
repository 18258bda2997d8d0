/** A disk without room, wherever in a build it shows: in a call of ours, in esbuild, in a program on a connection. */
import { CommandError } from '../connections/connection.ts';

const NO_SPACE = /no space left on device|ENOSPC|disk quota exceeded/i;

/** There was no room for what a build makes. */
export class DiskFullError extends Error {
  override readonly name = 'DiskFullError';
  readonly hint: string;

  constructor(work: string, cause: unknown) {
    super(`Cannot build the image: no space is left for ${work}`, { cause });
    this.hint =
      `make room ("df -h ${work}" tells how much there is; a build host needs 2 GB), or give another folder with --work. ` +
      'Images that were there are as they were; the next build goes on from the last step that was done';
  }
}

/** Whether an error, or what led to it, is that a disk or a quota is full. */
export function isDiskFull(error: unknown): boolean {
  for (let each = error; each instanceof Error; each = each.cause) {
    if (NO_SPACE.test(each.message)) return true;
    if (each instanceof CommandError && NO_SPACE.test(Buffer.from(each.stderr).toString('utf8'))) return true;
  }
  return false;
}
