/**
 * A Debian root from exactly these .debs: no archive, no network, no choice of apt's.
 *
 * ```
 *   unpack all, in parallel  ──►  dpkg's database  ──►  preinst  ──►  dpkg --configure -a  ──►  remove traces
 *   (unpacked-package, tar)       (status, triggers)    (from here on in a chroot)
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
import { openChain } from '../connections/open.ts';
import { checkDiversions, configure, runPreinst } from './dpkg-configure.ts';
import { depmodAhead } from './depmod-ahead.ts';
import { formatExtendedStates, writeConfig, writeDatabase } from './dpkg-database.ts';
import { atEpoch } from './epoch.ts';
import { settleConflicts } from './root-conflicts.ts';
import { removeTraces } from './root-traces.ts';
import { unpackAll, type UnpackOptions } from './root-unpack.ts';
import type { Workshop } from './workshop.ts';

/** What to make a root from. */
export interface BootstrapOptions extends UnpackOptions {
  readonly onStep?: (step: string) => void;
}

/**
 * Makes the root.
 *
 * @throws {BootstrapError} when packages do not fit together or a maintainer script fails, naming the package
 */
export async function bootstrapRoot(workshop: Workshop, options: BootstrapOptions): Promise<void> {
  const { root, lock, debs } = options;
  const { on, seen } = workshop;
  const step = options.onStep ?? (() => undefined);

  step('unpack');
  const { unpacked, diverting } = await unpackAll(workshop, options);
  await settleConflicts(on, root, unpacked);

  step('database');
  await writeDatabase(seen(root), unpacked);
  await writeConfig(seen(root), lock);

  if (diverting.length > 0) await mkdir(join(seen(root), 'mnt'), { recursive: true });
  const binds = diverting.length > 0 && { binds: `${dirname(debs[0] ?? '/')}:/mnt` };
  await using chain = await openChain([...workshop.chain, ['chroot', { into: root, network: false, ...binds }]]);
  const chroot = atEpoch(chain);
  const signal = options.signal ? { signal: options.signal } : {};
  {
    await using _ = await depmodAhead(on, { path: root, seen: seen(root) });
    step('preinst');
    await runPreinst(chroot, unpacked, signal);
    await checkDiversions(seen(root), unpacked);
    step('configure');
    await configure(chroot, diverting, signal);
  }
  step('traces');
  await removeTraces(seen(root));
  const fields = unpacked.map((each) => each.fields);
  await writeFile(join(seen(root), 'var/lib/apt/extended_states'), formatExtendedStates(fields, lock.requested));
}
