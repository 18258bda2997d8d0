/** Folders on the state disk. */
import { mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';

/**
 * Makes a folder and a few of its parents, for this user only; one that is there is left as it is. Not `mkdir` with
 * `recursive`: that never returns (Node 26.10) where the kernel answers ENOENT to a mkdir in a folder that is there, as
 * in /proc.
 */
export async function makeFolder(folder: string, parents = 3): Promise<void> {
  try {
    await mkdir(folder, { mode: 0o700 });
  } catch (error) {
    const code: unknown = error instanceof Error && 'code' in error ? error.code : undefined;
    if (code === 'EEXIST') return;
    if (code !== 'ENOENT' || parents === 0) throw error;
    await makeFolder(dirname(folder), parents - 1);
    await mkdir(folder, { mode: 0o700 });
  }
}
