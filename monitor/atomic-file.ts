/**
 * Writes a small file so that a reader, and the next boot, see the old content or the new, never a part.
 */
import { open, mkdir, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';

/**
 * Replaces a file: temporary name beside it, written, optionally synced, renamed.
 *
 * @param file - absolute; its directory is made
 * @param isDurable - sync the file and the directory: for disks, not for tmpfs
 * @throws the error of the file system; the old file is then untouched and no temporary file is left
 */
export async function writeAtomically(
  file: string,
  content: string | Uint8Array,
  { isDurable }: { readonly isDurable: boolean },
): Promise<void> {
  const folder = dirname(file);
  await mkdir(folder, { recursive: true });
  const temporary = join(folder, `.${basename(file)}.new`);
  try {
    {
      await using handle = await open(temporary, 'w', 0o644);
      await handle.writeFile(content);
      if (isDurable) await handle.sync();
    }
    await rename(temporary, file);
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => undefined);
    throw error;
  }
  if (isDurable) await syncFolder(folder);
}

/** Makes renames in a folder durable. */
export async function syncFolder(folder: string): Promise<void> {
  await using handle = await open(folder, 'r');
  await handle.sync();
}
