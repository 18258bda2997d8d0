/**
 * Static facts of a host: what its properties say about it before anybody connects. They let the image builder install
 * all packages at once, leave out files when packing, and show what a host is made of.
 */
import type { DataRef } from './data.ts';
import type { Wire } from './image.ts';
import type { KernelClass } from './kernel-classes.ts';

/** A user that a property makes. */
export type UserAttr = { readonly name: string; readonly uid: number | null; readonly home: string };

/** A mount in /etc/fstab. */
export type MountAttr = { readonly where: string; readonly device: string };

/** What the properties of a host add up to. Lists have no duplicates and keep the order of the definition. */
export interface HostAttrs {
  readonly name: string;
  /** Debian packages to install. */
  readonly packages: readonly string[];
  /** Debian packages that must not be there. */
  readonly packagesRemoved: readonly string[];
  /** One-line apt sources. */
  readonly aptSources: readonly string[];
  readonly users: readonly UserAttr[];
  readonly groups: readonly string[];
  /** Unit files that properties write. */
  readonly units: readonly string[];
  readonly unitsEnabled: readonly string[];
  readonly unitsMasked: readonly string[];
  /** Paths to leave out when packing: relative to the root, `*`, `**` and `?` as in a shell. */
  readonly excludes: readonly string[];
  /** Paths to leave out unless one of these packages is asked for by name. */
  readonly excludesUnless: readonly { readonly patterns: readonly string[]; readonly packages: readonly string[] }[];
  /** The wire that the host boots over: one, or none when nothing was said. */
  readonly wires: readonly Wire[];
  /** Words for the kernel command line. */
  readonly kernelOptions: readonly string[];
  /** What the kernel is used for: classes of modules that an image carries. */
  readonly kernelClasses: readonly KernelClass[];
  /** Kernel modules that an image carries. */
  readonly kernelModules: readonly string[];
  /** Kernel modules that shall not be loaded. */
  readonly kernelModulesBlocked: readonly string[];
  /** What is mounted where. */
  readonly mounts: readonly MountAttr[];
  /** Files that properties manage, absolute. */
  readonly files: readonly string[];
  /** Files of the controller that properties need. */
  readonly sources: readonly { readonly source: string; readonly sha256: string }[];
  /** Prerequisite data that properties need. */
  readonly data: readonly DataRef[];
}

/** What one property adds. */
export type AttrsToAdd = Partial<Omit<HostAttrs, 'name'>>;

/** A host about which nothing is known yet. */
export function emptyAttrs(name: string): HostAttrs {
  return {
    name,
    packages: [],
    packagesRemoved: [],
    aptSources: [],
    users: [],
    groups: [],
    units: [],
    unitsEnabled: [],
    unitsMasked: [],
    excludes: [],
    excludesUnless: [],
    wires: [],
    kernelOptions: [],
    kernelClasses: [],
    kernelModules: [],
    kernelModulesBlocked: [],
    mounts: [],
    files: [],
    sources: [],
    data: [],
  };
}

/** Adds facts; what is there already is not added again. */
export function addAttrs(known: HostAttrs, more: AttrsToAdd): HostAttrs {
  return {
    name: known.name,
    packages: union(known.packages, more.packages),
    packagesRemoved: union(known.packagesRemoved, more.packagesRemoved),
    aptSources: union(known.aptSources, more.aptSources),
    users: union(known.users, more.users),
    groups: union(known.groups, more.groups),
    units: union(known.units, more.units),
    unitsEnabled: union(known.unitsEnabled, more.unitsEnabled),
    unitsMasked: union(known.unitsMasked, more.unitsMasked),
    excludes: union(known.excludes, more.excludes),
    excludesUnless: union(known.excludesUnless, more.excludesUnless),
    wires: union(known.wires, more.wires),
    kernelOptions: union(known.kernelOptions, more.kernelOptions),
    kernelClasses: union(known.kernelClasses, more.kernelClasses),
    kernelModules: union(known.kernelModules, more.kernelModules),
    kernelModulesBlocked: union(known.kernelModulesBlocked, more.kernelModulesBlocked),
    mounts: union(known.mounts, more.mounts),
    files: union(known.files, more.files),
    sources: union(known.sources, more.sources),
    data: union(known.data, more.data),
  };
}

/** All paths to leave out of the image of a host, once everything is known about it. */
export function excludedPaths({ excludes, excludesUnless, packages }: HostAttrs): readonly string[] {
  const more = excludesUnless.filter((each) => !each.packages.some((name) => packages.includes(name)));
  return [...excludes, ...more.flatMap(({ patterns }) => patterns)];
}

function union<T>(known: readonly T[], more: readonly T[] | undefined): readonly T[] {
  if (more === undefined || more.length === 0) return known;
  const seen = new Set(known.map((item) => JSON.stringify(item)));
  const added = more.filter((item) => {
    const key = JSON.stringify(item);
    return !seen.has(key) && seen.add(key);
  });
  return added.length === 0 ? known : [...known, ...added];
}
