/**
 * What is different between two images: packages, properties, kernel, files, sizes. Pure: what is compared comes as
 * arguments (diff-side.ts reads it), the texts for people are in diff-report.ts.
 */
import type { PropertyApplication } from '../properties/property.ts';
import type { EntryKind } from './explain/image-entry.ts';
import type { SubjectPackage } from './explain/find-subject.ts';

/** A file of the root (`/etc/passwd`) or of stage 1 (`initrd:/init`). */
export interface DiffFile {
  readonly kind: EntryKind;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly sizeBytes: number;
  readonly target?: string;
  readonly device?: readonly [number, number];
  readonly xattrs?: Readonly<Record<string, string>>;
  /** Digest of the part that it is in: in parts that are the same, files are. */
  readonly partSha256: string;
  /** When two have the same, so is their content. */
  readonly storedDigest: () => string;
  /** SHA-256 of its content. Called when nothing else tells. */
  readonly digest: () => string;
}

/** One of the two. What is not known of it is absent. */
export interface DiffSide {
  readonly name: string;
  readonly packages: readonly SubjectPackage[];
  readonly kernelVersion?: string;
  readonly nodeVersion?: string;
  readonly kernelArgs?: readonly string[];
  readonly properties?: readonly PropertyApplication[];
  /** By path. */
  readonly files?: ReadonlyMap<string, DiffFile>;
  /** Of the kernel and the parts of the initrd, by name. */
  readonly parts?: readonly { readonly name: string; readonly storedBytes: number; readonly sha256: string }[];
  /** Bytes in the image, by package. */
  readonly packageBytes?: ReadonlyMap<string, number>;
  /** Digests of the files that boot. */
  readonly published?: readonly string[];
}

/** Something that one side has and the other has not, or that both have and is not the same. */
export interface Change<T> {
  readonly name: string;
  /** Absent: added. */
  readonly from?: T;
  /** Absent: removed. */
  readonly to?: T;
}

/** How a file differs, each in words: `mode 0644 -> 0755`. */
export interface FileChange {
  readonly path: string;
  readonly change: 'added' | 'removed' | 'changed';
  readonly what: readonly string[];
}

/** All of it; lists that could not be compared are absent. */
export interface ImageDiff {
  readonly from: string;
  readonly to: string;
  /** What boots is the same, bit for bit. Absent: bits were not there to compare. */
  readonly identical?: boolean;
  /** Nothing differs in what was compared. */
  readonly same: boolean;
  readonly packages: readonly (Change<string> & { readonly bytes?: number })[];
  readonly kernel: readonly Change<string>[];
  readonly kernelOptions?: readonly Change<string>[];
  readonly properties?: readonly Change<PropertyApplication>[];
  readonly files?: readonly FileChange[];
  /** Of kernel and parts of the initrd, and all of it together (`in all`), in bytes. */
  readonly sizes?: readonly Change<number>[];
  /** Bytes in the image by package, also of those whose version did not change. */
  readonly packageSizes?: readonly Change<number>[];
}

/** Compares two images. */
export function diffImages(from: DiffSide, to: DiffSide): ImageDiff {
  const packages = diffPackages(from, to);
  const kernel = [
    ...(both(from.kernelVersion, to.kernelVersion, (a, b) => diffVersion('Linux', a, b)) ?? []),
    ...(both(from.nodeVersion, to.nodeVersion, (a, b) => diffVersion('Node', a, b)) ?? []),
  ];
  const kernelOptions = both(from.kernelArgs, to.kernelArgs, diffWords);
  const properties = both(from.properties, to.properties, diffProperties);
  const identical = both(from.published, to.published, (a, b) => a.join() === b.join());
  const files = identical === true ? [] : both(from.files, to.files, diffFiles);
  const sizes = both(from.parts, to.parts, (a, b) => diffMaps(bytesOf(a), bytesOf(b), (was, is) => was === is));
  const packageSizes = both(from.packageBytes, to.packageBytes, (a, b) => diffMaps(a, b, (was, is) => was === is));
  const lists = [packages, kernel, kernelOptions ?? [], properties ?? [], files ?? [], sizes ?? []];
  return {
    from: from.name,
    to: to.name,
    ...(identical !== undefined && { identical }),
    same: identical !== false && lists.every((list) => list.length === 0),
    packages,
    kernel,
    ...(kernelOptions !== undefined && { kernelOptions }),
    ...(properties !== undefined && { properties }),
    ...(files !== undefined && { files }),
    ...(sizes !== undefined && { sizes }),
    ...(packageSizes !== undefined && { packageSizes }),
  };
}

/** Packages under the same version that were built again count as changed. */
function diffPackages(from: DiffSide, to: DiffSide): ImageDiff['packages'] {
  const map = (side: DiffSide): Map<string, SubjectPackage> => new Map(side.packages.map((each) => [each.name, each]));
  const same = (a: SubjectPackage, b: SubjectPackage): boolean =>
    a.version === b.version && (a.sha256 === undefined || b.sha256 === undefined || a.sha256 === b.sha256);
  return diffMaps(map(from), map(to), same).map(({ name, from: was, to: is }) => {
    const [before, after] = [from.packageBytes?.get(name) ?? 0, to.packageBytes?.get(name) ?? 0];
    return {
      name,
      ...(was !== undefined && { from: was.version }),
      ...(is !== undefined && { to: is.version }),
      ...(from.packageBytes !== undefined && to.packageBytes !== undefined && { bytes: after - before }),
    };
  });
}

const diffVersion = (name: string, from: string, to: string): Change<string>[] =>
  from === to ? [] : [{ name, from, to }];

/** Words of a command line; a word that comes twice counts twice. */
function diffWords(from: readonly string[], to: readonly string[]): Change<string>[] {
  const rest = [...to];
  const removed = from.filter((word) => {
    const at = rest.indexOf(word);
    if (at !== -1) rest.splice(at, 1);
    return at === -1;
  });
  const changes = [
    ...removed.map((word): Change<string> => ({ name: word, from: word })),
    ...rest.map((word): Change<string> => ({ name: word, to: word })),
  ];
  const reordered = changes.length === 0 && from.join(' ') !== to.join(' ');
  return reordered ? [{ name: 'order', from: from.join(' '), to: to.join(' ') }] : changes;
}

/**
 * Properties of the same subject (id, and what the first argument names) are compared with each other, in their order.
 */
function diffProperties(
  from: readonly PropertyApplication[],
  to: readonly PropertyApplication[],
): Change<PropertyApplication>[] {
  return diffMaps(bySubject(from), bySubject(to), (a, b) => JSON.stringify(a.a) === JSON.stringify(b.a)).map(
    (change) => ({ ...change, name: change.name.replace(/ \(\d+\)$/, '') }),
  );
}

function bySubject(list: readonly PropertyApplication[]): Map<string, PropertyApplication> {
  const found = new Map<string, PropertyApplication>();
  for (const application of list) {
    const name = nameOfApplication(application);
    let key = name;
    for (let n = 2; found.has(key); n += 1) key = `${name} (${n})`;
    found.set(key, application);
  }
  return found;
}

/** `file.hasContent /etc/hostname`, `user.present build`, `apt.installed`. */
function nameOfApplication({ p, a }: PropertyApplication): string {
  const [first] = a;
  if (typeof first === 'string') return `${p} ${first}`;
  if (first !== null && typeof first === 'object' && 'name' in first && typeof first.name === 'string') {
    return `${p} ${first.name}`;
  }
  return p;
}

function diffFiles(from: ReadonlyMap<string, DiffFile>, to: ReadonlyMap<string, DiffFile>): FileChange[] {
  return diffMaps(from, to, (a, b) => differences(a, b).length === 0).map(({ name: path, from: was, to: is }) => {
    if (was === undefined || is === undefined) {
      const file = was ?? is;
      return {
        path,
        change: was === undefined ? 'added' : 'removed',
        what: file === undefined ? [] : [describe(file)],
      };
    }
    return { path, change: 'changed', what: differences(was, is) };
  });
}

/** In words, the cheapest to find out first; content is read only when sizes are the same. */
function differences(from: DiffFile, to: DiffFile): string[] {
  if (from.kind !== to.kind) return [`${describe(from)} -> ${describe(to)}`];
  const found: string[] = [];
  const add = (name: string, was: string, is: string): void => {
    if (was !== is) found.push(`${name} ${was} -> ${is}`);
  };
  add('mode', octal(from.mode), octal(to.mode));
  add('owner', `${from.uid}:${from.gid}`, `${to.uid}:${to.gid}`);
  add('target', from.target ?? '', to.target ?? '');
  add('device', (from.device ?? []).join(':'), (to.device ?? []).join(':'));
  if (JSON.stringify(from.xattrs ?? {}) !== JSON.stringify(to.xattrs ?? {})) found.push('extended attributes');
  if (from.kind !== 'file') return found;
  add('size', String(from.sizeBytes), String(to.sizeBytes));
  if (
    from.sizeBytes === to.sizeBytes &&
    from.partSha256 !== to.partSha256 &&
    from.storedDigest() !== to.storedDigest()
  ) {
    add('SHA-256', from.digest(), to.digest());
  }
  return found;
}

function describe(file: DiffFile): string {
  const { kind, mode, uid, gid } = file;
  const size = kind === 'file' ? ` ${file.sizeBytes} bytes` : '';
  const target = file.target === undefined ? '' : ` to ${file.target}`;
  return `${kind} ${octal(mode)} ${uid}:${gid}${size}${target}`;
}

/** Names in the order of the alphabet. */
function diffMaps<T>(
  from: ReadonlyMap<string, T>,
  to: ReadonlyMap<string, T>,
  isSame: (a: T, b: T) => boolean,
): Change<T>[] {
  const changes: Change<T>[] = [];
  for (const name of [...new Set([...from.keys(), ...to.keys()])].sort()) {
    const [was, is] = [from.get(name), to.get(name)];
    if (was !== undefined && is !== undefined && isSame(was, is)) continue;
    changes.push({ name, ...(was !== undefined && { from: was }), ...(is !== undefined && { to: is }) });
  }
  return changes;
}

function bytesOf(parts: NonNullable<DiffSide['parts']>): Map<string, number> {
  const sum = parts.reduce((all, { storedBytes }) => all + storedBytes, 0);
  return new Map([...parts.map(({ name, storedBytes }) => [name, storedBytes] as const), ['in all', sum]]);
}

function both<T, R>(from: T | undefined, to: T | undefined, compare: (from: T, to: T) => R): R | undefined {
  return from === undefined || to === undefined ? undefined : compare(from, to);
}

const octal = (mode: number): string => mode.toString(8).padStart(4, '0');
