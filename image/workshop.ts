/**
 * Where an image is made: a mount namespace of its own with a folder in RAM, gone as soon as we are.
 *
 * A small process holds the namespace and ends when its standard input does. So whatever ends us, `kill -9` included,
 * takes every mount and every file of an unfinished build with it: nothing is left to clean up, in RAM or on disk.
 * Where RAM is short the folder is on the disk; what a killed build left there, the next one removes.
 */
import { mkdir, mkdtemp, readdir, readFile, realpath, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Chain, Connection } from '../connections/connection.ts';
import { openChain } from '../connections/open.ts';
import { start } from '../connections/process.ts';
import { atEpoch } from './epoch.ts';
import { checkUnpackable } from './work-folder.ts';

/** A root with compilers, and what is made of it, take less than this. */
const RAM_NEEDED_KIB = 3 * 2 ** 20;

/** A folder, and mounts, that live as long as this does. */
export interface Workshop extends AsyncDisposable {
  /** Programs that see the folder and the mounts of the workshop, and no locale, time zone and date of this machine. */
  readonly on: Connection;
  /** How to get there, for hops that go on from there. */
  readonly chain: Chain;
  /** The folder, as `on` sees it. */
  readonly folder: string;
  /** How this process sees a path of the workshop. Not for `realpath`. */
  readonly seen: (path: string) => string;
  /** Whether the folder is in RAM. */
  readonly inRam: boolean;
}

/** A workshop could not be opened. */
export class WorkshopError extends Error {
  override readonly name = 'WorkshopError';
  readonly hint = 'a build needs root, and the right to mount: see "unshare --mount true"';
}

/** `$1`: the folder; `$2`: size of the tmpfs, or nothing for none. */
const HOLD = `
set -e
if [ -n "$2" ]; then mount -t tmpfs -o "mode=0700,size=$2" buildos-image "$1"; fi
echo ready
exec cat >/dev/null`;

/**
 * Opens a workshop.
 *
 * @param parent - folder on a disk for its mount point, and for its files when RAM is short
 * @param options - `ram`: whether to work in RAM, by default where there is enough of it; `ramMiB`: how much may be used,
 *   by default most of what is free
 * @throws {WorkshopError} when this process may not make a mount namespace
 */
export async function openWorkshop(
  parent: string,
  options: { readonly ram?: boolean; readonly ramMiB?: number } = {},
): Promise<Workshop> {
  await mkdir(parent, { recursive: true });
  await removeLeftOver(parent);
  // Without links: an absolute one in the path would lead from /proc/PID/root back to our own name space.
  const folder = await mkdtemp(join(await realpath(parent), `build-${process.pid}-`));
  await using stack = new AsyncDisposableStack();
  stack.defer(async () => await rm(folder, { recursive: true, force: true }));
  const availableKiB = await availableMemoryKiB();
  const inRam = options.ram ?? (options.ramMiB !== undefined || availableKiB > RAM_NEEDED_KIB);
  const sizeKiB = options.ramMiB === undefined ? Math.floor(availableKiB * 0.8) : options.ramMiB * 1024;
  if (!inRam) await checkUnpackable(folder);
  const size = inRam ? `${sizeKiB}k` : '';
  const unshare = ['unshare', '--mount', '--propagation=private', '--', 'sh', '-c', HOLD, 'workshop', folder, size];
  const holder = stack.use(await start(unshare, { stdin: true }));
  let ready = false;
  for await (const line of holder.stdout) {
    if (line !== 'ready') continue;
    ready = true;
    break;
  }
  if (!ready) {
    await holder.exited;
    throw new WorkshopError(`Cannot open a mount namespace for the build: ${holder.stderr.tail(2).join(' ')}`);
  }
  const chain: Chain = [['local'], ['nsenter', { pid: holder.pid }]];
  const on = stack.use(atEpoch(await openChain(chain)));
  const held = stack.move();
  return {
    on,
    chain,
    folder,
    inRam,
    seen: (path) => `/proc/${holder.pid}/root${path}`,
    [Symbol.asyncDispose]: async () => await held.disposeAsync(),
  };
}

async function availableMemoryKiB(): Promise<number> {
  const text = await readFile('/proc/meminfo', 'utf8');
  return Number(/^MemAvailable: *(\d+) kB$/m.exec(text)?.[1] ?? 0);
}

/** Removes the folders of builds whose process is gone. */
export async function removeLeftOver(parent: string): Promise<void> {
  for (const name of await readdir(parent)) {
    const pid = /^build-(\d+)-/.exec(name)?.[1];
    if (pid === undefined || Number(pid) === process.pid) continue;
    if (await stat(`/proc/${pid}`).catch(() => undefined)) continue;
    await rm(join(parent, name), { recursive: true, force: true });
  }
}
