/** `buildos image prune`: takes away old images, versions, and what the cache has for nobody. */
import { join, relative } from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';
import { type Item, type Pruned, type PruneOptions, pruneWork } from '../image/prune.ts';
import { prunePublished } from '../image/publish/prune-published.ts';
import { countOf } from './count-of.ts';

interface PruneFlags {
  readonly work: string;
  readonly into?: string;
  readonly keep: number;
  readonly olderThan: number;
  readonly dryRun?: true;
  readonly json?: true;
}

const HELP = `
Of images, and of each kind of step in the cache, those used last stay; of packages those that an image or a choice needs
which stays. Nothing that goes is lost: a build makes it again, or downloads it. Nothing goes while a build runs.

With --into it is a published folder instead: the version in force stays, and the newest ones besides.

Examples:
  buildos image prune --dry-run
  buildos image prune --keep 1 --older-than 7d
  buildos image prune --into /srv/buildos --keep 1`;

/** `image prune`. */
export function pruneCommand(): Command {
  return new Command('prune')
    .description('remove old images and what the cache keeps for nobody; or old versions of a published folder')
    .option(
      '--keep <n>',
      'how many images stay, those used last; with --into: versions besides the one in force',
      countOf,
      3,
    )
    .option('--older-than <age>', 'what was used since stays, too: 12h, 30d, 8w', ageOf, 0)
    .option('--into <dir>', 'the folder that was given to "image publish"')
    .option('--dry-run', 'show what would go, and remove nothing')
    .addOption(new Option('--work <dir>', 'folder for caches and images').default('work'))
    .addOption(new Option('--json', 'print the result as JSON'))
    .addHelpText('after', HELP)
    .action(async (flags: PruneFlags) => {
      const options: PruneOptions = {
        keep: flags.keep,
        olderThanMs: flags.olderThan,
        dryRun: flags.dryRun === true,
      };
      const pruned =
        flags.into === undefined ? await pruneWork(flags.work, options) : await prunePublished(flags.into, options);
      if (flags.json === true) process.stdout.write(`${JSON.stringify(dataOf(pruned, options), undefined, 2)}\n`);
      else process.stdout.write(`${format(pruned, options, flags.into ?? flags.work).join('\n')}\n`);
    });
}

function dataOf({ removed, kept }: Pruned, { dryRun }: PruneOptions): unknown {
  const data = ({ kind, path, sizeBytes, usedMs }: Item): unknown => ({
    kind,
    path,
    sizeBytes,
    used: new Date(usedMs).toISOString(),
  });
  return { dryRun, removedBytes: bytesOf(removed), removed: removed.map(data), kept: kept.map(data) };
}

/** A line an image or version; of what has no name of its own, a line a kind. */
function format({ removed, kept }: Pruned, { dryRun }: PruneOptions, folder: string): string[] {
  const verb = dryRun ? 'would remove' : 'removed';
  const named = ({ kind }: Item): boolean => kind === 'image' || kind === 'version';
  const lines = removed
    .filter(named)
    .toSorted((a, b) => a.usedMs - b.usedMs)
    .map(({ kind, path, sizeBytes, usedMs }) => {
      const used = new Date(usedMs).toISOString().slice(0, 16).replace('T', ' ');
      return `${verb} ${kind} ${relative(join(path, '..'), path)}, ${mebibytes(sizeBytes)}, last used ${used} UTC`;
    });
  for (const [kind, items = []] of Object.entries(Object.groupBy(removed, (item) => item.kind))) {
    if (items.some(named)) continue;
    const all = items.length + kept.filter((item) => item.kind === kind).length;
    lines.push(
      `${verb} ${items.length} of ${all} ${WORDS[kind] ?? `results of the step "${kind}"`}, ${mebibytes(bytesOf(items))}`,
    );
  }
  const stays = kept.filter(named).length;
  const rest = `${stays} ${stays === 1 ? 'stays' : 'stay'} in ${folder}, ${mebibytes(bytesOf(kept))} in all`;
  if (removed.length === 0) return [`nothing to remove: ${rest}`];
  return [...lines, `${verb} ${mebibytes(bytesOf(removed))}; ${rest}`];
}

const WORDS: Readonly<Record<string, string>> = {
  package: 'packages (.deb)',
  choice: 'choices of packages',
  'left-over': 'things that a killed process had left',
};

const bytesOf = (items: readonly Item[]): number => items.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);

const mebibytes = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(1)} MiB`;

const UNIT_MS: Readonly<Record<string, number>> = { m: 60_000, h: 3_600_000, d: 86_400_000, w: 604_800_000 };

function ageOf(text: string): number {
  const [, count, unit = ''] = /^(\d{1,6})([mhdw])$/.exec(text) ?? [];
  if (count === undefined) throw new InvalidArgumentError('expected a number and a unit: 30m, 12h, 30d, 8w');
  return Number(count) * (UNIT_MS[unit] ?? 0);
}
