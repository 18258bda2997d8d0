/**
 * Packing: a finished root becomes kernel and initrd.
 *
 * The root itself is not touched (its files are hard-linked into a folder beside it, where what an image does not need
 * is taken out), so that properties can be checked against it afterwards.
 */
import { createHash } from 'node:crypto';
import { constants } from 'node:fs';
import {
  access,
  copyFile,
  glob,
  mkdir,
  readdir,
  readFile,
  realpath,
  rename,
  rm,
  stat,
  writeFile,
} from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { Connection } from '../connections/connection.ts';
import { depmod } from '../host/depmod.ts';
import { makeSquashfs } from '../host/squashfs.ts';
import type { ImageFile } from '../manifests/image-manifest.ts';
import type { Bundle } from './bundle.ts';
import { packPayload, packRuntime, packStage1 } from './initrd.ts';
import { chooseModules, loadOrder, type ModuleClass, moduleName } from './kernel-modules.ts';
import { NODE_LIBRARIES, NODE_LOADER, type NodeBinary } from './node-runtime.ts';

/** Modules that stage 1 loads to reach the root; those that are built in are left out. */
const STAGE1_MODULES = ['loop', 'overlay', 'squashfs'] as const;

/** Time of the file system: the same for every build, since the build id says what is in it. */
const EPOCH_SECONDS = 1_767_225_600; // 2026-01-01

/** What to pack. */
export interface PackOptions {
  /** The root that the properties were applied to. */
  readonly root: string;
  /** The folder for the results. */
  readonly out: string;
  readonly cache: string;
  readonly buildId: string;
  readonly node: NodeBinary;
  readonly init: Bundle;
  /** Glob patterns, relative to the root, of what the image does not need. */
  readonly excludes: readonly string[];
  readonly classes: readonly ModuleClass[];
  readonly signal?: AbortSignal;
}

/** What was packed; sizes in bytes. */
export interface Packed {
  readonly kernelRelease: string;
  /** Before compression, without Node. */
  readonly rootfsBytes: number;
  /** What is published of it, with digests. */
  readonly files: readonly ImageFile[];
  readonly sizes: {
    readonly kernel: number;
    readonly initrd: number;
    readonly runtime: number;
    readonly stage1: number;
    readonly payload: number;
  };
}

/** A root that cannot be packed. */
export class PackError extends Error {
  override readonly name = 'PackError';
  readonly hint: string;

  constructor(message: string, hint: string) {
    super(message);
    this.hint = hint;
  }
}

/**
 * Writes `buildos-image` and `buildos-initrd` into `out`.
 *
 * @throws {PackError} when the root lacks something that every image needs, by name
 * @throws {CommandError} when a tool fails
 */
export async function packImage(on: Connection, options: PackOptions): Promise<Packed> {
  const tree = `${options.root}.pack`;
  await rm(tree, { recursive: true, force: true });
  await mkdir(options.out, { recursive: true });
  try {
    await on.run(['cp', '--archive', '--link', options.root, tree]);
    const release = await kernelRelease(tree);
    const modulesDep = await readFile(join(tree, 'usr/lib/modules', release, 'modules.dep'), 'utf8');
    const stage1 = await packStage1({
      init: await readFile(options.init.file),
      modules: await readModules(on, join(tree, 'usr/lib/modules', release), loadOrder(modulesDep, STAGE1_MODULES)),
    });
    const runtime = await runtimeSegment(options, tree);
    const kernel = join(options.out, 'buildos-image');
    await copyFile(join(tree, 'boot', `vmlinuz-${release}`), kernel);

    await keepModules(on, { tree, release, keep: chooseModules(modulesDep, options.classes) });
    await removeExcluded(tree, options.excludes);
    const squashfs = `${options.root}.squashfs`;
    await makeSquashfs(on, {
      folder: tree,
      file: squashfs,
      timeSeconds: EPOCH_SECONDS,
      ...(options.signal && { signal: options.signal }),
    });
    const payload = await payloadSegment(squashfs, options.buildId);
    const initrd = join(options.out, 'buildos-initrd');
    await writeFile(initrd, Buffer.concat([runtime, stage1, payload]));
    const files = [await describeFile(kernel), await describeFile(initrd)];
    const { stdout } = await on.run(['du', '--summarize', '--bytes', '--one-file-system', tree]);
    return {
      kernelRelease: release,
      rootfsBytes: Number.parseInt(new TextDecoder().decode(stdout), 10),
      files,
      sizes: {
        kernel: (await stat(kernel)).size,
        initrd: (await stat(initrd)).size,
        runtime: runtime.length,
        stage1: stage1.length,
        payload: payload.length,
      },
    };
  } finally {
    await rm(tree, { recursive: true, force: true });
  }
}

async function kernelRelease(tree: string): Promise<string> {
  const kernels = (await readdir(join(tree, 'boot')).catch(() => [])).filter((name) => name.startsWith('vmlinuz-'));
  const [kernel] = kernels;
  if (kernel === undefined || kernels.length > 1) {
    throw new PackError(
      `Cannot pack the root: ${kernels.length} kernels in /boot (${kernels.join(', ') || 'none'}), one is needed`,
      'put exactly one kernel among the packages, such as linux-image-amd64',
    );
  }
  return kernel.slice('vmlinuz-'.length);
}

/** Kernel modules as the kernel takes them; Debian ships them packed with xz. */
async function readModules(
  on: Connection,
  folder: string,
  paths: readonly string[],
): Promise<{ name: string; content: Uint8Array }[]> {
  const modules: { name: string; content: Uint8Array }[] = [];
  for (const path of paths) {
    const file = join(folder, path);
    const content = file.endsWith('.xz')
      ? (await on.run(['xz', '--decompress', '--stdout', file])).stdout
      : await readFile(file);
    modules.push({ name: `${moduleName(path)}.ko`, content });
  }
  return modules;
}

/**
 * Takes out what no class asks for, and unpacks the rest: xz takes longer to load than lz4, above all without KVM.
 */
async function keepModules(
  on: Connection,
  options: { readonly tree: string; readonly release: string; readonly keep: readonly string[] },
): Promise<void> {
  const folder = join(options.tree, 'usr/lib/modules', options.release);
  const keep = new Set(options.keep);
  for await (const path of glob('kernel/**/*.ko*', { cwd: folder })) {
    if (!keep.has(path)) await rm(join(folder, path));
  }
  const packed = options.keep.filter((path) => path.endsWith('.xz')).map((path) => join(folder, path));
  // Forced, since the files are links to those of the root: new ones take their place.
  if (packed.length > 0)
    await on.run(['xz', '--decompress', '--force', '--threads=1', ...packed], { timeoutMs: 300_000 });
  for (const name of ['build', 'source']) await rm(join(folder, name), { force: true });
  // The files are links to those of the root: remove them, so that depmod makes new ones.
  for await (const path of glob('modules.{alias,dep,symbols,devname,softdep,weakdep}*', { cwd: folder })) {
    await rm(join(folder, path));
  }
  await depmod(on, { root: options.tree, release: options.release });
  await on.run(['find', join(folder, 'kernel'), '-type', 'd', '-empty', '-delete']);
}

async function removeExcluded(tree: string, patterns: readonly string[]): Promise<void> {
  for (const pattern of patterns) {
    for await (const path of glob(pattern.replace(/^\/+/, ''), { cwd: tree })) {
      await rm(join(tree, path), { recursive: true, force: true });
    }
  }
}

/** The runtime segment changes with Node and with libraries only: kept by the digest of both. */
async function runtimeSegment(options: PackOptions, tree: string): Promise<Uint8Array> {
  const libraries = new Map<string, Uint8Array>();
  for (const name of NODE_LIBRARIES) libraries.set(name, await readInRoot(tree, `usr/lib/x86_64-linux-gnu/${name}`));
  const loader = { path: NODE_LOADER, content: await readInRoot(tree, NODE_LOADER) };
  const busybox = await readInRoot(tree, 'usr/bin/busybox');
  const hash = createHash('sha256').update(`runtime 1 ${options.node.sha256} ${process.versions.zstd ?? ''}\n`);
  for (const content of [loader.content, busybox, ...libraries.values()]) hash.update(content);
  const file = join(options.cache, 'segments', hash.digest('hex'));
  const kept = await readFile(file).catch(() => undefined);
  if (kept !== undefined) return kept;
  const segment = await packRuntime({ node: await readFile(options.node.file), busybox, loader, libraries });
  await mkdir(join(options.cache, 'segments'), { recursive: true });
  await writeFile(`${file}.part-${process.pid}`, segment);
  await rename(`${file}.part-${process.pid}`, file);
  return segment;
}

async function payloadSegment(file: string, buildId: string): Promise<Uint8Array> {
  const squashfs = await readFile(file);
  await rm(file);
  const payload = {
    buildId,
    squashfs: { size: squashfs.length, sha256: createHash('sha256').update(squashfs).digest('hex') },
  };
  return packPayload({ squashfs, payloadJson: `${JSON.stringify(payload)}\n` });
}

async function describeFile(file: string): Promise<ImageFile> {
  const content = await readFile(file);
  const sha256 = createHash('sha256').update(content).digest('hex');
  return { path: basename(file), sha256, sizeBytes: content.length };
}

async function readInRoot(tree: string, path: string): Promise<Uint8Array> {
  const file = join(tree, path);
  try {
    await access(file, constants.R_OK);
    // A link such as /lib64 -> usr/lib64 is relative in Debian; an absolute one would leave the tree.
    const real = await realpath(file);
    if (!real.startsWith(`${await realpath(tree)}/`)) throw new Error(`${path} leads out of the root, to ${real}`);
    return await readFile(real);
  } catch (cause) {
    throw new PackError(
      `Cannot pack the root: /${path} is missing (${String(cause)})`,
      'init needs the packages busybox-static, libatomic1, libstdc++6 and libc6 in the image',
    );
  }
}
