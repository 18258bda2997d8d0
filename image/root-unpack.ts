/** Puts the files of packages into an empty folder: as many tars as there are cores, each fed one package after the other. */
import { mkdir } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { basename } from 'node:path';
import type { PackageLock } from '../manifests/package-lock.ts';
import { BootstrapError } from './bootstrap-error.ts';
import { type ControlFields, parseControl } from './deb-control.ts';
import { END_OF_ARCHIVE } from './tar-members.ts';
import { type PackageIndex, readPackage } from './unpacked-package.ts';
import type { Workshop } from './workshop.ts';

/** A package whose files are in the root. */
export interface Unpacked extends PackageIndex {
  readonly fields: ControlFields;
  readonly deb: string;
}

/** What to unpack, and where. */
export interface UnpackOptions {
  readonly lock: PackageLock;
  /** The .debs, in the order of the lock's packages; all in one folder. */
  readonly debs: readonly string[];
  /** Folder of the root, in the workshop; must not exist. */
  readonly root: string;
  /** Digest of the code that unpacks packages. */
  readonly form: string;
  readonly signal?: AbortSignal;
}

/** Unpacked before all else: the links of the merged /usr. */
export const FIRST = 'base-files';

const TIMEOUT_MS = 10 * 60_000;

const TAR: readonly string[] = [
  'tar',
  '--extract',
  '--numeric-owner',
  '--preserve-permissions',
  '--keep-directory-symlink',
  '--no-overwrite-dir',
];

/**
 * Unpacks all packages but those that divert files of others, which dpkg has to unpack.
 *
 * @returns both kinds in the order of the lock
 * @throws {BootstrapError} when nothing can be unpacked before all else
 */
export async function unpackAll(
  { on, seen }: Workshop,
  options: UnpackOptions,
): Promise<{ readonly unpacked: readonly Unpacked[]; readonly diverting: readonly string[] }> {
  const { lock, debs, root, form, signal } = options;
  const order = lock.packages.map(({ name, sizeBytes }, index) => ({ name, sizeBytes, deb: debs[index] ?? '' }));
  // The largest first: whatever comes last is quick, and no core waits for it.
  order.sort((a, b) => Number(b.name === FIRST) - Number(a.name === FIRST) || b.sizeBytes - a.sizeBytes);
  const [first, ...others] = order.map(({ deb }) => deb);
  if (first === undefined || order[0]?.name !== FIRST) {
    throw new BootstrapError(`Cannot make a root without the package ${FIRST}`, 'is the lock one of "image update"?');
  }
  await mkdir(seen(root), { mode: 0o755 });
  const indexes = new Map<string, PackageIndex>();
  const open = async (deb: string): Promise<Uint8Array> => {
    const { index, tar } = await readPackage(on, deb, { form, ...(signal && { signal }) });
    indexes.set(deb, index);
    return tar;
  };
  const unpack = async (queue: Iterator<string>): Promise<void> => {
    await on.run(TAR, { cwd: root, input: archiveOf(queue, open), timeoutMs: TIMEOUT_MS, ...(signal && { signal }) });
  };
  await unpack([first].values());
  const queue = others.values();
  const all = await Promise.allSettled(Array.from({ length: availableParallelism() }, () => unpack(queue)));
  for (const each of all) if (each.status === 'rejected') throw each.reason;
  const unpacked: Unpacked[] = [];
  const diverting: string[] = [];
  for (const deb of debs) {
    const index = indexes.get(deb);
    if (index === undefined) throw new RangeError(`${basename(deb)} was not unpacked`);
    if (index.diverts) diverting.push(deb);
    else unpacked.push({ ...index, fields: parseControl(index.control), deb });
  }
  return { unpacked, diverting };
}

/** Packages as one archive; the next is made ready while one is written. */
async function* archiveOf(
  queue: Iterator<string>,
  open: (deb: string) => Promise<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  const take = (): Promise<Uint8Array> | undefined => {
    const { value, done } = queue.next();
    if (done === true) return undefined;
    const opened = open(value);
    // Who awaits it hears of a failure; it may come before that.
    opened.catch(() => undefined);
    return opened;
  };
  for (let next = take(); next !== undefined;) {
    const tar = await next;
    next = take();
    if (tar.length > 0) yield tar;
  }
  yield END_OF_ARCHIVE;
}
