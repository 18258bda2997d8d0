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
  /** Time of the file system and of every file in it, in seconds since 1970. */
  readonly timeSeconds: number;
  /** `boot`: small and quick to read, slow to make. `quick`: for what stays on this machine. Default `boot`. */
  readonly effort?: 'boot' | 'quick';
  /** Paths below the folder that are left out, with all that is in them. */
  readonly exclude?: readonly string[];
  readonly signal?: AbortSignal;
}

/**
 * Packs a folder, with owners, modes and extended attributes, the same bytes for the same tree.
 *
 * @throws {CommandError} when mksquashfs fails, for instance because the disk is full
 */
export async function makeSquashfs(on: Connection, options: SquashfsOptions): Promise<void> {
  const exclude = (options.exclude ?? []).map((path) => path.replaceAll('\\', '\\\\'));
  await on.run(
    [
      // Our standard input is a socket, which cannot be opened by name.
      ...(exclude.length > 0 ? ['sh', '-c', 'cat | exec "$@"', 'sh'] : []),
      // It must not stand beside -mkfs-time, and may come from outside.
      'env',
      '--unset=SOURCE_DATE_EPOCH',
      'mksquashfs',
      options.folder,
      options.file,
      '-comp',
      'lz4',
      ...(options.effort === 'quick' ? [] : ['-Xhc']),
      '-b',
      String(BLOCK_BYTES),
      '-noappend',
      '-no-progress',
      '-quiet',
      // All files: so the clock of the machine that builds is nowhere, whether it is right or wrong.
      '-mkfs-time',
      String(options.timeSeconds),
      '-all-time',
      String(options.timeSeconds),
      ...(exclude.length > 0 ? ['-ef', '/dev/stdin'] : []),
    ],
    {
      timeoutMs: 10 * 60_000,
      input: exclude.map((path) => `${path}\n`).join(''),
      ...(options.signal && { signal: options.signal }),
    },
  );
}
