/** The packages of a root: all that is known of them, and the two stages in which they are installed. */
import { availableParallelism } from 'node:os';
import type { Connection } from '../connections/connection.ts';
import type { LockedPackage, PackageLock } from '../manifests/package-lock.ts';
import { type ControlFields, parseControl } from './deb-control.ts';
import { openPackage, type PackageIndex, type UnpackedPackage } from './unpacked-package.ts';

/** A package of a root. */
export interface RootPackage extends PackageIndex {
  readonly locked: LockedPackage;
  readonly fields: ControlFields;
  readonly deb: string;
  readonly readTar: UnpackedPackage['readTar'];
}

/** What to read, and how. */
export interface ReadPackagesOptions {
  readonly lock: PackageLock;
  /** The .debs, in the order of the lock's packages; all in one folder. */
  readonly debs: readonly string[];
  /** Digest of the code that unpacks packages. */
  readonly form: string;
  readonly signal?: AbortSignal;
}

/** Reads all packages of a lock, in its order; what was not unpacked before is unpacked now. */
export async function readPackages(on: Connection, options: ReadPackagesOptions): Promise<readonly RootPackage[]> {
  const { lock, debs, ...how } = options;
  const packages: RootPackage[] = [];
  // The largest first: whatever comes last is quick, and no core waits for it.
  const order = lock.packages.map((locked, at) => ({ locked, at, deb: debs[at] ?? '' }));
  const queue = order.toSorted((a, b) => b.locked.sizeBytes - a.locked.sizeBytes).values();
  const work = async (): Promise<void> => {
    for (const { locked, at, deb } of queue) {
      const { index, readTar } = await openPackage(on, deb, how);
      packages[at] = { ...index, locked, deb, fields: parseControl(index.control), readTar };
    }
  };
  const all = await Promise.allSettled(Array.from({ length: availableParallelism() }, work));
  for (const each of all) if (each.status === 'rejected') throw each.reason;
  return packages;
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
