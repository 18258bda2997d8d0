/**
 * `npm run bench -- boot`: where the instructions of a boot go, for the profiles of images; each beside its budget and its goal.
 *
 * Instructions, not seconds: QEMU counts them (`-icount`), so the figures are the same on any machine, however busy it is.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Command } from 'commander';
import { loadImageHost } from '../cli/image-host.ts';
import { onInterrupt } from '../cli/interrupt.ts';
import { needPackages, needRoot } from '../cli/setup.ts';
import { buildImage } from '../image/build.ts';
import { type BudgetName, figuresOf, judgeBudgets, UNITS } from './boot/budgets.ts';
import { type BootableImage, type MeasureOptions, measureBoot } from './boot/measure.ts';
import { type Profile, PROFILES } from './boot/profiles.ts';
import type { BootFigures } from './boot/stamps.ts';

const EXIT_MISSED = 2;
/** A boot beyond its budget is measured again: a busy host can make it look longer. */
const BOOTS_MAX = 3;
const CHART_COLUMNS = 40;

interface Flags {
  readonly only?: string;
  readonly work: string;
  readonly json?: string;
}

/** The command. */
export function bootBench(): Command {
  return new Command('boot')
    .option('--only <profile>', `one profile: ${PROFILES.map(({ name }) => name).join(', ')}`)
    .option('--work <dir>', 'folder for caches and images', 'work')
    .option('--json <file>', 'write all figures')
    .addHelpText(
      'after',
      '\nExit status: 0 within the budgets; 2 one is exceeded by more than 3 %; 1 something could not be measured.',
    )
    .action(run);
}

async function run(flags: Flags): Promise<void> {
  const profiles = PROFILES.filter(({ name }) => flags.only === undefined || name === flags.only);
  if (profiles.length === 0) throw new RangeError(`There is no profile "${flags.only}"`);
  needRoot('another root file system');
  await needPackages(['image', 'lab']);
  using interrupt = onInterrupt();
  const results: object[] = [];
  for (const profile of profiles) {
    const { definition, definitionFile } = await loadImageHost(profile.host);
    const { image } = await buildImage({
      definition,
      definitionFile,
      work: flags.work,
      hardware: profile.hardware,
      signal: interrupt.signal,
      onProgress: (line) => process.stderr.write(`${line}\n`),
    });
    const judge = (boot: BootFigures): ReturnType<typeof judgeBudgets> =>
      judgeBudgets(figuresOf(image, boot), profile.budgets);
    const boot = await measureInFolder(image, {
      signal: interrupt.signal,
      boots: BOOTS_MAX,
      isEnough: (figures) => judge(figures).every(({ isExceeded }) => !isExceeded),
    });
    const judgements = judge(boot);
    process.stdout.write(`${describe(profile, boot, judgements)}\n\n`);
    if (judgements.some(({ isExceeded }) => isExceeded)) process.exitCode = EXIT_MISSED;
    results.push({ profile: profile.name, sizes: image.sizes, ...boot, judgements });
  }
  if (flags.json !== undefined) await writeFile(flags.json, `${JSON.stringify(results, undefined, 2)}\n`);
}

async function measureInFolder(image: BootableImage, options: MeasureOptions): Promise<BootFigures> {
  const folder = await mkdtemp(join(tmpdir(), 'buildos-bench-boot-'));
  try {
    return await measureBoot(image, folder, options);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function describe(profile: Profile, boot: BootFigures, judgements: ReturnType<typeof judgeBudgets>): string {
  const rows = judgements.map(({ name, reached, budget, isExceeded }) => [
    UNITS[name].what,
    formatFigure(name, reached),
    formatFigure(name, budget),
    formatFigure(name, profile.goals[name]),
    UNITS[name].unit,
    isExceeded ? 'EXCEEDED' : reached <= (profile.goals[name] ?? 0) ? 'goal' : 'in budget',
  ]);
  const table = alignColumns([['', 'reached', 'budget', 'goal', '', ''], ...rows]);
  const failed = boot.failed.length === 0 ? [] : [`failed units: ${boot.failed.join(' ')}`];
  return [`${profile.name}: ${profile.summary}`, ...chart(boot), '', ...table, ...failed].join('\n');
}

/** A bar a phase, from where the one before ended. */
function chart({ phases }: BootFigures): string[] {
  const total = phases.at(-1)?.end ?? 1;
  let start = 0;
  return phases.map(({ name, end }) => {
    const from = Math.round((start / total) * CHART_COLUMNS);
    const to = Math.max(from + 1, Math.round((end / total) * CHART_COLUMNS));
    const bar = `${' '.repeat(from)}${'█'.repeat(to - from)}`.padEnd(CHART_COLUMNS + 1);
    const line = `  ${name.padEnd(14)} ${bar} ${(end - start).toFixed(2).padStart(6)} ${end.toFixed(2).padStart(6)}`;
    start = end;
    return line;
  });
}

function formatFigure(name: BudgetName, value: number | undefined): string {
  if (value === undefined) return '';
  return Number.isNaN(value) ? '–' : value.toFixed(UNITS[name].unit === 'MB' ? 0 : 2);
}

function alignColumns(rows: readonly (readonly string[])[]): string[] {
  const widths = rows[0]?.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0))) ?? [];
  const isNumber = (column: number): boolean => column >= 1 && column <= 3;
  const pad = (cell: string, column: number): string =>
    isNumber(column) ? cell.padStart(widths[column] ?? 0) : cell.padEnd(widths[column] ?? 0);
  return rows.map((row) => `  ${row.map(pad).join('  ')}`.trimEnd());
}
