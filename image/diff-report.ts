/** What differs between two images, as lines for people. */
import type { Json } from '../connections/connection.ts';
import type { Change, FileChange, ImageDiff } from './diff.ts';
import { formatBytes, formatBytesDelta } from './explain/format-bytes.ts';

/** What the letters before a line say. */
const SIGNS = { added: '+', removed: '-', changed: '~' } as const;

const MOST_SIZES = 20;

/**
 * Formats a difference; digests are shortened.
 *
 * @param options - `files`: how many files are named at most; the rest is counted
 */
export function formatDiff(diff: ImageDiff, options: { readonly files: number }): string[] {
  const lines = [`${diff.from} -> ${diff.to}`];
  if (diff.identical === true) lines.push('kernel and initrd are the same, bit for bit');
  if (diff.same) {
    if (diff.identical === undefined) lines.push('the same packages; there are no bits to compare');
    return lines;
  }
  section(lines, 'kernel and Node', diff.kernel.map(describeChange));
  section(lines, 'kernel options', (diff.kernelOptions ?? []).map(describeOption));
  section(lines, 'packages', diff.packages.map(describePackage));
  section(lines, 'properties', (diff.properties ?? []).flatMap(describeProperty));
  section(lines, `files: ${countFiles(diff.files ?? [])}`, describeFiles(diff.files ?? [], options.files));
  section(lines, 'sizes', (diff.sizes ?? []).map(describeSize));
  section(lines, 'sizes of packages of the same version', describePackageSizes(diff));
  if (diff.identical === false && lines.length === 1) lines.push('nothing but the packing differs');
  return lines.map((line) => line.replaceAll(/\b([0-9a-f]{12})[0-9a-f]{52}\b/g, '$1…'));
}

function section(lines: string[], title: string, found: readonly string[]): void {
  if (found.length > 0) lines.push(title, ...found.map((line) => `  ${line}`));
}

/** Added, removed or changed. */
function signOf(change: Change<unknown>): string {
  if (change.from === undefined) return SIGNS.added;
  return change.to === undefined ? SIGNS.removed : SIGNS.changed;
}

function describeChange(change: Change<string>): string {
  return `${signOf(change)} ${change.name}  ${values(change)}`;
}

function describeOption(change: Change<string>): string {
  if (change.from !== undefined && change.to !== undefined) return `~ ${change.name}  ${values(change)}`;
  return `${signOf(change)} ${change.name}`;
}

function describePackage(change: ImageDiff['packages'][number]): string {
  const rebuilt =
    change.from !== undefined && change.from === change.to ? `${change.from}, built again` : values(change);
  const bytes = change.bytes === undefined ? '' : `  (${formatBytesDelta(change.bytes)})`;
  return `${signOf(change)} ${change.name}  ${rebuilt}${bytes}`;
}

const values = ({ from, to }: Change<string>): string => [from, to].filter((each) => each !== undefined).join(' -> ');

/** Of a property whose arguments differ: which; of lists the items that came and went. */
function describeProperty(change: NonNullable<ImageDiff['properties']>[number]): string[] {
  const { from, to } = change;
  const head = `${signOf(change)} ${change.name}`;
  if (from === undefined || to === undefined) return [head];
  const lines: string[] = [];
  for (let index = 0; index < Math.max(from.a.length, to.a.length); index += 1) {
    const [was, is] = [from.a[index], to.a[index]];
    if (JSON.stringify(was) !== JSON.stringify(is)) lines.push(...describeArgument(was, is));
  }
  return [head, ...lines.map((line) => `    ${line}`)];
}

function describeArgument(was: Json | undefined, is: Json | undefined): string[] {
  if (Array.isArray(was) && Array.isArray(is)) {
    const [before, after] = [new Set(was.map(shown)), new Set(is.map(shown))];
    const lines = [
      ...[...before.difference(after)].map((item) => `- ${item}`),
      ...[...after.difference(before)].map((item) => `+ ${item}`),
    ];
    return lines.length > 0 ? lines : ['~ another order'];
  }
  if (typeof was === 'string' && typeof is === 'string' && `${was}${is}`.includes('\n')) {
    const [before, after] = [new Set(was.split('\n')), new Set(is.split('\n'))];
    const lines = [
      ...[...before.difference(after)].map((line) => `- ${line}`),
      ...[...after.difference(before)].map((line) => `+ ${line}`),
    ];
    return lines.length > 0 ? lines : ['~ lines in another order or number'];
  }
  return [...(was === undefined ? [] : [`- ${shown(was)}`]), ...(is === undefined ? [] : [`+ ${shown(is)}`])];
}

const shown = (value: Json): string => (typeof value === 'string' ? value : JSON.stringify(value));

function countFiles(files: readonly FileChange[]): string {
  return (['added', 'removed', 'changed'] as const)
    .map((kind) => [files.filter(({ change }) => change === kind).length, kind] as const)
    .filter(([count]) => count > 0)
    .map(([count, kind]) => `${count} ${kind}`)
    .join(', ');
}

function describeFiles(files: readonly FileChange[], most: number): string[] {
  const lines = files.slice(0, most).map(({ path, change, what }) => `${SIGNS[change]} ${path}  ${what.join(', ')}`);
  const rest = files.length - lines.length;
  return rest > 0 ? [...lines, `… and ${rest} more; --files N or --json shows them`] : lines;
}

/** The largest differences; packages that came, went or changed are listed with theirs already. */
function describePackageSizes({ packages, packageSizes = [] }: ImageDiff): string[] {
  const listed = new Set(packages.map(({ name }) => name));
  const delta = ({ from = 0, to = 0 }: Change<number>): number => Math.abs(to - from);
  // A share of a block that other files are in too changes by a few bytes with them: nobody wants to know.
  const found = packageSizes.filter((change) => !listed.has(change.name) && delta(change) >= 1024);
  const lines = found.toSorted((a, b) => delta(b) - delta(a)).map(describeSize);
  const rest = lines.length - MOST_SIZES;
  return rest > 0 ? [...lines.slice(0, MOST_SIZES), `… and ${rest} more; --json shows them`] : lines;
}

function describeSize(change: Change<number>): string {
  const { name, from = 0, to = 0 } = change;
  return `${signOf(change)} ${name}  ${formatBytes(from)} -> ${formatBytes(to)}  (${formatBytesDelta(to - from)})`;
}
