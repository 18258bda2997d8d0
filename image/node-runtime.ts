/**
 * The Node that goes into images: the very binary that runs this, stripped, kept by digest.
 *
 * Stripping takes 146 MB to 116 MB and nothing that runs.
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { chmod, copyFile, mkdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import type { Connection } from '../connections/connection.ts';
import { type Compression, makeSquashfs } from '../host/squashfs.ts';
import { EPOCH_SECONDS } from './epoch.ts';
import { type Entry, fileOf, keyOf, partSuffix, Store } from './store.ts';

/** Libraries that the official x64 build of Node needs (`readelf -d`), and that a Debian root with libatomic1 has. */
export const NODE_LIBRARIES = [
  'libatomic.so.1',
  'libc.so.6',
  'libdl.so.2',
  'libgcc_s.so.1',
  'libm.so.6',
  'libpthread.so.0',
  'libstdc++.so.6',
] as const;

/** The program interpreter in the binary (System V ABI, AMD64 supplement), without the leading slash. */
export const NODE_LOADER = 'lib64/ld-linux-x86-64.so.2';

/** The file of a cache entry that is a Node binary. */
export const NODE = 'node';

/** The file of a cache entry that is a file system with {@link NODE} and nothing else. */
export const NODE_SYSTEM = 'node.squashfs';

/** A Node binary for an image. */
export interface NodeBinary {
  /** In the cache; {@link NODE} is its only file. */
  readonly entry: Entry;
  readonly file: string;
  /** SHA-256 of the binary as released, before it was stripped. */
  readonly sha256: string;
  /** Such as `26.10.0`. */
  readonly version: string;
}

/**
 * Strips the running Node into the cache, or finds it there.
 *
 * @throws {CommandError} when strip(1) is missing (package binutils) or fails
 */
export async function findOrStripNode(on: Connection, options: { readonly cache: string }): Promise<NodeBinary> {
  const sha256 = await digestOfNode(join(options.cache, 'node'));
  const key = keyOf({ kind: 'node 1', sha256 });
  const { entry } = await new Store(options.cache).findOrMake('node', key, async (folder) => {
    const binary = join(folder, NODE);
    await copyFile(process.execPath, binary);
    await on.run(['strip', '--strip-unneeded', binary], { timeoutMs: 120_000 });
    return {};
  });
  return { entry, file: fileOf(entry, NODE).path, sha256, version: process.versions.node };
}

/** Packs a Node into a file system, or finds it in the cache: whatever image it is for. */
export async function findOrPackNode(
  on: Connection,
  options: {
    readonly store: Store;
    readonly node: NodeBinary;
    readonly compression: Compression;
    /** Digests of the programs that pack it. */
    readonly packers: readonly string[];
    /** Told when it is not in the cache. */
    readonly onPack?: () => void;
  },
): Promise<{ readonly entry: Entry; readonly cached: boolean }> {
  const { store, node, compression, packers } = options;
  const key = keyOf({ kind: 'node system 1', sha256: node.sha256, compression, packers });
  return await store.findOrMake('runtime', key, async (folder) => {
    options.onPack?.();
    const tree = join(folder, 'tree');
    await mkdir(tree);
    await copyFile(await store.check(node.entry, NODE), join(tree, NODE));
    await chmod(join(tree, NODE), 0o755);
    await makeSquashfs(on, { folder: tree, file: join(folder, NODE_SYSTEM), timeSeconds: EPOCH_SECONDS, compression });
    await rm(tree, { recursive: true });
    return {};
  });
}

/** The digest of the running binary, remembered as long as it is the same file in every respect: it has 146 MB. */
async function digestOfNode(folder: string): Promise<string> {
  const { dev, ino, size, mtimeNs, ctimeNs } = await stat(process.execPath, { bigint: true });
  const identity = [process.execPath, dev, ino, size, mtimeNs, ctimeNs].join(' ');
  const record = join(folder, 'running');
  const [known, digest = ''] = (await readFile(record, 'utf8').catch(() => '')).split('\n');
  if (known === identity && /^[0-9a-f]{64}$/.test(digest)) return digest;
  const sha256 = await sha256Of(process.execPath);
  await mkdir(folder, { recursive: true });
  const part = `${record}${partSuffix()}`;
  await writeFile(part, `${identity}\n${sha256}\n`);
  await rename(part, record);
  return sha256;
}

async function sha256Of(file: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(file), hash);
  return hash.digest('hex');
}
