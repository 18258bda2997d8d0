/** What dpkg and apt know of a root: a database in which every package is unpacked and none is configured, and settings. */
import { createHash } from 'node:crypto';
import { appendFile, mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { APT_OPTIONS, DPKG_OPTIONS } from '../host/root-options.ts';
import type { PackageLock } from '../manifests/package-lock.ts';
import type { ControlFields } from './deb-control.ts';
import type { RootPackage } from './root-packages.ts';

/** Packages that are installed later are treated like these. */
const CONFIG: Readonly<Record<string, string>> = {
  'etc/apt/apt.conf.d/99buildos': APT_OPTIONS.map((option) => `${option};\n`).join(''),
  'etc/dpkg/dpkg.cfg.d/99buildos': DPKG_OPTIONS.map((option) => `${option}\n`).join(''),
};

/** openssh-server makes keys, which takes a second, and would be the same on every host; so it finds some. */
const HOST_KEYS = ['rsa', 'ecdsa', 'ed25519'].map((type) => `etc/ssh/ssh_host_${type}_key`);

/**
 * Adds packages to dpkg's database (deb-* manuals, dpkg(1) FILES): they are unpacked, and not configured. Their part of
 * `info` came with their files.
 */
export async function writeDatabase(
  root: string,
  packages: { readonly installed: readonly RootPackage[]; readonly added: readonly RootPackage[] },
): Promise<void> {
  const { installed, added } = packages;
  const dpkg = join(root, 'var/lib/dpkg');
  for (const folder of ['info', 'updates', 'triggers', 'parts', 'alternatives']) {
    await mkdir(join(dpkg, folder), { recursive: true });
  }
  for (const name of ['available', 'diversions', 'statoverride']) await appendFile(join(dpkg, name), '');
  await writeFile(join(dpkg, 'info/format'), '1\n');
  const stanzas: string[] = [];
  const interests = new Map<string, string[]>();
  for (const each of added) {
    const status = each.control.replace(/^(Package:.*)$/m, '$1\nStatus: install ok unpacked');
    stanzas.push(`${status}\n${await conffiles(root, each)}\n`);
    for (const { name, noawait } of readInterests(each.triggers)) {
      const file = name.startsWith('/') ? 'File' : name;
      const line = `${name.startsWith('/') ? `${name} ` : ''}${each.id}${noawait ? '/noawait' : ''}\n`;
      interests.set(file, [...(interests.get(file) ?? []), line]);
    }
  }
  for (const [file, lines] of interests) await appendFile(join(dpkg, 'triggers', file), lines.join(''));
  await appendFile(join(dpkg, 'status'), stanzas.join(''));
  const paths = new Set(
    installed
      .flatMap(({ triggers }) => readInterests(triggers).map(({ name }) => name))
      .filter((name) => name.startsWith('/')),
  );
  const activated = [...paths].filter((path) =>
    added.some(({ members }) => members.some((each) => isWithin(each.path, path))),
  );
  // As dpkg notes it for a file that it unpacks (triggers.txt): nobody waits for it.
  if (activated.length > 0) {
    await writeFile(join(dpkg, 'triggers/Unincorp'), activated.map((path) => `${path} -\n`).join(''));
  }
}

/** Whether a file of a package is at a path or below it; of a merged /usr `lib/x` is `usr/lib/x`. */
function isWithin(file: string, path: string): boolean {
  const at = (each: string): string => `${each.replace(/^\/?((s?bin|lib|lib64)\/)/, '/usr/$1').replace(/^\/?/, '/')}/`;
  return at(file).startsWith(at(path));
}

/** The field `Conffiles` of a package that was unpacked for the first time. */
async function conffiles(root: string, each: RootPackage): Promise<string> {
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
}

/** Writes host keys that are none, for an openssh-server that is to be configured. */
export async function writeHostKeys(root: string, packages: readonly RootPackage[]): Promise<void> {
  if (!packages.some(({ id }) => id === 'openssh-server')) return;
  await mkdir(join(root, 'etc/ssh'), { recursive: true });
  for (const key of HOST_KEYS) await writeFile(join(root, key), '', { mode: 0o600 });
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
