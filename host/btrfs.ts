/**
 * btrfs-progs: filesystems, subvolumes, snapshots.
 *
 * Leaves out quotas (qgroups slow down every snapshot deletion), send and receive.
 */
import { type Connection, CommandError, text } from '../connections/connection.ts';

/** More than this on one subvolume operation means a disk that hangs. */
const TIMEOUT_MS = 60_000;

/** Makes a btrfs on a device or file; whatever was there is lost. */
export async function makeBtrfs(
  on: Connection,
  options: {
    /** block device or regular file */
    readonly device: string;
    readonly label: string;
    /** a directory at the far end whose content becomes the filesystem's; made without mounting */
    readonly rootDirectory?: string;
  },
): Promise<void> {
  const from = options.rootDirectory === undefined ? [] : ['--rootdir', options.rootDirectory];
  const argv = ['mkfs.btrfs', '--quiet', '--force', '--label', options.label, ...from, '--', options.device];
  await on.run(argv, { timeoutMs: 10 * TIMEOUT_MS });
}

/** Makes an empty subvolume; its parent must exist and it must not. */
export async function createSubvolume(on: Connection, path: string): Promise<void> {
  await on.run(['btrfs', 'subvolume', 'create', '--', path], { timeoutMs: TIMEOUT_MS });
}

/** Makes a snapshot, in one transaction: after a crash it is there whole or not at all. `target` must not exist. */
export async function snapshotSubvolume(
  on: Connection,
  options: { readonly source: string; readonly target: string; readonly readOnly?: boolean },
): Promise<void> {
  const flags = options.readOnly === true ? ['-r'] : [];
  const argv = ['btrfs', 'subvolume', 'snapshot', ...flags, '--', options.source, options.target];
  await on.run(argv, { timeoutMs: TIMEOUT_MS });
}

/** Sets or clears a subvolume's read-only flag. */
export async function setReadOnly(on: Connection, path: string, readOnly: boolean): Promise<void> {
  await on.run(['btrfs', 'property', 'set', '-t', 'subvol', path, 'ro', String(readOnly)], { timeoutMs: TIMEOUT_MS });
}

/**
 * Tells what a directory is to btrfs.
 *
 * @returns undefined when there is no subvolume at `path`: nothing at all, or something else
 */
export async function findSubvolume(on: Connection, path: string): Promise<{ readonly readOnly: boolean } | undefined> {
  const argv = ['btrfs', 'property', 'get', '-t', 'subvol', path, 'ro'];
  const result = await on.run(argv, { timeoutMs: TIMEOUT_MS, okStatus: 'any' });
  const flag = /^ro=(true|false)$/m.exec(text(result))?.[1];
  return result.status === 0 && flag !== undefined ? { readOnly: flag === 'true' } : undefined;
}

/**
 * Deletes a subvolume with all that is nested in it. Nothing may write to it meanwhile.
 *
 * A job may have made subvolumes inside (that needs no privilege) under names that no text interface survives: with
 * newlines, or bytes that are not UTF-8. So nested ones are found by their inode number, 256 for every subvolume's
 * top, and handed to btrfs by find itself, deepest first. The walk is done only when the plain deletion was refused.
 */
export async function deleteSubvolume(on: Connection, path: string): Promise<void> {
  const remove = ['btrfs', 'subvolume', 'delete'];
  try {
    await on.run([...remove, '--', path], { timeoutMs: TIMEOUT_MS });
  } catch (error) {
    if (!(error instanceof CommandError) || error.failure !== 'status') throw error;
    const subvolumes = ['-type', 'd', '-inum', '256', '-exec'];
    // What is in a read-only one cannot be deleted; -f also takes one that says it was received.
    const writable = ['btrfs', 'property', 'set', '-f', '-t', 'subvol', '{}', 'ro', 'false', ';'];
    await on.run(['find', path, ...subvolumes, ...writable], { timeoutMs: 5 * TIMEOUT_MS });
    const nested = ['find', path, '-depth', '-mindepth', '1', ...subvolumes, ...remove, '--', '{}', ';'];
    await on.run(nested, { timeoutMs: 5 * TIMEOUT_MS });
    await on.run([...remove, '--', path], { timeoutMs: TIMEOUT_MS });
  }
}
