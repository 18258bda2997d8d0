/**
 * The kernel of a root, made ready to be packed: itself, the modules of stage 1, and a tree of the modules that an image keeps.
 *
 * It needs no more than modules that are unpacked and indexed; so it can be done while packages are still configured.
 */
import { copyFile, mkdir, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import type { Connection } from '../connections/connection.ts';
import { depmod } from '../host/depmod.ts';
import { chooseModules, loadOrder, type ModuleIndex, moduleName } from './kernel-modules.ts';
import { LAYER_FILES } from './layers.ts';
import type { ModuleClass } from './module-classes.ts';
import { PackError } from './pack-error.ts';
import type { Workshop } from './workshop.ts';

/** Modules that stage 1 loads to reach the root; those that are built in are left out. */
const STAGE1_MODULES = ['loop', 'overlay', 'squashfs'] as const;

/** What was made ready. */
export interface PreparedKernel {
  readonly release: string;
  /** Where its modules are in the root. */
  readonly folder: string;
  /** What depmod said of them. */
  readonly index: ModuleIndex;
  /** Those of stage 1, in the order to load them. */
  readonly modules: readonly string[];
  /** Folder in the workshop: the modules that the image keeps. */
  readonly kept: string;
  /** A file of the workshop that is as old as this. */
  readonly stamp: string;
}

/** Which modules an image keeps. */
export interface KeptModules {
  readonly classes: readonly ModuleClass[];
  readonly wanted: readonly string[];
}

/**
 * Makes the kernel of a root ready.
 *
 * @param root - in the workshop; not changed
 * @param out - an empty folder, as this process sees it: gets the kernel and the modules of stage 1
 * @throws {PackError} when there is no kernel, or more than one
 * @throws {MissingModuleError} when it lacks a module that is wanted
 */
export async function prepareKernel(
  workshop: Workshop,
  options: { readonly root: string; readonly out: string; readonly modules: KeptModules },
): Promise<PreparedKernel> {
  const { on, seen } = workshop;
  const { root, out } = options;
  const tree = `${workshop.folder}/kernel-modules`;
  const stamp = `${tree}.stamp`;
  await rm(seen(tree), { recursive: true, force: true });
  await writeFile(seen(stamp), '');
  const release = await findRelease(seen(root));
  const folder = `usr/lib/modules/${release}`;
  const index = await readIndex(seen(root), folder);
  await copyFile(join(seen(root), 'boot', `vmlinuz-${release}`), join(out, LAYER_FILES.kernel));
  const modules = await copyModules(on, join(root, folder), loadOrder(index.dep, STAGE1_MODULES), out);
  const keep = chooseModules(index, { release, ...options.modules });
  await mkdir(seen(tree));
  await symlink('usr/lib', seen(join(tree, 'lib')));
  await keepModules(on, { from: join(root, folder), tree, release, keep });
  return { release, folder, index, modules, kept: join(tree, folder), stamp };
}

/**
 * Whether a root still has the kernel that was made ready.
 *
 * @param root - in the workshop
 */
export async function isKernelOf(workshop: Workshop, root: string, kernel: PreparedKernel): Promise<boolean> {
  const { on, seen } = workshop;
  const [release, index] = await Promise.all([findRelease(seen(root)), readIndex(seen(root), kernel.folder)]);
  if (release !== kernel.release || !isDeepStrictEqual(index, kernel.index)) return false;
  const places = [join(root, kernel.folder), join(root, 'boot', `vmlinuz-${release}`)];
  // The indexes are compared above.
  const found = await on.run(['find', ...places, '-cnewer', kernel.stamp, '!', '-name', 'modules.*', '-type', 'f']);
  return found.stdout.length === 0;
}

async function findRelease(root: string): Promise<string> {
  const kernels = (await readdir(join(root, 'boot')).catch(() => [])).filter((name) => name.startsWith('vmlinuz-'));
  const [kernel] = kernels;
  if (kernel === undefined || kernels.length > 1) {
    throw new PackError(
      `Cannot pack the root: ${kernels.length} kernels in /boot (${kernels.join(', ') || 'none'}), one is needed`,
      'put exactly one kernel among the packages, such as linux-image-amd64',
    );
  }
  return kernel.slice('vmlinuz-'.length);
}

/** depmod's index, and what comes with it; a kernel's package may bring less than Debian's. */
async function readIndex(root: string, folder: string): Promise<ModuleIndex> {
  const read = async (name: string): Promise<string> => await readFile(join(root, folder, name), 'utf8');
  const readIfThere = async (name: string): Promise<string> => await read(name).catch(() => '');
  const dep = await read('modules.dep').catch(() => {
    throw new PackError(
      `Cannot pack the root: /${folder}/modules.dep is missing`,
      'is depmod run by the kernel package?',
    );
  });
  const [softdep, alias, builtin] = await Promise.all([
    readIfThere('modules.softdep'),
    readIfThere('modules.alias'),
    readIfThere('modules.builtin'),
  ]);
  return { dep, softdep, alias, builtin };
}

/** `$@`: from and to, and so on. */
const COPY_MODULES = `
set -e
while [ $# -gt 0 ]; do
  case $1 in *.xz) xz --decompress --stdout "$1" ;; *) cat "$1" ;; esac >"$2"
  shift 2
done`;

/** Kernel modules as the kernel takes them; Debian ships them packed with xz. */
async function copyModules(on: Connection, folder: string, paths: readonly string[], out: string): Promise<string[]> {
  const names = paths.map((path) => `${moduleName(path)}.ko`);
  const words = paths.flatMap((path, at) => [join(folder, path), join(out, LAYER_FILES.module(names[at] ?? ''))]);
  await on.run(['sh', '-c', COPY_MODULES, 'copy', ...words]);
  return names;
}

/** `$0`: modules of the kernel; `$1`: where those to keep go; `$2`: how many at once. Their paths come in. */
const KEEP_MODULES = `
set -e
mkdir -p "$1"
cd "$0"
tar --create --no-recursion --verbatim-files-from --files-from=- modules.builtin modules.builtin.modinfo modules.order |
  tar --extract --directory "$1" --preserve-permissions
cd "$1"
find . -name '*.ko.xz' -print0 | xargs -0 -r -P "$2" -n 16 xz --decompress --force --threads=1`;

/** Those that a class asks for, unpacked: xz takes longer to load than lz4, above all without KVM. */
async function keepModules(
  on: Connection,
  options: { readonly from: string; readonly tree: string; readonly release: string; readonly keep: readonly string[] },
): Promise<void> {
  const { from, tree, release, keep } = options;
  const to = join(tree, 'usr/lib/modules', release);
  await on.run(['sh', '-c', KEEP_MODULES, from, to, String(availableParallelism())], {
    input: keep.map((path) => `${path}\n`).join(''),
    timeoutMs: 300_000,
  });
  await depmod(on, { root: tree, release });
}
