/**
 * squashfs-tools: a folder as one compressed, read-only file system.
 *
 * Options from mksquashfs(1). lz4 with high compression and 128 KiB blocks was the quickest to boot where we measured:
 * only what is read is unpacked, and unpacking is cheap. `-Xhc` costs time only when the image is made.
 */
import type { Connection } from '../connections/connection.ts';

const BLOCK_BYTES = 128 * 1024;

/** What to pack and how. */
export interface SquashfsOptions {
  readonly folder: string;
  /** The file to write; an old one is replaced. */
  readonly file: string;
  /** Time of the file system, in seconds since 1970; what is younger in it gets this time. */
  readonly timeSeconds: number;
  readonly signal?: AbortSignal;
}

/**
 * Packs a folder, with owners, modes and extended attributes, the same bytes for the same tree.
 *
 * @throws {CommandError} when mksquashfs fails, for instance because the disk is full
 */
export async function makeSquashfs(on: Connection, options: SquashfsOptions): Promise<void> {
  await on.run(
    [
      'mksquashfs',
      options.folder,
      options.file,
      '-comp',
      'lz4',
      '-Xhc',
      '-b',
      String(BLOCK_BYTES),
      '-noappend',
      '-no-progress',
      '-quiet',
    ],
    {
      timeoutMs: 10 * 60_000,
      // The time of the file system; files that are younger get it too. (-mkfs-time must not stand beside it.)
      env: { SOURCE_DATE_EPOCH: String(options.timeSeconds) },
      ...(options.signal && { signal: options.signal }),
    },
  );
}
