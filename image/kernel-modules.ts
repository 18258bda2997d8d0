/**
 * Which kernel modules an image holds: whole classes by the path in the kernel's tree, single ones by name, and what all of
 * them depend on.
 *
 * A distribution's kernel brings some 4,000 modules, 490 MB when unpacked; a build host needs the tenth part.
 */
import type { ModuleClass } from './module-classes.ts';

/** What depmod(8) and the kernel say of a kernel's modules: the texts of the files of this name in its folder. */
export interface ModuleIndex {
  /** `modules.dep`: `path: dependency dependency …`. */
  readonly dep: string;
  /** `modules.softdep`: `softdep NAME pre: NAME … post: NAME …`: what a module asks for when it runs. */
  readonly softdep: string;
  /** `modules.alias`: `alias PATTERN NAME`. */
  readonly alias: string;
  /** `modules.builtin`: paths. */
  readonly builtin: string;
}

/** A definition wants modules that its kernel does not have. */
export class MissingModuleError extends Error {
  override readonly name = 'MissingModuleError';
  readonly names: readonly string[];
  readonly hint: string;

  constructor(release: string, names: readonly string[]) {
    super(
      `Cannot pack the image: Linux ${release} has no kernel module ${names.map((name) => `"${name}"`).join(', ')}`,
    );
    this.names = names;
    this.hint = release.includes('cloud')
      ? 'linux-image-cloud-amd64 has what virtual machines need; linux-image-amd64 has the others'
      : 'see kernel.modules and kernel.wantsModules of the definition; "modinfo NAME" on a host with this kernel knows its names';
  }
}

/**
 * Chooses the modules to keep: those of the classes, those that are named, and all that they depend on.
 *
 * @param wanted - modules by name, `-` and `_` alike, or by alias, such as `fs-xfs`; what is built in is there already
 * @returns paths as they stand in `modules.dep`, sorted
 * @throws {MissingModuleError} when a wanted one is neither a module nor built in
 */
export function chooseModules(
  index: ModuleIndex,
  options: { readonly release: string; readonly classes: readonly ModuleClass[]; readonly wanted: readonly string[] },
): readonly string[] {
  const dependencies = parseModulesDep(index.dep);
  const byName = new Map([...dependencies.keys()].map((path) => [moduleName(path), path]));
  const aliases = parseAliases(index.alias);
  const builtin = new Set(index.builtin.split('\n').map(moduleName));
  const find = (name: string): readonly string[] => {
    const own = byName.get(moduleName(name));
    return own === undefined ? (aliases.get(name) ?? []).flatMap((each) => byName.get(moduleName(each)) ?? []) : [own];
  };
  const missing = options.wanted.filter((name) => find(name).length === 0 && !builtin.has(moduleName(name)));
  if (missing.length > 0) throw new MissingModuleError(options.release, missing);

  const soft = parseSoftDependencies(index.softdep);
  const kept = new Set<string>();
  const keep = (path: string): void => {
    if (kept.has(path)) return;
    kept.add(path);
    for (const needed of dependencies.get(path) ?? []) keep(needed);
    // By alias mostly (`crypto-crc32c`), which any of several modules can be; what is built in needs none.
    for (const name of soft.get(moduleName(path)) ?? []) for (const found of find(name)) keep(found);
  };
  const prefixes = options.classes.flatMap((each) => each.prefixes.map((prefix) => `kernel/${prefix}`));
  for (const path of dependencies.keys()) if (prefixes.some((prefix) => path.startsWith(prefix))) keep(path);
  for (const name of options.wanted) for (const path of find(name)) keep(path);
  return [...kept].sort();
}

/**
 * The order in which to load modules by name, with what they depend on before them.
 *
 * @param names - module names, `-` and `_` alike, without suffix
 * @returns paths as in `modules.dep`; a name that `modules.dep` lacks is left out (built in, or not there)
 */
export function loadOrder(modulesDep: string, names: readonly string[]): readonly string[] {
  const dependencies = parseModulesDep(modulesDep);
  const byName = new Map([...dependencies.keys()].map((path) => [moduleName(path), path]));
  const order: string[] = [];
  for (const name of names) {
    const path = byName.get(moduleName(name));
    if (path === undefined) continue;
    // depmod writes the nearest dependency first; what has none of its own stands last.
    for (const each of [...(dependencies.get(path) ?? [])].reverse()) if (!order.includes(each)) order.push(each);
    if (!order.includes(path)) order.push(path);
  }
  return order;
}

/** `kernel/fs/squashfs/squashfs.ko.xz` → `squashfs`. */
export function moduleName(path: string): string {
  const file = path.slice(path.lastIndexOf('/') + 1);
  return file.replace(/\.ko(\.(xz|zst|gz))?$/, '').replaceAll('-', '_');
}

function parseModulesDep(text: string): ReadonlyMap<string, readonly string[]> {
  const found = new Map<string, readonly string[]>();
  for (const line of text.split('\n')) {
    const colon = line.indexOf(':');
    if (colon > 0)
      found.set(
        line.slice(0, colon),
        line
          .slice(colon + 1)
          .split(' ')
          .filter(Boolean),
      );
  }
  return found;
}

/** Names by the alias that asks for them; patterns, which stand for hardware, are passed over. */
function parseAliases(text: string): ReadonlyMap<string, readonly string[]> {
  const found = new Map<string, string[]>();
  for (const [, alias = '', name = ''] of text.matchAll(/^alias ([^ *?[]+) (\S+)$/gm)) {
    found.set(alias, [...(found.get(alias) ?? []), name]);
  }
  return found;
}

function parseSoftDependencies(text: string): ReadonlyMap<string, readonly string[]> {
  const found = new Map<string, string[]>();
  for (const [, name = '', rest = ''] of text.matchAll(/^softdep (\S+) (.*)$/gm)) {
    const needs = rest.split(' ').filter((word) => word !== '' && !word.endsWith(':'));
    found.set(moduleName(name), [...(found.get(moduleName(name)) ?? []), ...needs]);
  }
  return found;
}
