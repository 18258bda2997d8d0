/**
 * Taking away what nobody asks for any more: old images, and of the cache what no image that stays was made from.
 *
 * ```
 *   <work>/images/<build id>/            the newest few stay
 *   <work>/cache/<kind>/<key>/           steps of builds (store.ts): as many as that many images are made of
 *   <work>/cache/debs/<sha256>.deb       packages of images that stay, and of choices that stay
 *   <work>/cache/choices/<key>.json      what was chosen from the archives
 * ```
 *
 * Nothing that goes is needed: a build that misses something in the cache makes it again. A folder is moved away whole
 * before it is removed, so a prune that is killed leaves nothing half removed but what the next one clears away.
 */
import { lstat, mkdtemp, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { parseImageManifest } from '../manifests/image-manifest.ts';
import { IMAGE_JSON } from './built-image.ts';
import { isDiskFull } from './disk-full.ts';
import { announcePrune } from './in-use.ts';
import { readLock } from './lock.ts';
import { partSuffix } from './store.ts';
import { makeFolder } from './work-folder.ts';
import { removeLeftOver } from './workshop.ts';

/** What stays. */
export interface PruneOptions {
  /** So many of a kind, those used last. */
  readonly keep: number;
  /** And what was used within this time. */
  readonly olderThanMs: number;
  /** Look only. */
  readonly dryRun: boolean;
}

/** Something that may go. */
export interface Item {
  /** `image`, `version`, `package`, `choice`, `left-over`, or a kind of the cache: `roots`, `layers`, … */
  readonly kind: string;
  readonly path: string;
  readonly sizeBytes: number;
  /** When it was used last, in milliseconds since 1970. */
  readonly usedMs: number;
  /** Packages that it needs, by their SHA-256. */
  readonly needs?: readonly string[];
}

/** What went, or would go. */
export interface Pruned {
  readonly removed: readonly Item[];
  readonly kept: readonly Item[];
}

/**
 * How many entries of the cache one image is made of, where it is more than one. Node and what runs beside it; a checkpoint
 * for 16 properties each (apply-properties.ts), and one or two of before the last change.
 */
const PER_IMAGE: Readonly<Record<string, number>> = { runtime: 2, properties: 2, programs: 3, checkpoints: 8 };

/** What a process that was killed has left in the cache: of a step, and of a choice. */
const LEFT_OVER = /\.part-\d+-[0-9a-f]+$/;
const LEFT_OVER_CHOICE = /^apt-[A-Za-z0-9]{6}$/;

/**
 * Prunes a work folder.
 *
 * @throws {BusyError} while a build runs there; nothing is removed then
 */
export async function pruneWork(work: string, options: PruneOptions): Promise<Pruned> {
  const folder = resolve(work);
  if ((await stat(folder).catch(() => undefined))?.isDirectory() !== true) return { removed: [], kept: [] };
  if (options.dryRun) return planPrune(await look(folder), { ...options, now: Date.now() });
  // A full disk is what it is for: then it goes on.
  await makeFolder(folder, 'pruning', '--work').catch(unlessFull);
  await using _mark = await announcePrune(folder);
  const pruned = planPrune(await look(folder), { ...options, now: Date.now() });
  await removeLeftOver(join(folder, 'tmp'));
  await removeAll(pruned.removed, join(folder, 'tmp'));
  return pruned;
}

/** Decides what goes. */
export function planPrune(items: readonly Item[], options: Omit<PruneOptions, 'dryRun'> & { now: number }): Pruned {
  const { keep, olderThanMs, now } = options;
  const removed: Item[] = [];
  const kept: Item[] = [];
  const packages: Item[] = [];
  for (const [kind, all = []] of Object.entries(Object.groupBy(items, (item) => item.kind))) {
    if (kind === 'package') {
      packages.push(...all);
      continue;
    }
    const newest = all.toSorted((a, b) => b.usedMs - a.usedMs);
    const staying = kind === 'left-over' ? 0 : keep * (PER_IMAGE[kind] ?? 1);
    for (const [index, item] of newest.entries()) {
      const old = kind === 'left-over' || now - item.usedMs >= olderThanMs;
      (index >= staying && old ? removed : kept).push(item);
    }
  }
  const needed = new Set(kept.flatMap(({ needs = [] }) => needs));
  for (const item of packages) {
    const stays = item.needs?.some((sha256) => needed.has(sha256)) === true || now - item.usedMs < olderThanMs;
    (stays ? kept : removed).push(item);
  }
  return { removed, kept };
}

/** Removes files and folders, each at once. @param scratch - on the same file system as most of them */
async function removeAll(items: readonly Item[], scratch: string): Promise<void> {
  // Named like a build's, which the next build removes when its process is gone.
  const bin = await mkdtemp(join(scratch, `build-${process.pid}-`)).catch(unlessFull);
  try {
    for (const [index, { path }] of items.entries()) {
      const beside = `${path}${partSuffix()}`;
      const away = bin === undefined ? beside : join(bin, String(index));
      const moved = await rename(path, away).then(
        () => away,
        async (error: unknown) => {
          if (!(error instanceof Error && 'code' in error)) throw error;
          if (error.code === 'ENOENT') return away;
          if (error.code !== 'EXDEV') throw error;
          await rename(path, beside);
          return beside;
        },
      );
      await rm(moved, { recursive: true, force: true });
    }
  } finally {
    if (bin !== undefined) await rm(bin, { recursive: true, force: true });
  }
}

/** What could not be written for want of room. @throws anything else */
function unlessFull(error: unknown): undefined {
  if (!isDiskFull(error)) throw error;
}

/** Everything in a work folder that may go. */
async function look(work: string): Promise<readonly Item[]> {
  const cache = join(work, 'cache');
  const items: Item[] = [];
  for (const name of await names(join(work, 'images'))) {
    const path = join(work, 'images', name);
    const used = await stat(join(path, IMAGE_JSON)).catch(() => undefined);
    if (used !== undefined)
      items.push({ ...(await itemOf('image', path)), usedMs: used.mtimeMs, needs: await packagesOf(path) });
  }
  for (const kind of await names(cache)) {
    const folder = join(cache, kind);
    if (LEFT_OVER_CHOICE.test(kind)) items.push(await itemOf('left-over', folder));
    else for (const name of await names(folder)) items.push(...(await lookAt(kind, folder, name)));
  }
  return items;
}

/** Something in the cache; none if it is of a kind that is not known here. */
async function lookAt(kind: string, folder: string, name: string): Promise<readonly Item[]> {
  const path = join(folder, name);
  if (LEFT_OVER.test(name)) return [await itemOf('left-over', path)];
  if (kind === 'debs') {
    // Beside a package there is what it unpacks to (unpacked-package.ts).
    const sha256 = /^([0-9a-f]{64})\.(deb|[0-9a-f]+\.unpacked)$/.exec(name)?.[1];
    return sha256 === undefined ? [] : [{ ...(await itemOf('package', path)), needs: [sha256] }];
  }
  if (kind === 'choices') {
    // What was chosen last (lock.ts): some bytes, which name one of the others.
    if (!name.endsWith('.json')) return [];
    const lock = await readLock(path).catch(() => undefined);
    return [{ ...(await itemOf('choice', path)), needs: lock?.packages.map(({ sha256 }) => sha256) ?? [] }];
  }
  const used = await stat(join(path, 'entry.json')).catch(() => undefined);
  return used === undefined ? [] : [{ ...(await itemOf(kind, path)), usedMs: used.mtimeMs }];
}

/** A file, or a folder with all that is in it. */
export async function itemOf(kind: string, path: string): Promise<Item> {
  const info = await lstat(path).catch(() => undefined);
  if (info === undefined) return { kind, path, sizeBytes: 0, usedMs: 0 };
  let sizeBytes = info.isDirectory() ? 0 : info.size;
  if (info.isDirectory()) {
    for (const name of await readdir(path, { recursive: true })) {
      const inside = await lstat(join(path, name)).catch(() => undefined);
      if (inside?.isFile() === true) sizeBytes += inside.size;
    }
  }
  return { kind, path, sizeBytes, usedMs: info.mtimeMs };
}

async function packagesOf(image: string): Promise<readonly string[]> {
  try {
    const file = join(image, 'buildos-manifest.json');
    const { packages } = parseImageManifest(await readFile(file, 'utf8'), { name: file });
    return packages.flatMap(({ sha256 }) => (sha256 === undefined ? [] : [sha256]));
  } catch {
    // An image that was damaged needs nothing; it is told where it is used.
    return [];
  }
}

async function names(folder: string): Promise<readonly string[]> {
  return await readdir(folder).catch(() => []);
}
