/** Disks for a guest of the lab: files with a file system whose label says what they are for. */
import { rm, truncate, writeFile } from 'node:fs/promises';
import type { Connection } from '../connections/connection.ts';

/** Makes a new, empty disk for `/state`. What was in the file before is lost. */
export async function makeStateDisk(on: Connection, file: string, sizeMiB = 64): Promise<void> {
  await rm(file, { force: true });
  await writeFile(file, '');
  await truncate(file, sizeMiB * 1024 * 1024);
  await on.run(['mkfs.ext4', '-q', '-F', '-L', 'buildos.state', file]);
}
