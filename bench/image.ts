/**
 * `npm run bench -- image`: how long an image takes, from nothing and after a change, side by side with mkosi and with
 * mmdebstrap, cpio and zstd by hand: the same packages, on the same machine, in turns.
 *
 * What is downloaded once is there for all. Ours is the host `minimal`, with a kernel and our init, as `image build` is
 * called; Node for stage 1, which the others do not have, is in the cache. The others make a root as a cpio archive. For
 * the cold build packages are fetched from a folder of this machine, by a lock: a network is not measured.
 */
import { link, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { cpus, release, totalmem } from 'node:os';
import { dirname, join } from 'node:path';
import { Command, InvalidArgumentError } from 'commander';
import { onInterrupt } from '../cli/interrupt.ts';
import { needPackages, needRoot } from '../cli/setup.ts';
import type { Connection } from '../connections/connection.ts';
import { openLocal } from '../connections/local.ts';
import { findMirror } from '../host/apt.ts';
import { fetchPackages } from '../image/deb-cache.ts';
import { host } from '../image/hosts/minimal.ts';
import { chooseFromArchives, debianArchives, writeLock } from '../image/lock.ts';
import type { PackageLock } from '../manifests/package-lock.ts';
import { hostAttrs } from '../properties/host-definition.ts';
import { type Build, GOALS, judge, median, type Samples, slownessOf } from './image/goals.ts';
import { openPeers, type Peers } from './image/peers.ts';
import { rebuiltPackage } from './image/rebuilt-package.ts';

const TOP = join(import.meta.dirname, '..');
const WORK = join(TOP, 'work');
const EXIT_MISSED = 2;
const BUILD_MAX_MS = 300_000;

interface Flags {
  readonly rounds: number;
  readonly alone?: true;
  readonly json?: string;
}

/** One build, in seconds. */
type Sample = readonly [build: Build, seconds: number];

/** The command. */
export function imageBench(): Command {
  return new Command('image')
    .option('--rounds <number>', 'rounds of all builds', parseRounds, 3)
    .option('--alone', 'without the others')
    .option('--json <file>', 'write all samples')
    .addHelpText(
      'after',
      '\nMedians of the rounds; ratios are within one run, seconds are of this machine, which should do nothing else.\n' +
        'Exit status: 0 every floor is met; 2 a floor is missed; 1 something could not be measured.',
    )
    .action(async (flags: Flags) => {
      needRoot('another root file system');
      await needPackages(['image', 'bench']);
      using interrupt = onInterrupt();
      await runBench(flags, interrupt.signal);
    });
}

async function runBench(flags: Flags, signal: AbortSignal): Promise<void> {
  const local = openLocal();
  const cache = join(WORK, 'cache');
  const { packages } = hostAttrs(host);
  const sources = debianArchives({ suite: 'trixie', mirror: await findMirror(local) });
  const lock = await chooseFromArchives(local, { suite: 'trixie', packages, sources, cache });
  await fetchPackages({ lock, cache, signal });
  await mkdir(join(WORK, 'tmp'), { recursive: true });
  const folder = await mkdtemp(join(WORK, 'tmp', `build-${process.pid}-`));
  try {
    await using peers = flags.alone ? undefined : await openPeers(local, { lock, packages, cache });
    const [cpu] = cpus();
    const machine = `${cpus().length} × ${cpu?.model.trim() ?? 'unknown CPU'}, ${(totalmem() / 2 ** 30).toFixed(0)} GiB, Linux ${release()}`;
    process.stdout.write(`${machine}\nagainst ${peers?.versions.join(', ') ?? 'nobody'}\n\n`);
    await peers?.on.run(peers.prime, { timeoutMs: 2 * BUILD_MAX_MS, signal });
    const samples: Partial<Record<Build, number[]>> = {};
    for (let round = 1; round <= flags.rounds; round += 1) {
      const taken = [
        ...(await measureOurs(local, { folder, cache, lock, signal })),
        ...(await measurePeers(peers, signal)),
      ];
      for (const [build, seconds] of taken) (samples[build] ??= []).push(seconds);
      process.stderr.write(
        `round ${round}: ${taken.map(([build, seconds]) => `${build} ${seconds.toFixed(2)} s`).join(', ')}\n`,
      );
    }
    report(samples, flags.alone === true);
    if (flags.json !== undefined)
      await writeFile(flags.json, `${JSON.stringify({ machine, samples }, undefined, 1)}\n`);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** From nothing, with packages at hand, again, with one of our files, one property, one package changed. */
async function measureOurs(
  on: Connection,
  options: {
    readonly folder: string;
    readonly cache: string;
    readonly lock: PackageLock;
    readonly signal: AbortSignal;
  },
): Promise<readonly Sample[]> {
  const { folder, cache, lock, signal } = options;
  const definition = join(folder, 'bench-host.ts');
  const lockFile = join(folder, 'lock.json');
  const work = async (kinds: readonly string[]): Promise<string> => {
    const made = join(folder, 'work');
    await rm(made, { recursive: true, force: true });
    await mkdir(join(made, 'cache'), { recursive: true });
    for (const kind of kinds) await symlink(join(cache, kind), join(made, 'cache', kind));
    return made;
  };
  const build = async (at: string): Promise<number> => {
    const words = ['image', 'build', definition, '--lock', lockFile, '--work', at];
    const startedMs = performance.now();
    await on.run([process.execPath, join(TOP, 'cli/start.js'), ...words], { timeoutMs: BUILD_MAX_MS, signal });
    return (performance.now() - startedMs) / 1000;
  };
  const tool = join(folder, 'tool');
  const changeTool = async (): Promise<void> => await writeFile(tool, `#!/bin/sh\necho ${Date.now()}\n`);
  const define = async (note: string): Promise<void> => await writeFile(definition, definitionWith(tool, note));
  await define('before');
  await changeTool();
  await writeLock(lockFile, await fromFolder(lock, { cache, folder: join(folder, 'mirror') }));
  const cold = await build(await work(['node', 'runtime']));
  await writeLock(lockFile, lock);
  const at = await work(['debs', 'node', 'runtime']);
  const warm = await build(at);
  const nothing = await build(at);
  await changeTool();
  const file = await build(at);
  await define('after');
  const property = await build(at);
  await writeLock(lockFile, await rebuiltPackage(on, { lock, name: 'kmod', cache, folder }));
  return [
    ['cold', cold],
    ['warm', warm],
    ['nothing', nothing],
    ['file', file],
    ['property', property],
    ['package', await build(at)],
  ];
}

/** The lock with a folder for its archives, which has the packages as the archives have them. */
async function fromFolder(
  lock: PackageLock,
  options: { readonly cache: string; readonly folder: string },
): Promise<PackageLock> {
  const { cache, folder } = options;
  for (const { path, sha256 } of lock.packages) {
    const file = join(folder, path);
    await mkdir(dirname(file), { recursive: true });
    await rm(file, { force: true });
    await link(join(cache, 'debs', `${sha256}.deb`), file);
  }
  return { ...lock, sources: lock.sources.map((source) => ({ ...source, uri: `file://${folder}` })) };
}

/** The host `minimal` with one file of this machine, and a property two thirds down the list. */
const definitionWith = (tool: string, note: string): string => {
  const from = (path: string): string => JSON.stringify(join(TOP, path));
  return `
import { hasContent, hasFile, sourceOf } from ${from('properties/file.ts')};
import { host as minimal } from ${from('image/hosts/minimal.ts')};
const all = minimal.properties;
const at = Math.floor((all.length * 2) / 3);
const note = hasContent('/etc/bench-note', ${JSON.stringify(note)});
const programs = [hasFile('/usr/local/bin/tool', sourceOf(${JSON.stringify(tool)}))];
export const host = { ...minimal, name: 'bench', properties: [...all.slice(0, at), note, ...all.slice(at), ...programs] };
`;
};

async function measurePeers(peers: Peers | undefined, signal: AbortSignal): Promise<readonly Sample[]> {
  if (peers === undefined) return [];
  const build = async (argv: readonly string[]): Promise<number> => {
    const startedMs = performance.now();
    await peers.on.run(argv, { timeoutMs: BUILD_MAX_MS, signal });
    return (performance.now() - startedMs) / 1000;
  };
  return [
    ['mmdebstrap', await build(peers.mmdebstrap)],
    ['mkosi', await build(peers.mkosi)],
    ['mkosi-file', await build(peers.incremental)],
  ];
}

function report(samples: Samples, alone: boolean): void {
  for (const [build, seconds] of Object.entries(samples)) {
    process.stdout.write(`${build.padEnd(12)} ${(median(seconds) ?? 0).toFixed(2).padStart(7)} s\n`);
  }
  process.stdout.write('\n');
  const slowness = slownessOf(samples);
  if (slowness !== undefined) {
    const times = slowness.toFixed(2);
    process.stdout.write(
      `mkosi takes ${times} times as long here as where the goals in seconds were set; in brackets: by that\n`,
    );
  }
  const rows = GOALS.map((goal) => ({ goal, ...judge(goal, samples) }));
  for (const { goal, value, verdict } of rows) {
    const limit = (each: number | undefined): string => (each === undefined ? '' : `${each} ${goal.unit}`).padStart(6);
    const reached = value === undefined ? '–' : `${value.toFixed(2)} ${goal.unit}`;
    const isScaled = goal.unit === 's' && value !== undefined && slowness !== undefined;
    const scaled = isScaled ? `(${(value / slowness).toFixed(2)} s)` : '';
    process.stdout.write(
      `${goal.what.padEnd(40)} floor ${limit(goal.floor)}  goal ${limit(goal.goal)}  ${reached.padStart(8)} ${scaled.padStart(9)}  ${verdict}\n`,
    );
  }
  if (rows.some(({ verdict }) => verdict === 'MISSED')) process.exitCode = EXIT_MISSED;
  else if (!alone && rows.some(({ verdict }) => verdict === 'unmeasured')) process.exitCode = 1;
}

function parseRounds(text: string): number {
  const rounds = Number(text);
  if (Number.isInteger(rounds) && rounds >= 1 && rounds <= 20) return rounds;
  throw new InvalidArgumentError('It must be a whole number from 1 to 20.');
}
