/** What dpkg and apt know of a root: a database in which every package is unpacked and none is configured, and settings. */
import { createHash } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { APT_OPTIONS, DPKG_OPTIONS } from '../host/root-options.ts';
import type { PackageLock } from '../manifests/package-lock.ts';
import type { ControlFields } from './deb-control.ts';
import type { Unpacked } from './root-unpack.ts';

/** Packages that are installed later are treated like these. */
const CONFIG: Readonly<Record<string, string>> = {
  'etc/apt/apt.conf.d/99buildos': APT_OPTIONS.map((option) => `${option};\n`).join(''),
  'etc/dpkg/dpkg.cfg.d/99buildos': DPKG_OPTIONS.map((option) => `${option}\n`).join(''),
};

/** openssh-server makes keys, which takes a second, and would be the same on every host; so it finds some. */
const HOST_KEYS = ['rsa', 'ecdsa', 'ed25519'].map((type) => `etc/ssh/ssh_host_${type}_key`);

/** dpkg's database (deb-* manuals, dpkg(1) FILES): every package is unpacked, none is configured. */
export async function writeDatabase(root: string, unpacked: readonly Unpacked[]): Promise<void> {
  const dpkg = join(root, 'var/lib/dpkg');
  for (const folder of ['info', 'updates', 'triggers', 'parts', 'alternatives']) {
    await mkdir(join(dpkg, folder), { recursive: true });
  }
  const stanzas: string[] = [];
  const interests = new Map<string, string[]>();
  for (const each of unpacked) {
    const status = each.control.replace(/^(Package:.*)$/m, '$1\nStatus: install ok unpacked');
    stanzas.push(`${status}\n${await conffiles(root, each)}`);
    for (const { name, noawait } of readInterests(each.triggers)) {
      const file = name.startsWith('/') ? 'File' : name;
      const line = `${name.startsWith('/') ? `${name} ` : ''}${each.id}${noawait ? '/noawait' : ''}\n`;
      interests.set(file, [...(interests.get(file) ?? []), line]);
    }
  }
  for (const [file, lines] of interests) await writeFile(join(dpkg, 'triggers', file), lines.join(''));
  await writeFile(join(dpkg, 'info/format'), '1\n');
  await writeFile(join(dpkg, 'status'), stanzas.map((stanza) => `${stanza}\n`).join(''));
  for (const name of ['available', 'diversions', 'statoverride']) await writeFile(join(dpkg, name), '');
}

/** The field `Conffiles` of a package that was unpacked for the first time. */
async function conffiles(root: string, each: Unpacked): Promise<string> {
  const lines: string[] = [];
  for (const { path, md5 } of each.conffiles) {
    const found =
      md5 ??
      createHash('md5')
        .update(await readFile(join(root, path)))
        .digest('hex');
    lines.push(` ${path} ${found}\n`);
  }
  return lines.length === 0 ? '' : `Conffiles:\n${lines.join('')}`;
}

function readInterests(triggers: string): { readonly name: string; readonly noawait: boolean }[] {
  return [...triggers.matchAll(/^\s*interest(-await|-noawait)?\s+(\S+)/gm)].map(([, kind, name = '']) => ({
    name,
    noawait: kind === '-noawait',
  }));
}

/** What apt and dpkg go by later on, and what maintainer scripts should find. */
export async function writeConfig(root: string, lock: PackageLock): Promise<void> {
  const sources = lock.sources.map(({ uri, suite, components }) => `deb ${uri} ${suite} ${components.join(' ')}\n`);
  const files: Readonly<Record<string, string>> = {
    ...CONFIG,
    'etc/apt/sources.list': sources.join(''),
    // Empty: where there is a network, a chroot gets that of its outside.
    'etc/resolv.conf': '',
  };
  for (const [path, text] of Object.entries(files)) {
    await mkdir(dirname(join(root, path)), { recursive: true });
    await writeFile(join(root, path), text, { mode: 0o644 });
  }
  if (lock.packages.some(({ name }) => name === 'openssh-server')) {
    await mkdir(join(root, 'etc/ssh'), { recursive: true });
    for (const key of HOST_KEYS) await writeFile(join(root, key), '', { mode: 0o600 });
  }
}

/** What apt may remove again when nobody needs it: all that nobody asked for. */
export function formatExtendedStates(packages: readonly ControlFields[], requested: readonly string[]): string {
  return packages
    .filter((fields) => fields['Essential'] !== 'yes' && fields['Priority'] !== 'required')
    .filter((fields) => !requested.includes(fields['Package'] ?? ''))
    .map(({ Package: name, Architecture: architecture }) => {
      const native = architecture === 'all' ? 'amd64' : architecture;
      return `Package: ${name}\nArchitecture: ${native}\nAuto-Installed: 1\n\n`;
    })
    .join('');
}
