/**
 * Which package every file of an installed root comes from.
 *
 * dpkg's lists name what packages ship (dpkg-query(1), `--listfiles`). What their maintainer scripts make is in no list: a
 * link that update-alternatives made is in its database; another link belongs to what it leads to; for the rest there is
 * a table of what is made by whom, then the script that names the path, then the folder that one package alone has. All
 * of it is read from the root, so the same root gives the same origins.
 */
import { readdir, readFile, readlink } from 'node:fs/promises';
import { join, normalize } from 'node:path';
import { parseControl } from './deb-control.ts';
import { groupOrigins, type LayerOrigins, type Origin, writeOrigins } from './trace.ts';

/** An installed package, as dpkg's database has it. */
export interface InstalledPackage {
  readonly name: string;
  readonly version: string;
  /** Absolute paths, as in `<name>.list`. */
  readonly list: readonly string[];
  /** The text of its maintainer scripts, and of what it has systemd-tmpfiles make. */
  readonly scripts: string;
}

/** A root, as far as it matters here. */
export interface InstalledRoot {
  /** Paths without the first slash; of links what they lead to. */
  readonly paths: ReadonlyMap<string, string | undefined>;
  readonly packages: readonly InstalledPackage[];
  readonly diversions: readonly { readonly from: string; readonly to: string; readonly by: string }[];
  /** Texts of `/var/lib/dpkg/alternatives/*`, by name. */
  readonly alternatives: ReadonlyMap<string, string>;
}

const DPKG = 'var/lib/dpkg';

/** What our own steps write into a root of packages; see bootstrap.ts. */
const STEPS: readonly (readonly [pattern: RegExp, step: string])[] = [
  [/^$/, 'the root itself'],
  [/^usr\/lib\/modules\/[^/]+\/modules\.(?!order|builtin(\.modinfo)?$)[a-z.]+$/, 'index of kernel modules (depmod)'],
  [/^etc\/(apt\/apt\.conf\.d|dpkg\/dpkg\.cfg\.d)\/99buildos$/, 'how packages are installed'],
  [/^(etc\/apt\/sources\.list|var\/lib\/apt\/extended_states)$/, 'how packages are installed'],
  [/^etc\/(resolv\.conf|machine-id|hostname)$/, 'nothing of the machine that builds'],
  [/^var\/lib\/dpkg(\/|$)/, "dpkg's database"],
  [/^(dev|proc|sys|run|mnt|tmp)(\/|$)/, 'where file systems are mounted'],
];

/** Files that a package's script makes and that scripts of others name too. */
const MADE_BY: readonly (readonly [pattern: RegExp, name: string])[] = [
  [/^etc\/(passwd|group|shadow|gshadow|subuid|subgid)-?$/, 'base-passwd'],
  [/^(etc\/ld\.so\.cache|var\/cache\/ldconfig\/.*)$/, 'libc-bin'],
  [/^etc\/ssl\/certs\//, 'ca-certificates'],
  [/^etc\/pam\.d\/common-|^var\/lib\/pam\//, 'libpam-runtime'],
  [/^var\/cache\/debconf\//, 'debconf'],
  [/^(etc\/shells|var\/lib\/shells\.state)$/, 'debianutils'],
  [/^etc\/nsswitch\.conf$/, 'libc-bin'],
  [/^(media|opt|srv|etc\/opt|var\/opt|etc\/environment)$/, 'base-files'],
  [/^(etc\/rc[0-6S]\.d|var\/lib\/systemd\/deb-systemd)/, 'init-system-helpers'],
  [/^var\/lib\/ucf\//, 'ucf'],
  [/^usr\/lib\/udev\/hwdb\.bin$/, 'udev'],
  [/^usr\/lib\/systemd\/catalog\/|^var\/lib\/systemd\//, 'systemd'],
  [/^etc\/initramfs-tools\/|^var\/lib\/initramfs-tools\/|^boot\/initrd/, 'initramfs-tools'],
];

const AT_INSTALL = 'installing packages, by a script that is not known';

/** How often a link to a link is followed. */
const LINKS = 16;

/**
 * Notes the origins of a root of packages.
 *
 * @param root - the root with dpkg's database, as this process sees it
 * @param out - the folder that becomes the layer's entry
 */
export async function recordPackages(root: string, out: string): Promise<void> {
  await writeOrigins(out, tracePackages(await readInstalledRoot(root)));
}

/** Traces every path of a root. */
export function tracePackages(root: InstalledRoot): LayerOrigins {
  const origins = new Map<string, Origin>();
  const byName = new Map(root.packages.map((each) => [each.name, each]));
  const put = (
    path: string,
    each: InstalledPackage,
    how: 'shipped' | 'alternative' | 'link' | 'script' | 'folder',
  ): void => {
    origins.set(path, { kind: 'package', name: each.name, version: each.version, how });
  };
  const sharers = shippedPaths(root);
  for (const path of root.paths.keys()) {
    // The folders that all have, such as /usr, are those of base-files.
    const shippers = sharers.get(path) ?? sharers.get(`${path}/`) ?? [];
    const shipper = shippers.find(({ name }) => name === 'base-files') ?? shippers[0];
    if (shipper !== undefined) put(path, shipper, 'shipped');
  }
  for (const [path, by] of alternativePaths(root)) {
    const origin = origins.get(by);
    if (root.paths.has(path) && !origins.has(path) && origin?.kind === 'package') {
      origins.set(path, { ...origin, how: 'alternative' });
    }
  }
  const scripts = root.packages.filter(({ scripts }) => scripts !== '');
  const untraced = [...root.paths.keys()].filter((path) => !origins.has(path)).toSorted();
  const unknown: string[] = [];
  for (const path of untraced) {
    const step = STEPS.find(([pattern]) => pattern.test(path))?.[1];
    if (step !== undefined) {
      origins.set(path, { kind: 'step', name: step });
      continue;
    }
    const linked = origins.get(followLinks(path, root.paths));
    const table = byName.get(MADE_BY.find(([pattern]) => pattern.test(path))?.[1] ?? '');
    if (root.paths.get(path) !== undefined && linked?.kind === 'package') origins.set(path, { ...linked, how: 'link' });
    else if (table !== undefined) put(path, table, 'script');
    else {
      const script = scripts.find((each) => names(each.scripts, path));
      const folder = soleOwner(path, sharers);
      if (script !== undefined) put(path, script, 'script');
      else if (folder !== undefined) put(path, folder, 'folder');
      else {
        const madeWith = originOfFolder(path, origins);
        if (madeWith !== undefined) origins.set(path, madeWith);
        else unknown.push(path);
      }
    }
  }
  // A folder that is there for what is in it, such as multi-user.target.wants.
  for (const path of unknown) {
    const inside = untraced.find((each) => each.startsWith(`${path}/`) && origins.get(each)?.kind === 'package');
    const origin = origins.get(inside ?? '');
    origins.set(path, origin?.kind === 'package' ? { ...origin, how: 'folder' } : { kind: 'step', name: AT_INSTALL });
  }
  return groupOrigins([...root.paths.keys()].toSorted().map((path) => [path, origins.get(path) ?? nowhere(path)]));
}

/** Packages by the path that they ship, by name; of a merged /usr `/lib/x` is `usr/lib/x`. */
function shippedPaths(root: InstalledRoot): ReadonlyMap<string, readonly InstalledPackage[]> {
  const shipped = new Map<string, InstalledPackage[]>();
  const diverted = new Map(root.diversions.map((each) => [each.from, each]));
  for (const each of root.packages.toSorted((a, b) => (a.name < b.name ? -1 : 1))) {
    for (const listed of each.list) {
      const diversion = diverted.get(listed);
      const real = diversion !== undefined && diversion.by !== each.name ? diversion.to : listed;
      const path = real.replace(/^\/\.?/, '');
      for (const at of new Set([path, path.replace(/^(bin|sbin|lib|lib64)\//, 'usr/$1/')])) {
        const list = shipped.get(at) ?? [];
        list.push(each);
        shipped.set(at, list);
      }
    }
  }
  return shipped;
}

/**
 * The links of update-alternatives(1), with the file that each leads to. A database file is: status, link, slaves (name
 * and link) up to an empty line, then for each choice: path, priority, paths of the slaves.
 */
function alternativePaths(root: InstalledRoot): (readonly [path: string, by: string])[] {
  const found: (readonly [string, string])[] = [];
  for (const [name, text] of root.alternatives) {
    const [, link = '', ...rest] = text.split('\n');
    const end = rest.indexOf('');
    const slaves = rest.slice(0, end);
    const links = [name, ...slaves.filter((_, index) => index % 2 === 0)].map((each, index) => ({
      name: each,
      link: index === 0 ? link : (slaves[(index - 1) * 2 + 1] ?? ''),
    }));
    for (const each of links) {
      const chosen = root.paths.get(`etc/alternatives/${each.name}`)?.replace(/^\//, '');
      if (chosen === undefined) continue;
      const by = followLinks(chosen.replace(/^(bin|sbin|lib|lib64)\//, 'usr/$1/'), root.paths);
      found.push([`etc/alternatives/${each.name}`, by]);
      const at = each.link.replace(/^\//, '');
      found.push([at, by], [at.replace(/^(bin|sbin|lib|lib64)\//, 'usr/$1/'), by]);
    }
  }
  return found;
}

/** Where a link leads in the root, link after link; the links of the merged /usr included. */
function followLinks(path: string, paths: ReadonlyMap<string, string | undefined>): string {
  let at = path;
  for (let n = 0; n < LINKS; n += 1) {
    const target = paths.get(at);
    if (target === undefined) break;
    const folder = at.slice(0, Math.max(0, at.lastIndexOf('/')));
    at = normalize(target.startsWith('/') ? target.slice(1) : join('/', folder, target).slice(1));
    at = at.replace(/^(bin|sbin|lib|lib64)\//, 'usr/$1/').replace(/\/$/, '');
  }
  return at;
}

/** Whether a script names the path, and not only the beginning of a longer one. */
function names(scripts: string, path: string): boolean {
  const words = `/${path}`;
  for (let at = scripts.indexOf(words); at !== -1; at = scripts.indexOf(words, at + 1)) {
    if (!/[\w.-]/.test(scripts[at + words.length] ?? '') && !/[\w.-]/.test(scripts[at - 1] ?? '')) return true;
  }
  return false;
}

/** The package that alone ships the nearest folder that anybody ships; not when that is one that everything is in. */
function soleOwner(
  path: string,
  sharers: ReadonlyMap<string, readonly InstalledPackage[]>,
): InstalledPackage | undefined {
  for (let folder = parentOf(path); folder.includes('/'); folder = parentOf(folder)) {
    const owners = new Set(sharers.get(folder) ?? []);
    if (owners.size === 1) return [...owners][0];
    if (owners.size > 1) return undefined;
  }
  return undefined;
}

/** What is in a folder that a script made comes from where the folder does. */
function originOfFolder(path: string, origins: ReadonlyMap<string, Origin>): Origin | undefined {
  const origin = origins.get(parentOf(path));
  if (origin?.kind !== 'package') return undefined;
  return origin.how === 'shipped' ? undefined : origin;
}

function nowhere(path: string): never {
  throw new RangeError(`Cannot trace /${path}: no rule fits`);
}

const parentOf = (path: string): string => path.slice(0, Math.max(0, path.lastIndexOf('/')));

/** Reads what {@link tracePackages} needs to know. */
async function readInstalledRoot(root: string): Promise<InstalledRoot> {
  const paths = new Map<string, string | undefined>([['', undefined]]);
  // Not `recursive` of readdir: it follows links, and /dev/fd leads out of the root.
  const walk = async (folder: string): Promise<void> => {
    for (const entry of await readdir(join(root, folder), { withFileTypes: true })) {
      const path = folder === '' ? entry.name : `${folder}/${entry.name}`;
      paths.set(path, entry.isSymbolicLink() ? await readlink(join(root, path)) : undefined);
      if (entry.isDirectory()) await walk(path);
    }
  };
  await walk('');
  const readAt = async (path: string): Promise<string> => await readFile(join(root, path), 'utf8').catch(() => '');
  const read = async (path: string): Promise<string> => await readAt(join(DPKG, path));
  const packages: InstalledPackage[] = [];
  const infos = Map.groupBy(await readdir(join(root, DPKG, 'info')), (file) => file.slice(0, file.lastIndexOf('.')));
  for (const stanza of (await read('status')).split('\n\n').filter((each) => each.trim() !== '')) {
    const { Package: name = '', Version: version = '', Architecture: architecture = '' } = parseControl(stanza);
    const id = infos.has(`${name}:${architecture}`) ? `${name}:${architecture}` : name;
    const list = (await read(`info/${id}.list`)).split('\n').filter((line) => line !== '');
    const scripts = (infos.get(id) ?? [])
      .filter((file) => /\.(preinst|postinst|config|triggers)$/.test(file))
      .toSorted();
    const texts = [
      ...scripts.map((file) => join(DPKG, 'info', file)),
      ...list.filter((path) => /^\/usr\/lib\/tmpfiles\.d\/.*\.conf$/.test(path)),
    ];
    packages.push({
      name,
      version,
      list,
      scripts: (await Promise.all(texts.map(readAt))).join('\n'),
    });
  }
  const alternatives = new Map<string, string>();
  for (const name of await readdir(join(root, DPKG, 'alternatives')).catch((): string[] => [])) {
    alternatives.set(name, await read(`alternatives/${name}`));
  }
  const lines = (await read('diversions')).split('\n');
  const diversions = Array.from({ length: Math.floor(lines.length / 3) }, (_, n) => {
    const [from = '', to = '', by = ''] = lines.slice(n * 3);
    return { from, to, by };
  });
  return { paths, packages, diversions, alternatives };
}
