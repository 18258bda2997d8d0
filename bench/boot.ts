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
import type { ImageDefinition } from '../image/build-inputs.ts';
import type { BuiltImage } from '../image/built-image.ts';
import { AGENT_ARGUMENTS, agentHost, writeInstantToolchain } from './boot/agent-host.ts';
import {
  type BudgetName,
  endOf,
  type Figures,
  figuresOf,
  type Judgement,
  judgeBudgets,
  UNITS,
} from './boot/budgets.ts';
import { measureBoot } from './boot/measure.ts';
import { makePlainRoot, PLAIN_ARGUMENTS } from './boot/plain-root.ts';
import { type Profile, PROFILES } from './boot/profiles.ts';
import { measurePxe, type PxeWay } from './boot/pxe.ts';
import type { BootFigures } from './boot/stamps.ts';
import { withoutNode } from './boot/without-node.ts';

const EXIT_MISSED = 2;
/** A boot beyond its budget is measured again: a busy host can make it look longer. */
const BOOTS_MAX = 3;
const CHART_COLUMNS = 40;

interface Flags {
  readonly only?: string;
  readonly work: string;
  readonly json?: string;
  readonly pxe?: boolean;
}

/** The command. */
export function bootBench(): Command {
  return new Command('boot')
    .option('--only <profile>', `one profile: ${PROFILES.map(({ name }) => name).join(', ')}`)
    .option('--work <dir>', 'folder for caches and images', 'work')
    .option('--json <file>', 'write all figures')
    .option(
      '--pxe',
      'seconds from power-on over the network under TCG, instead: wants a machine that does nothing else',
    )
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
  await using scratch = await makeScratch();
  const results: object[] = [];
  for (const profile of profiles) {
    if (flags.pxe === true) {
      results.push(await measurePxeWays(profile, { ...flags, folder: scratch.folder, signal: interrupt.signal }));
      continue;
    }
    const result = await measureProfile(profile, { ...flags, folder: scratch.folder, signal: interrupt.signal });
    process.stdout.write(`${describe(profile, result)}\n\n`);
    if (result.judgements.some(({ isExceeded }) => isExceeded)) process.exitCode = EXIT_MISSED;
    results.push({ profile: profile.name, ...result });
  }
  if (flags.json !== undefined) await writeFile(flags.json, `${JSON.stringify(results, undefined, 2)}\n`);
}

/** What came of a profile. */
interface Result {
  readonly boot: BootFigures;
  readonly agentBoot?: BootFigures;
  readonly figures: Figures;
  /** Of the same image without Node; of those figures that it has. */
  readonly withoutNode: Figures;
  readonly judgements: readonly Judgement[];
}

interface Options {
  readonly work: string;
  readonly folder: string;
  readonly signal: AbortSignal;
}

/** @param other - another definition than the profile's */
async function buildProfile(profile: Profile, { work, signal }: Options, other?: ImageDefinition): Promise<BuiltImage> {
  const { definition } = await loadImageHost(profile.host);
  const { image } = await buildImage({
    definition: other ?? definition,
    work,
    hardware: profile.hardware,
    ...(profile.wire !== undefined && { wire: profile.wire }),
    signal,
    onProgress: (line) => process.stderr.write(`${line}\n`),
  });
  return image;
}

async function measureProfile(profile: Profile, options: Options): Promise<Result> {
  const { folder, signal } = options;
  const image = await buildProfile(profile, options);
  const judge = (figures: Figures): readonly Judgement[] => judgeBudgets(figures, profile.budgets);
  const isKept = (figures: Figures, names: readonly BudgetName[]): boolean =>
    judge(figures).every(({ name, isExceeded }) => !isExceeded || !names.includes(name));

  const boot = await measureBoot(image, folder, {
    signal,
    boots: BOOTS_MAX,
    isEnough: (found) => isKept(figuresOf(image, found), ['init', 'multi-user', 'memory']),
  });
  const bare = await withoutNode(image, folder);
  const bareBoot = await measureBoot(bare, folder, { signal, append: profile.withoutNode });
  let agentBoot: BootFigures | undefined;
  if (profile.hasAgent) {
    const toolchain = join(folder, 'toolchain');
    const agent = await buildProfile(profile, options, agentHost(toolchain, await writeInstantToolchain(toolchain)));
    agentBoot = await measureBoot(agent, folder, {
      signal,
      boots: BOOTS_MAX,
      append: AGENT_ARGUMENTS,
      untilAgent: true,
      isEnough: (found) => isKept(figuresOf(agent, found), ['agent']),
    });
  }
  const agent = agentBoot === undefined ? undefined : endOf(agentBoot, 'agent ready');
  const figures = { ...figuresOf(image, boot), ...(agent !== undefined && { agent }) };
  const bareFigures = figuresOf(bare, bareBoot);
  // A host without Node has no agent: there it is what Node adds to stage 1, and what its programs use after that.
  const ofNode = (figures.init ?? Number.NaN) - (bareFigures.init ?? Number.NaN) + (agentBoot?.programs ?? Number.NaN);
  return {
    boot,
    ...(agentBoot !== undefined && { agentBoot }),
    figures,
    withoutNode: { ...bareFigures, ...(agent !== undefined && { agent: agent - ofNode }) },
    judgements: judge(figures),
  };
}

/** Boots the profile's image in all ways, and prints each as it is known. */
async function measurePxeWays(profile: Profile, options: Options): Promise<object> {
  const image = await buildProfile(profile, options);
  const plainRoot = {
    initrd: await makePlainRoot(image, options.folder),
    args: [...PLAIN_ARGUMENTS, ...profile.withoutNode],
  };
  const ways: readonly (readonly [name: string, way: PxeWay])[] = [
    ['BIOS', { firmware: 'bios', untilAgent: profile.hasAgent }],
    ['UEFI', { firmware: 'uefi', untilAgent: profile.hasAgent }],
    ['BIOS, DHCP as dnsmasq does it by itself', { firmware: 'bios', isDhcpPlain: true, untilAgent: profile.hasAgent }],
    ['BIOS, the same root as one zstd cpio, without Node', { firmware: 'bios', plainRoot }],
  ];
  const results: object[] = [];
  for (const [index, [name, way]] of ways.entries()) {
    options.signal.throwIfAborted();
    const boot = await measurePxe(image, way, join(options.folder, `pxe-${profile.name}-${index}`));
    const lines = [`${profile.name} over PXE, ${name}: seconds under TCG`, ...chart(boot)];
    if (boot.nodeSeconds > 0) lines.push(`  of it programs of Node: ${boot.nodeSeconds.toFixed(2)} s of CPU`);
    process.stdout.write(`${lines.join('\n')}\n\n`);
    results.push({ name, way, ...boot });
  }
  return { profile: profile.name, pxe: results };
}

async function makeScratch(): Promise<AsyncDisposable & { readonly folder: string }> {
  const folder = await mkdtemp(join(tmpdir(), 'buildos-bench-boot-'));
  return { folder, [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }) };
}

const HEADINGS = ['', 'reached', 'budget', 'without Node', 'Node', 'goal', 'last', '', ''];

/** The goals are "and Node": what is without it is held against them. */
function describe(profile: Profile, { boot, agentBoot, withoutNode, judgements }: Result): string {
  const rows = judgements.map(({ name, reached, budget, isExceeded }) => {
    const bare = withoutNode[name];
    const node = bare === undefined ? undefined : reached - bare;
    const [first, last] = profile.goals[name] ?? [];
    const held = bare ?? reached;
    const verdict = held <= (last ?? 0) ? 'last goal' : held <= (first ?? 0) ? 'first goal' : 'in budget';
    return [
      UNITS[name].what,
      ...[reached, budget, bare, node, first, last].map((value) => formatFigure(name, value)),
      UNITS[name].unit,
      isExceeded ? 'EXCEEDED' : verdict,
    ];
  });
  const failed = [boot, agentBoot].flatMap((each) => each?.failed ?? []);
  return [
    `${profile.name}: ${profile.summary}`,
    ...chart(boot),
    ...(agentBoot === undefined ? [] : ['  with a toolchain and a controller:', ...chart(agentBoot)]),
    '',
    ...alignColumns([HEADINGS, ...rows]),
    ...(failed.length === 0 ? [] : [`failed units: ${failed.join(' ')}`]),
  ].join('\n');
}

/** A bar a phase, from where the one before ended. */
function chart({ phases }: { readonly phases: readonly { readonly name: string; readonly end: number }[] }): string[] {
  const total = phases.at(-1)?.end ?? 1;
  let start = 0;
  return phases.map(({ name, end }) => {
    const from = Math.round((start / total) * CHART_COLUMNS);
    const to = Math.max(from + 1, Math.round((end / total) * CHART_COLUMNS));
    const bar = `${' '.repeat(from)}${'█'.repeat(to - from)}`.padEnd(CHART_COLUMNS + 1);
    const line = `  ${name.padEnd(15)} ${bar} ${(end - start).toFixed(2).padStart(6)} ${end.toFixed(2).padStart(6)}`;
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
  const isNumber = (column: number): boolean => column >= 1 && column <= 6;
  const pad = (cell: string, column: number): string =>
    isNumber(column) ? cell.padStart(widths[column] ?? 0) : cell.padEnd(widths[column] ?? 0);
  return rows.map((row) => `  ${row.map(pad).join('  ')}`.trimEnd());
}
