/**
 * The root of an image in layers, each a squashfs, put over each other by init:
 *
 * ```
 *   programs     what our own programs are         changes with our code
 *   properties   what the definition changes       changes with the definition
 *   packages     what the .debs are                changes with the archive; nearly all of the bytes
 * ```
 *
 * An upper layer holds what it changes only, and whiteouts for what it removes, as overlayfs writes them
 * (Documentation/filesystems/overlayfs.rst). So a file of ours that changes rewrites some kilobytes of squashfs.
 */
import { copyFile, glob, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { text } from '../connections/connection.ts';
import { type Compression, makeSquashfs } from '../host/squashfs.ts';
import { EPOCH_SECONDS } from './epoch.ts';
import type { PreparedKernel } from './kernel-tree.ts';
import { NODE_LIBRARIES, NODE_LOADER } from './node-runtime.ts';
import { PackError } from './pack-error.ts';
import { type Entry, fileOf } from './store.ts';
import type { Workshop } from './workshop.ts';

/** Names of the files that a layer consists of. */
export const LAYER_FILES = {
  root: 'root.squashfs',
  /** Of a layer of changes that others may be put above: all of it, what images leave out included; what is above is applied to this. */
  whole: 'whole.squashfs',
  kernel: 'kernel',
  busybox: 'busybox',
  loader: 'loader',
  library: (name: string) => `library-${name}`,
  module: (name: string) => `module-${name}`,
} as const;

/** How to pack. */
export interface LayerOptions {
  /** Glob patterns, relative to the root, of what the image does not need. */
  readonly excludes: readonly string[];
  readonly compression: Compression;
  readonly signal?: AbortSignal;
}

/**
 * Packs the root made of packages, and takes out of it what boots.
 *
 * @param root - in the workshop; not changed
 * @param out - the folder of `kernel`, as this process sees it
 * @param kernel - takes the place of the root's modules
 * @returns facts: the kernel's release, the modules of stage 1 in the order to load them, bytes before compression
 * @throws {PackError} when the root lacks something that every image needs, by name
 */
export async function packPackages(
  workshop: Workshop,
  options: LayerOptions & { readonly root: string; readonly out: string; readonly kernel: PreparedKernel },
): Promise<{ readonly kernelRelease: string; readonly modules: string; readonly rootBytes: string }> {
  const { on, seen } = workshop;
  const { root, out, kernel } = options;
  await copyRuntime(seen(root), out);
  const exclude = await findExcluded(seen(root), options.excludes);
  const covered = join(root, kernel.folder);
  await on.run(['mount', '--bind', kernel.kept, covered]);
  try {
    await makeSquashfs(on, {
      folder: root,
      file: join(out, LAYER_FILES.root),
      timeSeconds: EPOCH_SECONDS,
      compression: options.compression,
      exclude,
      ...(options.signal && { signal: options.signal }),
    });
  } finally {
    await on.run(['umount', covered]);
  }
  const rootBytes = await sizeOf(workshop, join(out, LAYER_FILES.root));
  return { kernelRelease: kernel.release, modules: kernel.modules.join(' '), rootBytes: String(rootBytes) };
}

/**
 * Packs what was changed above a root: the upper folder of an overlay.
 *
 * @param upper - in the workshop; not changed
 * @param out - an empty folder, as this process sees it
 * @throws {PackError} when kernel or modules were changed: they are taken from the packages
 */
export async function packChanges(
  workshop: Workshop,
  options: LayerOptions & {
    readonly upper: string;
    readonly out: string;
    /** What comes above it: other layers are applied to the whole of this one. */
    readonly above: 'layers' | 'nothing';
  },
): Promise<{ readonly rootBytes: string }> {
  const { on, seen } = workshop;
  const { upper, out } = options;
  for (const path of ['boot', 'usr/lib/modules']) {
    if ((await readdir(join(seen(upper), path)).catch(() => [])).length === 0) continue;
    throw new PackError(
      `Cannot pack the root: properties have changed /${path}`,
      'kernel and modules come from packages: name those in apt.installed',
    );
  }
  const tree = `${upper}.packed`;
  await on.run(['sh', '-c', COPY_CHANGES, upper, tree]);
  const exclude = await findExcluded(seen(tree), options.excludes);
  const common = { folder: tree, timeSeconds: EPOCH_SECONDS, ...(options.signal && { signal: options.signal }) };
  const root = async (): Promise<number> => {
    const file = join(out, LAYER_FILES.root);
    await makeSquashfs(on, { ...common, file, compression: options.compression, exclude });
    return await sizeOf(workshop, file);
  };
  const whole = async (): Promise<void> => {
    if (options.above === 'nothing') return;
    await makeSquashfs(on, { ...common, file: join(out, LAYER_FILES.whole), compression: 'lz4' });
  };
  const both = [root(), whole()] as const;
  // Also when one fails: nothing goes on behind the back of who hears of it. The copy goes with the workshop.
  await Promise.allSettled(both);
  const [rootBytes] = await Promise.all(both);
  return { rootBytes: String(rootBytes) };
}

/** Extended attributes that count in an upper folder; the others overlayfs notes for itself. */
const XATTRS = ['security.*', 'system.*', 'user.*', 'trusted.overlay.opaque'].map(
  (each) => `--xattrs-include='${each}'`,
);

/** `$0`: where; then a tar of the upper folder or nothing, the lowest folder, and the layers above it. */
const MOUNT_OVERLAY = `
set -e
mkdir "$0" "$0/upper" "$0/work" "$0/merged"
if [ -n "$1" ]; then tar --extract --file "$1" --directory "$0/upper" --numeric-owner --preserve-permissions --xattrs ${XATTRS.join(' ')}; fi
shift
lower=$1; shift
n=0
for layer in "$@"; do
  n=$((n + 1)); mkdir "$0/$n"
  mount -t squashfs -o loop,ro "$layer" "$0/$n"
  lower=$0/$n:$lower
done
mount -t overlay -o "lowerdir=$lower,upperdir=$0/upper,workdir=$0/work,index=off,redirect_dir=off,metacopy=off" \
  overlay "$0/merged"`;

let overlays = 0;

/**
 * Puts a writable folder over a root and layers of changes, in the workshop.
 *
 * The features that are switched off would leave marks in the upper folder that mean something on this machine only.
 *
 * @param upper - the tar of what is in the writable folder at first ({@link keepChanges}); default nothing
 */
export async function mountOverlay(
  workshop: Workshop,
  root: string,
  below: readonly Entry[],
  upper = '',
): Promise<{ readonly upper: string; readonly merged: string }> {
  const at = join(workshop.folder, `overlay-${(overlays += 1)}`);
  const layers = below.map((entry) => fileOf(entry, LAYER_FILES.whole).path);
  await workshop.on.run(['sh', '-c', MOUNT_OVERLAY, at, upper, root, ...layers]);
  return { upper: join(at, 'upper'), merged: join(at, 'merged') };
}

/** Writes a tar of an upper folder, to go on from: with times to the nanosecond, and all that programs can see of a file. */
export async function keepChanges(workshop: Workshop, upper: string, file: string): Promise<void> {
  const script = `tar --create --file "$1" --directory "$0" --format=posix --xattrs ${XATTRS.join(' ')} .`;
  await workshop.on.run(['sh', '-c', script, upper, file]);
}

/**
 * Copies an upper folder, with two kinds of extended attributes: what programs may do, and "nothing below shows
 * through". overlayfs notes more for itself (where a file came from, by inode), which would be another every time.
 */
const COPY_CHANGES = `
set -e
mkdir "$1"
tar --create --directory "$0" --sort=name --xattrs --xattrs-include=security.capability \
  --xattrs-include=trusted.overlay.opaque . |
  tar --extract --directory "$1" --numeric-owner --preserve-permissions --xattrs --xattrs-include='*'`;

/** What stage 1 needs besides Node itself. */
async function copyRuntime(root: string, out: string): Promise<void> {
  const files: readonly (readonly [string, string])[] = [
    ['usr/bin/busybox', LAYER_FILES.busybox],
    [NODE_LOADER, LAYER_FILES.loader],
    ...NODE_LIBRARIES.map((name) => [`usr/lib/x86_64-linux-gnu/${name}`, LAYER_FILES.library(name)] as const),
  ];
  for (const [path, name] of files) {
    // Links such as /lib64 -> usr/lib64 are relative in Debian; an absolute one would lead out of the root.
    await copyFile(join(root, path), join(out, name)).catch((cause: unknown) => {
      throw new PackError(
        `Cannot pack the root: /${path} is missing (${String(cause)})`,
        'init needs the packages busybox-static, libatomic1, libstdc++6 and libc6 in the image',
      );
    });
  }
}

/** What the patterns fit, from the root. */
async function findExcluded(root: string, patterns: readonly string[]): Promise<string[]> {
  const found = new Set<string>();
  for (const pattern of patterns) {
    for await (const path of glob(pattern.replace(/^\/+/, ''), { cwd: root })) found.add(path);
  }
  return [...found].sort();
}

/** Bytes of a file system before compression. */
async function sizeOf(workshop: Workshop, squashfs: string): Promise<number> {
  const script =
    'set -e; at=$(mktemp -d -p "$1"); mount -t squashfs -o loop,ro "$0" "$at"; du -sbx "$at"; umount "$at"; rmdir "$at"';
  return Number.parseInt(text(await workshop.on.run(['sh', '-c', script, squashfs, workshop.folder])), 10);
}
