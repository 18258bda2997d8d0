/**
 * squashfs-tools: a folder as one compressed, read-only file system, of which only what is read is unpacked.
 *
 * Options from mksquashfs(1); what they are worth is in docs/decisions/016.
 */
import type { Connection } from '../connections/connection.ts';

/** What Linux unpacks wherever squashfs is a module of Debian's kernel. */
export type Compression = 'lz4' | 'lz4hc' | 'zstd-3' | 'zstd-19';

/** What is packed at once has no use for the quarter of all memory that it would fill: that takes longer than packing. */
const QUICK = ['-b', '128K', '-mem', '64M'];

const COMPRESSIONS: Readonly<Record<Compression, readonly string[]>> = {
  lz4: ['-comp', 'lz4', ...QUICK],
  /** A sixth smaller, and forty times as long to pack. */
  lz4hc: ['-comp', 'lz4', '-Xhc', '-b', '128K'],
  'zstd-3': ['-comp', 'zstd', '-Xcompression-level', '3', ...QUICK],
  /** As small as it gets: large blocks are a tenth of it, and a tenth of what a boot executes. */
  'zstd-19': ['-comp', 'zstd', '-Xcompression-level', '19', '-b', '1M'],
};

/** What to pack and how. */
export interface SquashfsOptions {
  readonly folder: string;
  /** The file to write; an old one is replaced. */
  readonly file: string;
  /** Time of the file system and of every file in it, in seconds since 1970. */
  readonly timeSeconds: number;
  readonly compression: Compression;
  /** Not at the cost of what else runs. */
  readonly nice?: true;
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
      ...(options.nice === true ? ['nice'] : []),
      'mksquashfs',
      options.folder,
      options.file,
      ...COMPRESSIONS[options.compression],
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
