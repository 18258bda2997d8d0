/** The packages of a root: all that is known of them, and the two stages in which they are installed. */
import { basename } from 'node:path';
import type { LockedPackage, PackageLock } from '../manifests/package-lock.ts';
import { type ControlFields, parseControl } from './deb-control.ts';
import type { PackageIndex } from './package-content.ts';
import type { CachedPackage, PackageCache, UnpackedPackage } from './unpacked-package.ts';

/** A package of a root, of which only the control file was read. */
export interface FoundPackage {
  readonly locked: LockedPackage;
  readonly fields: ControlFields;
  readonly deb: string;
  readonly cached: CachedPackage;
}

/** A package of a root. */
export interface RootPackage extends PackageIndex {
  readonly locked: LockedPackage;
  readonly fields: ControlFields;
  readonly deb: string;
  readonly readTar: UnpackedPackage['readTar'];
}

/** What to read. */
export interface ReadPackagesOptions {
  readonly lock: PackageLock;
  /** The .debs, in the order of the lock's packages; all in the folder of `packages`. */
  readonly debs: readonly string[];
  readonly packages: PackageCache;
}

/** Reads the control files of all packages of a lock, in its order. */
export async function findPackages(options: ReadPackagesOptions): Promise<readonly FoundPackage[]> {
  const { lock, debs, packages } = options;
  const read = async (locked: LockedPackage, at: number): Promise<FoundPackage> => {
    const deb = debs[at] ?? '';
    const cached = packages.get(basename(deb));
    return { locked, deb, cached, fields: parseControl(await cached.control()) };
  };
  return await allOf(lock.packages.map(read));
}

/** Opens packages, in the same order; what was not unpacked before is unpacked now. */
export async function openPackages(found: readonly FoundPackage[]): Promise<readonly RootPackage[]> {
  // The largest first: whatever comes last is quick, and no core waits for it.
  for (const { cached } of found.toSorted((a, b) => b.locked.sizeBytes - a.locked.sizeBytes)) {
    // Who awaits it below hears of a failure; it may come before that.
    cached.open().catch(() => undefined);
  }
  const open = async ({ locked, fields, deb, cached }: FoundPackage): Promise<RootPackage> => {
    const { index, readTar } = await cached.open();
    return { ...index, locked, fields, deb, readTar };
  };
  return await allOf(found.map(open));
}

/** Also when one fails: nothing goes on behind the back of who hears of it. */
async function allOf<T>(promises: readonly Promise<T>[]): Promise<readonly T[]> {
  await Promise.allSettled(promises);
  return await Promise.all(promises);
}

/**
 * The least that is a Debian system, and the rest.
 *
 * The first stage is what every root of a suite has: essential packages, those of priority `required`, apt, and what
 * they depend on. It is installed before anything else is unpacked, as debootstrap and apt do it, and so depends on
 * nothing else: the next root with the same first stage goes on from there.
 */
export function splitStages<Each extends { readonly fields: ControlFields }>(
  packages: readonly Each[],
): { readonly base: readonly Each[]; readonly rest: readonly Each[] } {
  const providers = new Map<string, Each[]>();
  for (const each of packages) {
    const provided = namesOf(each.fields['Provides'] ?? '').flat();
    for (const name of [each.fields['Package'] ?? '', ...provided]) {
      providers.set(name, [...(providers.get(name) ?? []), each]);
    }
  }
  const base = new Set(packages.filter(({ fields }) => isBase(fields)));
  // What is added while we go is visited, too.
  for (const { fields } of base) {
    for (const field of ['Pre-Depends', 'Depends']) {
      for (const name of namesOf(fields[field] ?? '').flat())
        for (const each of providers.get(name) ?? []) base.add(each);
    }
  }
  return { base: packages.filter((each) => base.has(each)), rest: packages.filter((each) => !base.has(each)) };
}

const isBase = (fields: ControlFields): boolean =>
  fields['Essential'] === 'yes' || fields['Priority'] === 'required' || fields['Package'] === 'apt';

/** `a (>= 1) | b, c:any` → [[a, b], [c]] (deb-control(5)). */
function namesOf(field: string): readonly (readonly string[])[] {
  const groups = field.split(',').filter((group) => group.trim() !== '');
  return groups.map((group) => group.split('|').map((each) => each.trim().split(/[ (:]/)[0] ?? ''));
}
