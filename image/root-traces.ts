/** What a root tells of the machine and the hour it was made on, and must not. */
import { glob, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

/** What tells of this machine, or of the hour; globs in the root. */
const TRACES = [
  'etc/hostname',
  'etc/{passwd,group,shadow,gshadow,subuid,subgid}-',
  'etc/.pwd.lock',
  'etc/ssh/ssh_host_*',
  'var/cache/apt/*.bin',
  'var/cache/debconf/*-old',
  'var/cache/ldconfig/aux-cache',
  'var/lib/dpkg/*-old',
  'var/lib/dpkg/{lock,lock-frontend,triggers/Lock}',
  'var/lib/dbus/machine-id',
  'var/lib/systemd/random-seed',
  'var/log/*.log',
  'var/log/{apt,journal}/*',
];

/** Removes it. */
export async function removeTraces(root: string): Promise<void> {
  for (const pattern of TRACES) {
    for await (const path of glob(pattern, { cwd: root })) await rm(join(root, path), { recursive: true });
  }
  // Empty: systemd makes one at every boot, of every host another, and does not take it for the first boot of a disk.
  await rm(join(root, 'etc/machine-id'), { force: true });
  await writeFile(join(root, 'etc/machine-id'), '', { mode: 0o644 });
}
