/**
 * A Debian root from exactly these .debs: no archive, no network, no choice of apt's.
 *
 * ```
 *   unpack all, in parallel  ──►  dpkg's database  ──►  preinst  ──►  dpkg --configure -a  ──►  remove traces
 *   (dpkg-deb | tar)              (status, info)        (from here on in a chroot)
 * ```
 *
 * Most of mmdebstrap's time goes into unpacking one package after the other, with a database that is rewritten for each;
 * here tar does it on all cores, and dpkg finds packages that are unpacked. What a package does to the system is done by
 * its own maintainer scripts, in dpkg's order. A package whose preinst diverts files is unpacked by dpkg itself.
 *
 * The result depends on the .debs only: what tells when and where it was made (host keys, logs, backups) is removed.
 */
import { createHash } from 'node:crypto';
import { glob, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { CommandError, type Connection } from '../connections/connection.ts';
import { openChain } from '../connections/open.ts';
import { APT_OPTIONS, DPKG_OPTIONS } from '../host/root-options.ts';
import type { PackageLock } from '../manifests/package-lock.ts';
import { type ControlFields, parseControl } from './deb-control.ts';
import { atEpoch } from './epoch.ts';
import type { Workshop } from './workshop.ts';

/** What to make a root from. */
export interface BootstrapOptions {
  readonly lock: PackageLock;
  /** The .debs, in the order of the lock's packages; all in one folder. */
  readonly debs: readonly string[];
  /** Folder of the root, in the workshop; must not exist. */
  readonly root: string;
  readonly signal?: AbortSignal;
  readonly onStep?: (step: string) => void;
}

/** A root could not be made of its packages. */
export class BootstrapError extends Error {
  override readonly name = 'BootstrapError';
  readonly hint: string;

  constructor(message: string, hint: string, options?: { readonly cause: unknown }) {
    super(message, options);
    this.hint = hint;
  }
}

/** A package that tar unpacked. */
interface Unpacked {
  /** As dpkg names its files: `libc6:amd64` when several architectures can be there at once. */
  readonly id: string;
  readonly control: string;
  readonly fields: ControlFields;
  /** Its control files, as this process sees them. */
  readonly folder: string;
  readonly hasPreinst: boolean;
  readonly members: readonly Member[];
  readonly deb: string;
}

/** What tar said of one member of a package. */
interface Member {
  /** From the root, without a slash at either end; empty for the root itself. */
  readonly path: string;
  readonly directory: boolean;
  /** `drwxr-xr-x 0/0`. */
  readonly attributes: string;
}

/** Packages that are installed later are treated like these. */
const CONFIG: Readonly<Record<string, string>> = {
  'etc/apt/apt.conf.d/99buildos': APT_OPTIONS.map((option) => `${option};\n`).join(''),
  'etc/dpkg/dpkg.cfg.d/99buildos': DPKG_OPTIONS.map((option) => `${option}\n`).join(''),
};

/** Unpacked before all else: the links of the merged /usr. */
const FIRST = 'base-files';

/** openssh-server makes keys, which takes a second, and would be the same on every host; so it finds some. */
const HOST_KEYS = ['rsa', 'ecdsa', 'ed25519'].map((type) => `etc/ssh/ssh_host_${type}_key`);

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

const TIMEOUT_MS = 10 * 60_000;

/**
 * Makes the root.
 *
 * @throws {BootstrapError} when packages do not fit together or a maintainer script fails, naming the package
 */
export async function bootstrapRoot(workshop: Workshop, options: BootstrapOptions): Promise<void> {
  const { root, lock, debs } = options;
  const { on, seen } = workshop;
  const step = options.onStep ?? (() => undefined);
  const control = `${root}.control`;

  step('unpack');
  await unpackAll(on, options, control);
  const { unpacked, diverting } = await readUnpacked(seen(control), options);
  await settleConflicts(on, root, unpacked);

  step('database');
  await writeDatabase(seen(root), unpacked);
  await writeConfig(seen(root), lock);
  await on.run(['rm', '-rf', control]);

  if (diverting.length > 0) await mkdir(join(seen(root), 'mnt'), { recursive: true });
  const binds = diverting.length > 0 && { binds: `${dirname(debs[0] ?? '/')}:/mnt` };
  await using chain = await openChain([...workshop.chain, ['chroot', { into: root, network: false, ...binds }]]);
  const chroot = atEpoch(chain);
  const signal = options.signal ? { signal: options.signal } : {};
  step('preinst');
  await runPreinst(chroot, unpacked, signal);
  await checkDiversions(seen(root), unpacked);
  step('configure');
  await configure(chroot, diverting, signal);
  step('traces');
  await removeTraces(seen(root));
  const fields = unpacked.map((each) => each.fields);
  await writeFile(join(seen(root), 'var/lib/apt/extended_states'), formatExtendedStates(fields, lock.requested));
}

/** `$0`: the root; `$1`: folder for control files; `$2`: the .deb. dpkg's own unpacking is for those that divert. */
const UNPACK = `
set -e
to=$1/\${2##*/}
dpkg-deb --control "$2" "$to"
if grep -qs dpkg-divert "$to/preinst" && grep -qe '--rename' "$to/preinst"; then exit 0; fi
dpkg-deb --fsys-tarfile "$2" | tar --extract --directory "$0" -vv --numeric-owner --preserve-permissions \
  --keep-directory-symlink --no-overwrite-dir --exclude='./usr/share/info/*' --exclude='./usr/share/lintian/*' \
  --exclude='./usr/share/man/*' --quoting-style=literal >"$to.members"`;

/** `$0`: the root; `$1`: control folder; `$2`: how many at once; then the .debs, the first of them before the others. */
const UNPACK_ALL = `
set -e
mkdir -m 0755 "$0" "$1"
root=$0 control=$1 jobs=$2 script=$3 first=$4; shift 4
sh -c "$script" "$root" "$control" "$first"
printf '%s\\0' "$@" | xargs -0 -r -n 1 -P "$jobs" sh -c "$script" "$root" "$control"`;

/** Documentation, as dpkg is told to leave it out later: links stay, since copyrights are found through them. */
const PRUNE = `
cd usr/share
find doc -mindepth 1 -type f ! -name copyright -delete
find doc -mindepth 1 -type d -empty -delete
if [ -d locale ]; then find locale -mindepth 1 -maxdepth 1 ! -name locale.alias -exec rm -rf {} +; fi`;

async function unpackAll(on: Connection, options: BootstrapOptions, control: string): Promise<void> {
  const { lock, debs, root } = options;
  const order = lock.packages.map(({ name, sizeBytes }, index) => ({ name, sizeBytes, deb: debs[index] ?? '' }));
  // The largest first: whatever comes last is quick, and no core waits for it.
  order.sort((a, b) => Number(b.name === FIRST) - Number(a.name === FIRST) || b.sizeBytes - a.sizeBytes);
  if (order[0]?.name !== FIRST) {
    throw new BootstrapError(`Cannot make a root without the package ${FIRST}`, 'is the lock one of "image update"?');
  }
  const words = ['sh', '-c', UNPACK_ALL, root, control, String(availableParallelism()), UNPACK];
  await on.run([...words, ...order.map(({ deb }) => deb)], {
    timeoutMs: TIMEOUT_MS,
    env: { LC_ALL: 'C.UTF-8', TZ: 'UTC' },
    ...(options.signal && { signal: options.signal }),
  });
}

async function readUnpacked(
  control: string,
  options: BootstrapOptions,
): Promise<{ readonly unpacked: readonly Unpacked[]; readonly diverting: readonly string[] }> {
  const unpacked: Unpacked[] = [];
  const diverting: string[] = [];
  for (const deb of options.debs) {
    const folder = join(control, basename(deb));
    const members = await readFile(`${folder}.members`, 'utf8').catch(() => undefined);
    if (members === undefined) {
      diverting.push(deb);
      continue;
    }
    const text = (await readFile(join(folder, 'control'), 'utf8')).trimEnd();
    const fields = parseControl(text);
    const { Package: name = '', Architecture: architecture = '' } = fields;
    const id = fields['Multi-Arch'] === 'same' ? `${name}:${architecture}` : name;
    const hasPreinst = (await readdir(folder)).includes('preinst');
    unpacked.push({ id, control: text, fields, folder, hasPreinst, members: parseMembers(members), deb });
  }
  return { unpacked, diverting };
}

/** `drwxr-xr-x 0/0  0 2025-01-01 00:00 ./usr/`, and ` -> target` or ` link to target` after links. */
function parseMembers(text: string): Member[] {
  const members: Member[] = [];
  for (const line of text.split('\n')) {
    const match = /^(.)(\S{9})\S* +(\d+\/\d+) +[\d,]+ \d{4}-\d\d-\d\d \d\d:\d\d(?::\d\d)? \.?\/?(.*)$/.exec(line);
    const [, type = '', mode = '', owner = '', name] = match ?? [];
    if (name === undefined) continue;
    const path = name.replace(type === 'l' ? / -> .*$/ : type === 'h' ? / link to .*$/ : /\/$/, '');
    members.push({ path, directory: type === 'd', attributes: `${mode} ${owner}` });
  }
  return members;
}

/**
 * What two packages have in common is as dpkg has it, whichever tar came first: a directory has the attributes of the
 * first package (by name), a file is that of the package that replaces the other.
 */
async function settleConflicts(on: Connection, root: string, unpacked: readonly Unpacked[]): Promise<void> {
  const owners = new Map<string, { readonly by: Unpacked; readonly member: Member }>();
  const shared = new Map<string, string>();
  const script: string[] = [];
  const first = unpacked.filter(({ id }) => id === FIRST);
  for (const by of [...first, ...unpacked.filter(({ id }) => id !== FIRST)]) {
    for (const member of by.members) {
      const path = member.path.replace(/^(bin|sbin|lib|lib64)\//, 'usr/$1/');
      const other = owners.get(path);
      if (other === undefined) owners.set(path, { by, member });
      else if (other.member.directory !== member.directory) {
        // A link to a directory, such as /lib, which --keep-directory-symlink kept.
      } else if (member.directory) {
        // Set even if both agree: one tar may have taken the other's provisional 0700 for the mode to restore.
        shared.set(path, other.member.attributes);
      } else {
        const winner = replaces(by, other.by) ? { by, member } : replaces(other.by, by) ? other : undefined;
        if (winner === undefined) {
          throw new BootstrapError(
            `Cannot unpack ${by.id}: /${path} is in the package ${other.by.id} too`,
            'one of the two packages has a fault: leave one of them out',
          );
        }
        owners.set(path, winner);
        script.push(
          `dpkg-deb --fsys-tarfile ${quote(winner.by.deb)} | tar --extract --overwrite --numeric-owner ` +
            `--preserve-permissions --keep-directory-symlink ${quote(`./${winner.member.path}`)}`,
        );
      }
    }
  }
  for (const [attributes, paths] of Map.groupBy(shared.keys(), (path) => shared.get(path) ?? '')) {
    const [mode = '', owner = '0/0'] = attributes.split(' ');
    const words = paths.map((path) => quote(path === '' ? '.' : path)).join(' ');
    // chown first: it clears set-uid bits.
    script.push(`chown ${owner.replace('/', ':')} -- ${words}`, `chmod ${octal(mode)} -- ${words}`);
  }
  await on.run(['sh', '-e'], { input: [...script, PRUNE].join('\n'), cwd: root, timeoutMs: TIMEOUT_MS });
}

/** `rwxr-xr-t` → `1755`. */
function octal(mode: string): string {
  const bits = mode.split('').map((letter) => ('-ST'.includes(letter) ? 0 : 1));
  const digits = [0, 3, 6].map((at) => (bits[at] ?? 0) * 4 + (bits[at + 1] ?? 0) * 2 + (bits[at + 2] ?? 0));
  const special = [2, 5, 8].map((at) => (/[sStT]/.test(mode[at] ?? '') ? 1 : 0));
  return `${(special[0] ?? 0) * 4 + (special[1] ?? 0) * 2 + (special[2] ?? 0)}${digits.join('')}`;
}

function replaces(a: Unpacked, b: Unpacked): boolean {
  const names = (a.fields['Replaces'] ?? '').split(',').map((each) => each.trim().split(/[ (:]/)[0]);
  return names.includes(b.fields['Package']);
}

/** dpkg's database (deb-* manuals, dpkg(1) FILES): every package is unpacked, none is configured. */
async function writeDatabase(root: string, unpacked: readonly Unpacked[]): Promise<void> {
  const dpkg = join(root, 'var/lib/dpkg');
  for (const folder of ['info', 'updates', 'triggers', 'parts', 'alternatives']) {
    await mkdir(join(dpkg, folder), { recursive: true });
  }
  const stanzas: string[] = [];
  const interests = new Map<string, string[]>();
  for (const each of unpacked) {
    for (const name of await readdir(each.folder)) {
      if (name === 'control') continue;
      await writeFile(join(dpkg, 'info', `${each.id}.${name}`), await readFile(join(each.folder, name)), {
        mode: /^(pre|post)(inst|rm)$|^config$/.test(name) ? 0o755 : 0o644,
      });
    }
    const paths = each.members.map(({ path }) => (path === '' ? '/.\n' : `/${path}\n`));
    await writeFile(join(dpkg, 'info', `${each.id}.list`), paths.join(''));
    const status = each.control.replace(/^(Package:.*)$/m, '$1\nStatus: install ok unpacked');
    stanzas.push(`${status}\n${await conffiles(root, each)}`);
    for (const { name, noawait } of await readInterests(each)) {
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
  const text = await readFile(join(each.folder, 'conffiles'), 'utf8').catch(() => '');
  const lines: string[] = [];
  for (const path of text.split('\n').filter((line) => line.startsWith('/'))) {
    const content = await readFile(join(root, path));
    lines.push(` ${path} ${createHash('md5').update(content).digest('hex')}\n`);
  }
  return lines.length === 0 ? '' : `Conffiles:\n${lines.join('')}`;
}

async function readInterests(each: Unpacked): Promise<{ readonly name: string; readonly noawait: boolean }[]> {
  const text = await readFile(join(each.folder, 'triggers'), 'utf8').catch(() => '');
  return [...text.matchAll(/^\s*interest(-await|-noawait)?\s+(\S+)/gm)].map(([, kind, name = '']) => ({
    name,
    noawait: kind === '-noawait',
  }));
}

/** What apt and dpkg go by later on, and what maintainer scripts should find. */
async function writeConfig(root: string, lock: PackageLock): Promise<void> {
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

/** Words: id, package, architecture, three at a time. */
const PREINST = `
cd /
export DPKG_ROOT= DPKG_ADMINDIR=/var/lib/dpkg DPKG_MAINTSCRIPT_NAME=preinst DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT=1
while [ $# -ge 3 ]; do
  export DPKG_MAINTSCRIPT_PACKAGE="$2" DPKG_MAINTSCRIPT_ARCH="$3"
  "/var/lib/dpkg/info/$1.preinst" install || { echo "dpkg: error processing package $1 (preinst): status $?" >&2; exit 1; }
  shift 3
done`;

async function runPreinst(
  chroot: Connection,
  unpacked: readonly Unpacked[],
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
async function checkDiversions(root: string, unpacked: readonly Unpacked[]): Promise<void> {
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
 * `$0`: the .debs that dpkg unpacks itself, by name in /mnt. Triggers on paths need not be activated: a package that is not
 * configured yet gets none, since what it does when it is configured is for all files that are there (triggers.txt of
 * dpkg), and here that is all there will be.
 */
const CONFIGURE = `
set -e
if [ $# -gt 0 ]; then (cd /mnt && dpkg --force-depends --force-unsafe-io --unpack "$@"); fi
dpkg --force-unsafe-io --force-confdef --force-confold --configure --pending`;

async function configure(
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

async function removeTraces(root: string): Promise<void> {
  for (const pattern of TRACES) {
    for await (const path of glob(pattern, { cwd: root })) await rm(join(root, path), { recursive: true });
  }
  // Empty: systemd makes one at every boot, of every host another, and does not take it for the first boot of a disk.
  await rm(join(root, 'etc/machine-id'), { force: true });
  await writeFile(join(root, 'etc/machine-id'), '', { mode: 0o644 });
}

/** What apt may remove again when nobody needs it: all that nobody asked for. */
function formatExtendedStates(packages: readonly ControlFields[], requested: readonly string[]): string {
  return packages
    .filter((fields) => fields['Essential'] !== 'yes' && fields['Priority'] !== 'required')
    .filter((fields) => !requested.includes(fields['Package'] ?? ''))
    .map(({ Package: name, Architecture: architecture }) => {
      const native = architecture === 'all' ? 'amd64' : architecture;
      return `Package: ${name}\nArchitecture: ${native}\nAuto-Installed: 1\n\n`;
    })
    .join('');
}

const quote = (word: string): string => `'${word.replaceAll("'", `'\\''`)}'`;
