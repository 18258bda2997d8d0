/** Runs the maintainer scripts of a root in which everything is unpacked: preinst by ourselves, the rest in dpkg's order. */
import { readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { CommandError, type Connection } from '../connections/connection.ts';
import { BootstrapError } from './bootstrap-error.ts';
import { AHEAD_FOLDER } from './run-ahead.ts';
import type { RootPackage } from './root-packages.ts';

const TIMEOUT_MS = 10 * 60_000;

/** Words: id, package, architecture, three at a time. */
const PREINST = `
cd /
export PATH="${AHEAD_FOLDER}:$PATH"
export DPKG_ROOT= DPKG_ADMINDIR=/var/lib/dpkg DPKG_MAINTSCRIPT_NAME=preinst DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT=1
while [ $# -ge 3 ]; do
  export DPKG_MAINTSCRIPT_PACKAGE="$2" DPKG_MAINTSCRIPT_ARCH="$3"
  "/var/lib/dpkg/info/$1.preinst" install || { echo "dpkg: error processing package $1 (preinst): status $?" >&2; exit 1; }
  shift 3
done`;

export async function runPreinst(
  chroot: Connection,
  unpacked: readonly RootPackage[],
  options: { readonly signal?: AbortSignal },
): Promise<void> {
  // base-passwd makes the users that others name.
  const order = unpacked
    .filter((each) => each.hasPreinst)
    .sort((a, b) => Number(b.id === 'base-passwd') - Number(a.id === 'base-passwd'));
  const words = order.flatMap(({ id, fields }) => [id, fields['Package'] ?? '', fields['Architecture'] ?? '']);
  await runDpkg(chroot, ['sh', '-c', PREINST, 'preinst', ...words], options);
}

/**
 * Diversions that rename nothing guard paths that nobody ships; of one that matters tar knew nothing.
 *
 * The file has three lines for each: from, to, by whom.
 */
export async function checkDiversions(root: string, unpacked: readonly RootPackage[]): Promise<void> {
  const lines = (await readFile(join(root, 'var/lib/dpkg/diversions'), 'utf8')).split('\n');
  for (let at = 0; at + 2 < lines.length; at += 3) {
    const [from = '', , by] = lines.slice(at);
    const owner = unpacked.find(
      ({ fields, members }) => fields['Package'] !== by && members.some(({ path }) => `/${path}` === from),
    );
    if (owner === undefined) continue;
    throw new BootstrapError(
      `Cannot unpack ${owner.id}: ${by} diverts its ${from}`,
      `install ${by} by a property, apt.installed in the host's definition, after a base without it`,
    );
  }
}

/**
 * `$@`: the .debs that dpkg unpacks itself, by name in /mnt. A package that is not configured yet gets no triggers, since
 * what it does when it is configured is for all files that are there (triggers.txt of dpkg); for one of the first stage they
 * are in dpkg's database.
 */
const CONFIGURE = `
set -e
export PATH="${AHEAD_FOLDER}:$PATH"
if [ $# -gt 0 ]; then (cd /mnt && dpkg --force-depends --force-unsafe-io --unpack "$@"); fi
dpkg --force-unsafe-io --force-confdef --force-confold --configure --pending`;

export async function configure(
  chroot: Connection,
  diverting: readonly string[],
  options: { readonly signal?: AbortSignal },
): Promise<void> {
  const words = diverting.map((deb) => basename(deb));
  await runDpkg(chroot, ['sh', '-c', CONFIGURE, 'configure', ...words], options);
}

async function runDpkg(
  chroot: Connection,
  argv: readonly string[],
  options: { readonly signal?: AbortSignal },
): Promise<void> {
  try {
    // initramfs-tools reads INITRD: the distribution's own initrd takes seconds and megabytes, and is never booted.
    await chroot.run(argv, { env: { INITRD: 'No' }, timeoutMs: TIMEOUT_MS, ...options });
  } catch (cause) {
    if (!(cause instanceof CommandError) || cause.failure !== 'status') throw cause;
    const said = Buffer.from(cause.stderr).toString('utf8');
    const name = /^dpkg: error processing (?:package|archive) (\S+) /m.exec(said)?.[1];
    const reason = said.trim().split('\n').slice(-4).join('; ');
    throw new BootstrapError(
      `Cannot install ${name ?? 'the packages'} into the root: ${reason}`,
      'a maintainer script fails without a running system: try an older version in the lock, or leave the package out',
      { cause },
    );
  }
}
