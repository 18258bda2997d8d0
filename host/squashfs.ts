/**
 * squashfs-tools: a folder as one compressed, read-only file system.
 *
 * Options from mksquashfs(1). lz4 with 128 KiB blocks was the quickest to boot where we measured: only what is read is
 * unpacked, and unpacking is cheap. zstd is a fifth smaller than lz4's best, and a boot takes half as many instructions
 * again (18.8 instead of 12.4 · 10⁹).
 */
import type { Connection } from '../connections/connection.ts';

const BLOCK_BYTES = 128 * 1024;

/**
 * How hard to try: `small` is 17 % smaller, and takes fifty times as long (lz4's highest level: 24 s of CPU for 240 MB).
 * Both boot alike.
 */
export type Effort = 'quick' | 'small';

/** What to pack and how. */
export interface SquashfsOptions {
  readonly folder: string;
  /** The file to write; an old one is replaced. */
  readonly file: string;
  /** Time of the file system and of every file in it, in seconds since 1970. */
  readonly timeSeconds: number;
  /** Default `quick`. */
  readonly effort?: Effort;
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
      ...(options.effort === 'small' ? ['-Xhc'] : []),
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
