/** What is in an image and how large, as lines for people and as data. */
import { GROUP_NAMES, GROUPS, type Item, type Total, totals } from './account.ts';
import { formatBytes } from './format-bytes.ts';
import type { Inspection } from './inspect.ts';
import { percent } from './size-map.ts';

const LONGEST = 100;

/** Sizes by what one may ask for, each list the largest first. */
export interface Summary {
  readonly buildId: string;
  readonly host: string;
  readonly kernelVersion: string;
  readonly nodeVersion: string;
  readonly kernelArgs: readonly string[];
  readonly storedBytes: number;
  readonly sizeBytes: number;
  readonly parts: readonly {
    readonly name: string;
    readonly form: string;
    readonly storedBytes: number;
    readonly sizeBytes: number;
  }[];
  readonly groups: readonly Total[];
  readonly packages: readonly Total[];
  readonly kernel: readonly Total[];
  readonly ours: readonly Total[];
  readonly properties: readonly Total[];
  readonly files: readonly {
    readonly path: string;
    readonly from: string;
    readonly storedBytes: number;
    readonly sizeBytes: number;
  }[];
  /** In the image, and unseen: a layer above has something else there. */
  readonly hiddenBytes: number;
  /** Whether it was noted where files come from when the image was built. */
  readonly isRecorded: boolean;
  /** Files whose origin nobody noted. */
  readonly untraced: readonly string[];
}

/** Sums up. @param top - how many files, the largest */
export function summarize(inspection: Inspection, top: number): Summary {
  const { items, manifest, parts } = inspection;
  const of = (group: Item['group']): Total[] => totals(items.filter((item) => item.group === group));
  const files = items.filter(({ entry }) => entry?.kind === 'file').toSorted((a, b) => b.storedBytes - a.storedBytes);
  return {
    buildId: manifest.buildId,
    host: manifest.host,
    kernelVersion: manifest.kernelVersion,
    nodeVersion: manifest.node.version,
    kernelArgs: inspection.kernelArgs,
    storedBytes: sum(items, 'storedBytes'),
    sizeBytes: sum(items, 'sizeBytes'),
    parts: parts.map((part) => ({
      name: part.name,
      form: part.form,
      storedBytes: part.storedBytes,
      sizeBytes: sum(
        items.filter((item) => item.part === part),
        'sizeBytes',
      ),
    })),
    groups: totals(items, ({ group }) => group),
    packages: of('packages'),
    kernel: of('kernel'),
    ours: of('ours'),
    properties: of('properties'),
    files: files
      .slice(0, top)
      .map(({ path, name, storedBytes, sizeBytes }) => ({ path, from: name, storedBytes, sizeBytes })),
    hiddenBytes: sum(
      items.filter(({ hidden }) => hidden),
      'storedBytes',
    ),
    isRecorded: inspection.origins !== undefined,
    untraced: untraced(items),
  };
}

/** Paths of entries that come from nowhere that is known. */
export function untraced(items: readonly Item[]): string[] {
  return items.filter(({ origins }) => origins.length === 0).map(({ path }) => path);
}

/** Formats a summary. */
export function formatSummary(summary: Summary, options: { readonly top: number }): string[] {
  const { storedBytes: all } = summary;
  const { top } = options;
  const lines = [
    `image ${summary.buildId}: ${summary.host}, Linux ${summary.kernelVersion}, Node ${summary.nodeVersion}`,
    `${formatBytes(all)} in the image, ${formatBytes(summary.sizeBytes)} unpacked; kernel options: ${summary.kernelArgs.join(' ') || 'none of its own'}`,
  ];
  const table = (title: string, rows: readonly (Sized & { readonly note?: string })[], most = rows.length): void => {
    const shown = rows.filter(({ storedBytes, sizeBytes }) => storedBytes > 0 || sizeBytes > 0).slice(0, most);
    if (shown.length === 0) return;
    lines.push('', title);
    for (const { name, storedBytes, sizeBytes, note } of shown) {
      const numbers = `${formatBytes(storedBytes).padStart(10)} ${percent(storedBytes, all).padStart(7)} ${formatBytes(sizeBytes).padStart(10)}`;
      lines.push(`${numbers}  ${shorten(name)}${note === undefined ? '' : `  (${shorten(note)})`}`);
    }
    const rest = rows.slice(shown.length);
    if (shown.length === most && rest.length > 0) {
      lines.push(
        `${formatBytes(sum(rest, 'storedBytes')).padStart(10)} ${percent(sum(rest, 'storedBytes'), all).padStart(7)}             ${rest.length} more; --top N shows them`,
      );
    }
  };
  table(
    'in the image, share, unpacked, by part',
    summary.parts.map((part) => ({ ...part, note: part.form })),
  );
  table(
    'by origin',
    GROUPS.flatMap((group) => summary.groups.filter((each) => each.name === group)).map((each) => ({
      ...each,
      name: GROUP_NAMES[each.group],
    })),
  );
  table(`packages (${summary.packages.length})`, summary.packages, top);
  table('kernel', summary.kernel);
  table('our steps', summary.ours, top);
  table(`properties (${summary.properties.length} that made files)`, summary.properties, top);
  table(
    'largest files',
    summary.files.map(({ path, from, ...sizes }) => ({ name: path, note: from, ...sizes })),
    top,
  );
  if (summary.hiddenBytes > 0) {
    lines.push(
      '',
      `${formatBytes(summary.hiddenBytes)} are in the image and unseen: replaced or removed in a layer above`,
    );
  }
  if (summary.untraced.length > 0) {
    const some = summary.untraced.slice(0, 5).join(' ');
    lines.push(
      '',
      `it was not noted where ${summary.untraced.length} files come from (${some}${summary.untraced.length > 5 ? ' …' : ''})`,
      ...(summary.isRecorded
        ? []
        : ['hint: the image was built before that, or published without its record; build it again']),
    );
  }
  return lines;
}

/** A property may be described by a long list. */
const shorten = (text: string): string => (text.length > LONGEST ? `${text.slice(0, LONGEST - 1)}…` : text);

interface Sized {
  readonly name: string;
  readonly storedBytes: number;
  readonly sizeBytes: number;
}

function sum(rows: readonly Pick<Sized, 'storedBytes' | 'sizeBytes'>[], field: 'storedBytes' | 'sizeBytes'): number {
  return rows.reduce((all, row) => all + row[field], 0);
}
