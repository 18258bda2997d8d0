/**
 * A Debian root from exactly these .debs: no archive, no network, no choice of apt's.
 *
 * ```
 *   first stage: essential packages, apt        ──►  second stage: all others  ──►  remove traces
 *   (from the cache, if they are the same ones)
 *
 *   a stage:  unpack all, in parallel  ──►  dpkg's database  ──►  preinst  ──►  dpkg --configure
 *             (unpacked-package, tar)       (status, triggers)    (from here on in a chroot)
 * ```
 *
 * Most of mmdebstrap's time goes into unpacking one package after the other, with a database that is rewritten for each;
 * here tar does it on all cores, and dpkg finds packages that are unpacked. What a package does to the system is done by
 * its own maintainer scripts, in dpkg's order. A package whose preinst diverts files is unpacked by dpkg itself.
 *
 * The result depends on the .debs only: what tells when and where it was made (host keys, logs, backups) is removed.
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { openChroot } from '../connections/chroot.ts';
import { runAhead } from './run-ahead.ts';
import { checkRoom } from './disk-full.ts';
import { checkDiversions, configure, runPreinst } from './dpkg-configure.ts';
import { formatExtendedStates, writeConfig, writeDatabase, writeHostKeys } from './dpkg-database.ts';
import { atEpoch } from './epoch.ts';
import { type MeetingPackages, readFolders, settleConflicts } from './root-conflicts.ts';
import { findPackages, openPackages, type ReadPackagesOptions, splitStages } from './root-packages.ts';
import { keepStage, restoreStage, type StageCache } from './root-stage.ts';
import { removeTraces } from './root-traces.ts';
import { unpackAll } from './root-unpack.ts';
import type { Workshop } from './workshop.ts';

/** What to make a root from. */
export interface BootstrapOptions extends ReadPackagesOptions {
  /** Folder of the root, in the workshop; must not exist. */
  readonly root: string;
  readonly stages: StageCache;
  readonly signal?: AbortSignal;
  readonly onStep?: (step: string) => void;
  /** Told the folder of the root when its kernel modules are indexed, while packages are configured. */
  readonly onIndexed?: (folder: string) => void;
}

/**
 * Makes the root.
 *
 * @throws {BootstrapError} when packages do not fit together or a maintainer script fails, naming the package
 */
export async function bootstrapRoot(workshop: Workshop, options: BootstrapOptions): Promise<void> {
  const { root, lock, stages } = options;
  const { seen } = workshop;
  const signal = options.signal ? { signal: options.signal } : {};
  options.onStep?.('unpack');
  const found = await findPackages(options);
  const { base, rest } = splitStages(found);
  await mkdir(seen(root), { mode: 0o755 });
  const first = await openPackages(base);
  // While the first stage is installed, which keeps one core busy.
  const others = openPackages(rest);
  // Who awaits it hears of a failure; it may come before that.
  others.catch(() => undefined);
  let kept: Promise<void> | undefined;
  try {
    const stage = { cache: stages, packages: first, ...signal };
    if (!(await restoreStage(workshop, root, stage))) ({ kept } = await makeFirstStage(workshop, options, stage));
    await install(workshop, options, { installed: first, added: await others });
  } finally {
    // Also when it fails: nothing goes on behind the back of who hears of it.
    await Promise.allSettled([others, kept]);
  }
  await kept;
  options.onStep?.('traces');
  await removeTraces(seen(root));
  const byDpkg = new Set([...first, ...(await others)].filter(({ diverts }) => diverts).map(({ deb }) => deb));
  const fields = found.filter(({ deb }) => !byDpkg.has(deb)).map((each) => each.fields);
  await writeFile(join(seen(root), 'var/lib/apt/extended_states'), formatExtendedStates(fields, lock.requested));
}

async function makeFirstStage(
  workshop: Workshop,
  options: BootstrapOptions,
  stage: Parameters<typeof keepStage>[2],
): ReturnType<typeof keepStage> {
  await install(workshop, options, { installed: [], added: stage.packages });
  return await keepStage(workshop, options.root, stage);
}

/** Installs packages into a root that has nothing, or the first stage. */
async function install(workshop: Workshop, options: BootstrapOptions, packages: MeetingPackages): Promise<void> {
  const { root, lock, debs } = options;
  const { on, seen } = workshop;
  const { installed, added } = packages;
  const step = options.onStep ?? (() => undefined);
  const signal = options.signal ? { signal: options.signal } : {};
  const empty = installed.length === 0;

  step('unpack');
  const unpacked = added.filter(({ diverts }) => !diverts);
  const diverting = added.filter(({ diverts }) => diverts).map(({ deb }) => deb);
  const folders = empty ? new Map<string, string>() : await readFolders(seen(root), unpacked);
  await unpackAll(on, unpacked, { root, empty, ...signal });
  await settleConflicts(on, root, { installed, added: unpacked, folders });

  step('database');
  await writeDatabase(seen(root), { installed, added: unpacked });
  if (empty) await writeConfig(seen(root), lock);
  await writeHostKeys(seen(root), added);

  if (diverting.length > 0) await mkdir(join(seen(root), 'mnt'), { recursive: true });
  const binds = diverting.length > 0 ? [{ from: dirname(debs[0] ?? '/'), to: '/mnt' }] : [];
  await using chain = await openChroot(on, { into: root, network: false, binds });
  const chroot = atEpoch(chain);
  await using ahead = await runAhead(on, { path: root, seen: seen(root) });
  void ahead.indexed?.then(() => options.onIndexed?.(root));
  try {
    step('preinst');
    await runPreinst(chroot, unpacked, signal);
    await checkDiversions(seen(root), [...installed, ...unpacked]);
    step('configure');
    await configure(chroot, diverting, signal);
  } catch (error) {
    await checkRoom(seen(root), 'maintainer scripts', error);
    throw error;
  }
  await checkRoom(seen(root), 'maintainer scripts');
}
