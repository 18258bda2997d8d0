/**
 * A disk image with machines: a sparse file that is one btrfs, labelled `buildos.machines`, without partitions.
 *
 * ```
 * <name>/           read-only subvolume: a machine
 *   manifest
 *   root/
 * .builds/          made by a host, for its snapshots
 * ```
 *
 * It is mounted in a mount namespace that a child of this process holds: when we end, in whatever way, the mount and its
 * loop device are gone. What changes it works on a copy, which takes the place of the image when it is complete; so a host
 * that has the image open is not disturbed, and after a crash the image is the old one or the new one.
 */
import { existsSync } from 'node:fs';
import {
  mkdir,
  mkdtemp,
  open,
  readdir,
  readFile,
  readlink,
  rename,
  rm,
  rmdir,
  stat,
  writeFile,
} from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { CommandError, text } from '../connections/connection.ts';
import type { Connection } from '../connections/connection.ts';
import { openChain } from '../connections/open.ts';
import { start } from '../connections/process.ts';
import { createSubvolume, deleteSubvolume, findSubvolume, makeBtrfs, setReadOnly } from '../host/btrfs.ts';
import { formatMachineManifest } from '../manifests/machine.ts';
import type { MachineManifest } from '../manifests/machine.ts';
import { enumerateVolume } from './enumerate.ts';
import type { Machines } from './enumerate.ts';

/** By this label a host finds its default volume. */
const MACHINES_LABEL = 'buildos.machines';

/** A disk image cannot be used. */
export class DiskError extends Error {
  override readonly name = 'DiskError';
  readonly file: string;
  readonly hint: string | undefined;

  constructor(file: string, reason: string, options: { readonly hint?: string; readonly cause?: unknown } = {}) {
    super(
      `Cannot use the disk image "${file}": ${reason}`,
      options.cause === undefined ? undefined : { cause: options.cause },
    );
    this.file = file;
    this.hint = options.hint;
  }
}

/** A machine to put on a disk image. */
export interface PutOptions {
  /** Of the disk image; made when it is absent. Root only: it is mounted. */
  readonly file: string;
  /** The least size of the file system; a smaller one grows. */
  readonly sizeBytes: number;
  readonly manifest: MachineManifest;
  /** Root file system of the machine; copied. */
  readonly root: string;
  readonly signal?: AbortSignal;
}

/** How long a copy of a root may take. */
const COPY_TIMEOUT_MS = 20 * 60_000;

/**
 * Puts a machine on a disk image; one of the same name is replaced.
 *
 * @throws {DiskError} when the image is none, or was changed by someone else meanwhile
 * @throws {CommandError} when a tool fails; the image is as before then
 */
export async function putMachine(options: PutOptions): Promise<void> {
  const { manifest, root, signal } = options;
  await changeDisk(options, async (inside, folder) => {
    const target = join(folder, manifest.name);
    await removeMachine(inside, target);
    await createSubvolume(inside, target);
    await inside.run(['mkdir', join(target, 'root')]);
    await inside.run(['cp', '--archive', '--one-file-system', '--', `${root}/.`, join(target, 'root')], {
      timeoutMs: COPY_TIMEOUT_MS,
      ...(signal === undefined ? {} : { signal }),
    });
    await inside.writeFile(join(target, 'manifest'), formatMachineManifest(manifest), { mode: 0o644 });
    await setReadOnly(inside, target, true);
  });
}

/**
 * Takes a machine off a disk image.
 *
 * @returns whether it was there
 */
export async function deleteMachine(file: string, name: string): Promise<boolean> {
  const { machines, problems } = await listMachines(file);
  const known = [...machines.map(({ manifest }) => manifest.name), ...problems.map((problem) => problem.name)];
  if (!known.includes(name)) return false;
  await changeDisk({ file, sizeBytes: 0 }, (inside, folder) => removeMachine(inside, join(folder, name)));
  return true;
}

/** The machines on a disk image. @throws {DiskError} when it is absent or no such image */
export async function listMachines(file: string): Promise<Machines> {
  await checkImage(file);
  await using disk = await mountDisk(file, { readOnly: true });
  // The files are looked at through the process that holds the mount: here it does not exist.
  return await enumerateVolume(`/proc/${disk.pid}/root${disk.folder}`, 'default');
}

/** Works on a copy, and puts it in the place of the image. */
async function changeDisk(
  options: Pick<PutOptions, 'file' | 'sizeBytes' | 'signal'>,
  change: (inside: Connection, folder: string) => Promise<void>,
): Promise<void> {
  const file = resolve(options.file);
  const copy = `${file}.new-${process.pid}`;
  await using local = await openChain([['local']]);
  try {
    await mkdir(dirname(file), { recursive: true });
    await removeStrayCopies(file);
    const before = await fingerprintOf(file);
    if (before === undefined) await makeDisk(local, copy, options.sizeBytes);
    else await copyDisk(local, file, copy, options);
    {
      await using disk = await mountDisk(copy, { readOnly: false });
      await disk.inside.run(['btrfs', 'filesystem', 'resize', 'max', disk.folder]);
      await change(disk.inside, disk.folder);
      await disk.inside.run(['umount', '--', disk.folder], { timeoutMs: 300_000 });
    }
    await syncFile(copy);
    if ((await fingerprintOf(file)) !== before) {
      throw new DiskError(file, 'somebody else has changed it meanwhile', { hint: 'run the command again' });
    }
    await rename(copy, file);
    await syncFile(dirname(file));
  } finally {
    await rm(copy, { force: true });
  }
}

/** Copies of processes that were killed. */
async function removeStrayCopies(file: string): Promise<void> {
  const prefix = `${basename(file)}.new-`;
  for (const name of await readdir(dirname(file))) {
    const pid = name.startsWith(prefix) ? Number(name.slice(prefix.length)) : Number.NaN;
    if (Number.isSafeInteger(pid) && !existsSync(`/proc/${pid}`)) await rm(join(dirname(file), name), { force: true });
  }
}

async function makeDisk(local: Connection, file: string, sizeBytes: number): Promise<void> {
  await writeFile(file, '', { mode: 0o644 });
  await local.run(['truncate', '--size', String(sizeBytes), '--', file]);
  await makeBtrfs(local, { device: file, label: MACHINES_LABEL });
}

async function copyDisk(
  local: Connection,
  file: string,
  copy: string,
  options: Pick<PutOptions, 'sizeBytes' | 'signal'>,
): Promise<void> {
  await checkImage(file);
  await local.run(['cp', '--reflink=auto', '--sparse=always', '--', file, copy], {
    timeoutMs: COPY_TIMEOUT_MS,
    ...(options.signal === undefined ? {} : { signal: options.signal }),
  });
  // `>`: never smaller than it is.
  await local.run(['truncate', '--size', `>${options.sizeBytes}`, '--', copy]);
}

/** @throws {DiskError} unless the file is a btrfs with our label */
async function checkImage(file: string): Promise<void> {
  const found = await stat(file).catch(() => undefined);
  if (found === undefined) {
    throw new DiskError(file, 'there is no such file', { hint: '"buildos machine create" makes it' });
  }
  if (!found.isFile()) {
    throw new DiskError(file, 'it is no regular file', { hint: 'for a real disk, use --folder with its mount point' });
  }
  await using local = await openChain([['local']]);
  const argv = ['blkid', '--probe', '--output', 'export', '--match-tag', 'TYPE', '--match-tag', 'LABEL', '--', file];
  const said = text(await local.run(argv, { okStatus: [0, 2] }));
  if (!/^TYPE=btrfs$/m.test(said) || !new RegExp(`^LABEL=${MACHINES_LABEL}(\\.|$)`, 'm').test(said)) {
    const is = said.trim().replaceAll('\n', ' ');
    throw new DiskError(file, `it is no btrfs labelled ${MACHINES_LABEL} (${is === '' ? 'no file system' : is})`, {
      hint: 'name another file; this one is left as it is',
    });
  }
}

/** A mounted disk image. */
interface MountedDisk extends AsyncDisposable {
  /** Runs where it is mounted. */
  readonly inside: Connection;
  /** Where it is mounted there. */
  readonly folder: string;
  /** Of the process that holds the mount. */
  readonly pid: number;
}

async function mountDisk(file: string, options: { readonly readOnly: boolean }): Promise<MountedDisk> {
  await using stack = new AsyncDisposableStack();
  const folder = await mkdtemp('/tmp/buildos-disk-');
  stack.defer(() => rmdir(folder));
  const holder = stack.use(await start(['unshare', '--mount', '--propagation', 'private', 'sleep', 'infinity']));
  await waitForNamespace(holder.pid);
  const inside = stack.use(await openChain([['local'], ['nsenter', { pid: holder.pid }]]));
  try {
    const flags = ['loop', 'nodev', 'noatime', options.readOnly ? 'ro' : 'rw'].join(',');
    await inside.run(['mount', '-t', 'btrfs', '-o', flags, '--', resolve(file), folder], { timeoutMs: 60_000 });
  } catch (cause) {
    if (!(cause instanceof CommandError)) throw cause;
    throw new DiskError(file, 'it cannot be mounted', {
      cause,
      hint: 'mounting needs root, a free loop device and btrfs in the kernel: see dmesg',
    });
  }
  const held = stack.move();
  return { inside, folder, pid: holder.pid, [Symbol.asyncDispose]: () => held.disposeAsync() };
}

/** The holder needs a moment until its namespace is its own; before that, we would mount in ours. */
async function waitForNamespace(pid: number): Promise<void> {
  const ours = await readlink('/proc/self/ns/mnt');
  for (let turn = 0; turn < 500; turn += 1) {
    const name = await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => '');
    if (name.trim() === 'sleep' && (await readlink(`/proc/${pid}/ns/mnt`)) !== ours) return;
    await sleep(10);
  }
  throw new Error('Cannot make a mount namespace: unshare did not start within 5 s (it needs root)');
}

async function removeMachine(inside: Connection, path: string): Promise<void> {
  if ((await findSubvolume(inside, path)) === undefined) return;
  await setReadOnly(inside, path, false);
  await deleteSubvolume(inside, path);
}

/** Changes when the file is replaced or written; undefined when it is absent. */
async function fingerprintOf(file: string): Promise<string | undefined> {
  try {
    const { dev, ino, size, mtimeNs } = await stat(file, { bigint: true });
    return [dev, ino, size, mtimeNs].join('.');
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  }
}

async function syncFile(path: string): Promise<void> {
  await using handle = await open(path, 'r');
  await handle.sync();
}
