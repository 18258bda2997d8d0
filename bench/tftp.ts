/**
 * `npm run bench -- tftp`: the goals of the TFTP server and client, measured side by side with tftpd-hpa, dnsmasq and atftpd.
 *
 * Each measurement is one run of the kit (`tftp/bench.py`) with all its servers interleaved. It has namespaces of its own for
 * mounts, network and processes: a fresh tmpfs to serve, ports that nobody else has, and nothing that outlives it, however it ends.
 */
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, rmdirSync, writeFileSync } from 'node:fs';
import { cpus, release, totalmem } from 'node:os';
import { join } from 'node:path';
import { Command, InvalidArgumentError } from 'commander';
import { onInterrupt } from '../cli/interrupt.ts';
import { needPackages, needRoot } from '../cli/setup.ts';
import { type Connection, CommandError, shellQuote } from '../connections/connection.ts';
import { openLocal } from '../connections/local.ts';
import { bundle } from '../image/bundle.ts';
import { GOALS, type Goal, type Reached, type Samples, isMissed, judge } from './tftp/goals.ts';
import { type Peers, findPeers } from './tftp/peers.ts';
import { type Driver, type Measurement, type MeasurementName, DRIVERS, planMeasurements } from './tftp/plan.ts';
import { topFunctions } from './tftp/profile.ts';
import { type Sample, median, parseSamples, select } from './tftp/samples.ts';
import { formatTable } from './tftp/table.ts';

const WORK = join(import.meta.dirname, '../work');
/** Followed by the process that owns the folder. */
const FOLDER_PREFIX = 'bench-tftp-';
const KIT = join(import.meta.dirname, 'tftp');
const SERVE = join(KIT, 'serve.ts');
const EXIT_MISSED = 2;

/** Ports of our servers in the namespace; the peers' are in bench.py. */
const PORTS: Readonly<Record<Driver, number>> = { dgram: 7069, gso: 7070 };

const TMPFS_SIZE = '768m';
/** The bound of one measurement; the whole million takes longer. */
const MEASUREMENT_MAX_MS = 300_000;
const FULL_MAX_MS = 3_600_000;
const PROFILE_FUNCTIONS = 10;

/**
 * Runs in the new namespaces: `$0` is the folder to serve, the rest a command. The address is for tftpd-hpa, whose resolver
 * takes a host with nothing but 127.0.0.1 for one without IPv4.
 */
const INSIDE = `set -e
mount -t tmpfs -o size=${TMPFS_SIZE},mode=1777 tmpfs "$0"
mkdir -p /run/netns
mount -t tmpfs tmpfs /run/netns
ip link set lo up
ip address add 192.0.2.1/32 dev lo
exec "$@"`;

/** With the last process of ours the kernel ends all of them. */
const UNSHARE = ['unshare', '--net', '--mount', '--pid', '--fork', '--kill-child', '--mount-proc', '--'];

interface Flags {
  readonly quick?: true;
  readonly full?: true;
  readonly rounds?: number;
  readonly only?: readonly Goal[];
  readonly driver?: readonly Driver[];
  readonly json?: string;
  readonly profile?: true;
}

const HELP = `
Rows, for --only; the beginning of a name stands for all that begin so ("loss", "memory"):
${wrap(GOALS.map(({ name }) => name))}

Ratios are within one run, medians of its rounds. Needs root, for namespaces of its own; changes nothing outside them.
Exit status: 0 every floor is met; 2 a floor is missed; 1 something could not be measured.

Example:
  npm run bench -- tftp --quick
  npm run bench -- tftp --only download,cpu --rounds 9 --json work/download.json`;

/** Words in lines of at most 100 characters, indented. */
function wrap(words: readonly string[]): string {
  const lines: string[] = [''];
  for (const word of words) {
    const longer = `${lines.at(-1)} ${word}`;
    if (longer.length > 100) lines.push(` ${word}`);
    else lines[lines.length - 1] = longer;
  }
  return lines.map((line) => ` ${line}`).join('\n');
}

/** The command. */
export function tftpBench(): Command {
  return new Command('tftp')
    .option('--quick', 'smaller files and fewer rounds: a look, not a verdict (less than two minutes)')
    .option('--full', 'the whole million transfers for the memory that stays')
    .option('--rounds <number>', 'rounds of each measurement (default: 5, quick 3)', parseRounds)
    .option('--only <rows>', 'only these rows, separated by commas', parseGoals)
    .option('--driver <drivers>', 'only these drivers of our server: dgram, gso', parseDrivers)
    .option('--json <file>', 'write goals, figures and all samples')
    .option('--profile', 'instead of the table: where our server spends its time (of --only, default download)')
    .addHelpText('after', HELP)
    .action(async (flags: Flags) => {
      const goals = flags.only ?? (flags.profile === true ? parseGoals('download') : GOALS);
      needRoot('namespaces for mounts, network and processes');
      await needPackages(['bench']);
      using interrupt = onInterrupt();
      await runBench(flags, goals, interrupt.signal);
    });
}

/** What all measurements of a run have in common. */
interface Run {
  readonly on: Connection;
  readonly signal: AbortSignal;
  readonly peers: Peers;
  readonly drivers: readonly Driver[];
  /** a temporary folder: what is served, the bundles, profiles */
  readonly folder: string;
  /** the compiled clients are kept here */
  readonly build: string;
  readonly timeoutMs: number;
}

async function runBench(flags: Flags, goals: readonly Goal[], signal: AbortSignal): Promise<void> {
  const on = openLocal();
  const cache = join(WORK, 'cache/bench-tftp');
  mkdirSync(cache, { recursive: true });
  const peers = await findPeers(on, cache, signal);
  removeLeftovers();
  const folder = join(WORK, `${FOLDER_PREFIX}${process.pid}`);
  mkdirSync(join(folder, 'root'), { recursive: true });
  const clean = (): void => {
    rmSync(folder, { recursive: true, force: true });
    removeControlGroups(process.pid);
  };
  // A second signal ends the process at once; timeout(1) and a terminal with npm in between send two.
  process.once('exit', clean);
  try {
    for (const name of ['serve', 'get']) {
      await bundle({ entry: `bench/tftp/${name}.ts`, outfile: join(folder, `${name}.mjs`) });
    }
    const drivers = await chooseDrivers(on, folder, flags.driver, signal);
    const timeoutMs = flags.full === true ? FULL_MAX_MS : MEASUREMENT_MAX_MS;
    const run: Run = { on, signal, peers, drivers, folder, build: join(cache, 'build'), timeoutMs };
    const wanted = new Set<MeasurementName>(goals.map((goal) => goal.from));
    const plan = planMeasurements({ quick: flags.quick === true, full: flags.full === true, rounds: flags.rounds });
    const measurements = plan.filter(({ name }) => wanted.has(name));
    if (flags.profile === true) await profile(run, measurements);
    else await measureAll(run, measurements, goals, flags);
  } finally {
    clean();
  }
}

/**
 * The drivers that work here: asked of the server, which says which one it uses.
 *
 * @throws {Error} when one that was asked for does not
 */
async function chooseDrivers(
  on: Connection,
  folder: string,
  asked: readonly Driver[] | undefined,
  signal: AbortSignal,
): Promise<readonly Driver[]> {
  const working: Driver[] = [];
  for (const driver of asked ?? DRIVERS) {
    const argv = [process.execPath, join(folder, 'serve.mjs'), join(folder, 'root'), '127.0.0.1', '0', driver, 'try'];
    const { status, stdout, stderr } = await on.run(argv, { okStatus: 'any', timeoutMs: 20_000, signal });
    if (status === 0 && Buffer.from(stdout).toString().includes(`"driver":"${driver}"`)) {
      working.push(driver);
      continue;
    }
    const reason = /^\w*Error: .*$/m.exec(Buffer.from(stderr).toString())?.[0] ?? 'the server uses another one';
    if (asked !== undefined) throw new Error(`Cannot measure the driver ${driver}: ${reason}`);
    process.stderr.write(`The driver ${driver} is left out: ${reason}\n`);
  }
  return working;
}

async function measureAll(
  run: Run,
  measurements: readonly Measurement[],
  goals: readonly Goal[],
  flags: Flags,
): Promise<void> {
  const head = describeMachine(run.peers);
  process.stdout.write(`${head.join('\n')}\n\n`);
  const samples: Partial<Record<MeasurementName, readonly Sample[]>> = {};
  const broken: string[] = [];
  for (const measurement of measurements) {
    const startedMs = performance.now();
    try {
      samples[measurement.name] = await measure(run, measurement, (driver) => ownServer(run, driver));
    } catch (error) {
      run.signal.throwIfAborted();
      if (!(error instanceof CommandError)) throw error;
      broken.push(measurement.name);
      process.stderr.write(`${measurement.name}: ${error.message}\n`);
    }
    process.stderr.write(`${measurement.name}: ${((performance.now() - startedMs) / 1000).toFixed(0)} s\n`);
  }
  const rows = goals.map((goal) => judge(goal, samples, run.drivers));
  process.stdout.write(`\n${formatTable(rows, run.drivers)}\n\n${describeLimits(samples, run.drivers).join('\n')}\n`);
  if (flags.json !== undefined)
    writeFileSync(flags.json, `${JSON.stringify(toJson(head, rows, samples), undefined, 1)}\n`);
  conclude(rows, broken);
}

function conclude(rows: readonly Reached[], broken: readonly string[]): void {
  const missed = rows.filter(isMissed).map(({ goal }) => goal.name);
  const unmeasured = rows.filter(({ verdict }) => verdict === 'unmeasured').map(({ goal }) => goal.name);
  if (missed.length > 0) process.stdout.write(`floors missed: ${missed.join(', ')}\n`);
  if (unmeasured.length > 0) process.stdout.write(`not measured: ${unmeasured.join(', ')}\n`);
  if (missed.length > 0) process.exitCode = EXIT_MISSED;
  else if (unmeasured.length > 0 || broken.length > 0) process.exitCode = 1;
}

/** Runs bench.py once, in namespaces of its own. */
async function measure(
  run: Run,
  measurement: Measurement,
  server: (driver: Driver) => readonly string[],
): Promise<readonly Sample[]> {
  const { on, signal, peers, drivers, folder, build, timeoutMs } = run;
  const json = join(folder, `${measurement.name}.json`);
  const own = drivers.flatMap((driver) => [
    '--server',
    `${driver}=127.0.0.1:${PORTS[driver]}!${shellQuote(server(driver))}`,
  ]);
  const client = [process.execPath, join(folder, 'get.mjs'), '{host}', '{port}', '{file}', '{blk}', '{win}'];
  const root = join(folder, 'root');
  const bench = [
    'python3',
    join(KIT, 'bench.py'),
    ...measurement.argv,
    '--root',
    root,
    '--build',
    build,
    '--json',
    json,
  ];
  const servers = ['--servers', measurement.peers.join(','), ...own];
  const ownClient = measurement.ownClient === true ? ['--client', shellQuote(client)] : [];
  const argv = [...UNSHARE, 'sh', '-c', INSIDE, root, ...bench, ...servers, ...ownClient];
  const env = { ...peers.env, TFTPBENCH_TAG: String(process.pid), PYTHONDONTWRITEBYTECODE: '1' };
  await on.run(argv, { env, timeoutMs, signal });
  return parseSamples(JSON.parse(readFileSync(json, 'utf8')));
}

function ownServer({ folder }: Run, driver: Driver): readonly string[] {
  return [process.execPath, '--expose-gc', join(folder, 'serve.mjs'), '{root}', '{host}', '{port}', driver];
}

/** The sources as they are, so that the functions can be found again; each driver by itself. */
async function profile(run: Run, measurements: readonly Measurement[]): Promise<void> {
  for (const measurement of measurements) {
    for (const driver of run.drivers) {
      const profiles = join(run.folder, `profile-${measurement.name}-${driver}`);
      const cpuProf = ['--cpu-prof', `--cpu-prof-dir=${profiles}`, '--expose-gc'];
      const words = [process.execPath, ...cpuProf, SERVE, '{root}', '{host}', '{port}', driver];
      await measure({ ...run, drivers: [driver] }, { ...measurement, peers: [] }, () => words);
      const files = readdirSync(profiles);
      // A measurement may start the server several times: the one that had most to do tells.
      const [largest = []] = files
        .map((file) => topFunctions(JSON.parse(readFileSync(join(profiles, file), 'utf8')), PROFILE_FUNCTIONS))
        .sort((a, b) => sumMs(b) - sumMs(a));
      process.stdout.write(`\n${measurement.name}, ${driver}: self time\n`);
      for (const { name, ms, share } of largest) {
        process.stdout.write(`${(share * 100).toFixed(1).padStart(6)} % ${ms.toFixed(0).padStart(7)} ms  ${name}\n`);
      }
    }
  }
}

const sumMs = (rows: readonly { readonly ms: number }[]): number => rows.reduce((sum, { ms }) => sum + ms, 0);

function describeMachine({ versions }: Peers): readonly string[] {
  const [cpu] = cpus();
  const memory = `${(totalmem() / 2 ** 30).toFixed(0)} GiB`;
  return [
    `${cpus().length} × ${cpu?.model.trim() ?? 'unknown CPU'}, ${memory}, Linux ${release()}, Node ${process.version}`,
    `against ${versions.filter((version) => !version.startsWith('Python')).join(', ')}`,
    'over loopback, files in a tmpfs; the same client (loadgen.c) for all, which checks every block; our server as one bundle, as in the image',
  ];
}

/** What a figure is limited by: how busy the client's and the server's core are. */
function describeLimits(samples: Samples, drivers: readonly Driver[]): readonly string[] {
  const lines: string[] = [];
  for (const name of ['download', 'clients', 'upload'] as const) {
    const taken = samples[name] ?? [];
    const shares = [...new Set(taken.map(({ server }) => server))].flatMap((server) => {
      const ours = select(taken, server);
      const [seconds, client, own] = ['seconds', 'client_cpu_s', 'server_cpu_s'].map((field) => median(ours, field));
      if (seconds === undefined || client === undefined || own === undefined) return [];
      const rate = `${(median(ours, 'MBps') ?? 0).toFixed(0)} MB/s`;
      return [`${server} ${rate} (client ${percent(client, seconds)}, server ${percent(own, seconds)})`];
    });
    if (shares.length > 0) lines.push(`${name}: ${shares.join(', ')}`);
  }
  if (lines.length > 0)
    lines.push('(% of a core: whoever is near 100 is what limits; with both on one machine, so is memory)');
  const rate = drivers.map((driver) => median(select(samples.flood ?? [], driver), 'flood_rate'));
  if (rate.some((value) => value !== undefined)) {
    lines.push(`flood: ${rate.map((value) => (value ?? 0).toFixed(0)).join(', ')} forged requests a second were sent`);
  }
  for (const driver of drivers) {
    const ours = select(samples.churn ?? [], driver);
    const [count, before, after] = ['transfers', 'rss_before_MB', 'rss_after_MB'].map((field) => median(ours, field));
    if (before === undefined || after === undefined) continue;
    lines.push(`memory, ${driver}: ${before.toFixed(1)} MB, after ${count} more transfers ${after.toFixed(1)} MB`);
  }
  return lines;
}

const percent = (part: number, whole: number): string => `${((part / whole) * 100).toFixed(0)} %`;

function toJson(machine: readonly string[], rows: readonly Reached[], samples: Samples): object {
  const told = rows.map(({ goal: { name, what, unit, floor, goal }, values, verdict }) => {
    return { name, what, unit, floor, goal, reached: values, verdict };
  });
  return { time: new Date().toISOString(), machine, rows: told, samples };
}

/** Rows by their names or the beginnings of them. */
function parseGoals(text: string): readonly Goal[] {
  const only = text.split(',');
  const unknown = only.find((word) => !GOALS.some((goal) => isAsked(goal, word)));
  if (unknown !== undefined) {
    throw new InvalidArgumentError(`There is no row ${unknown}; --help lists them.`);
  }
  return GOALS.filter((goal) => only.some((word) => isAsked(goal, word)));
}

const isAsked = (goal: Goal, word: string): boolean => goal.name === word || goal.name.startsWith(`${word}-`);

function parseRounds(text: string): number {
  const rounds = Number(text);
  if (Number.isInteger(rounds) && rounds >= 1 && rounds <= 100) return rounds;
  throw new InvalidArgumentError('It must be a whole number from 1 to 100.');
}

function parseDrivers(text: string): readonly Driver[] {
  return text.split(',').map((word) => {
    const driver = DRIVERS.find((name) => name === word);
    if (driver === undefined) throw new InvalidArgumentError(`It must be one of ${DRIVERS.join(', ')}.`);
    return driver;
  });
}

/** What a bench that was killed left: an empty folder or two. */
function removeLeftovers(): void {
  for (const name of readdirSync(WORK)) {
    const pid = name.startsWith(FOLDER_PREFIX) ? Number(name.slice(FOLDER_PREFIX.length)) : Number.NaN;
    if (!Number.isInteger(pid) || existsSync(`/proc/${pid}`)) continue;
    rmSync(join(WORK, name), { recursive: true, force: true });
    removeControlGroups(pid);
  }
}

/** bench.py removes its own; these are there when it was killed. */
function removeControlGroups(pid: number): void {
  for (const base of ['/sys/fs/cgroup', '/sys/fs/cgroup/unified', '/sys/fs/cgroup/cpuacct']) {
    try {
      for (const name of readdirSync(base)) {
        if (name.startsWith(`tftpbench-${pid}-`)) rmdirSync(join(base, name));
      }
    } catch {
      // No such hierarchy here, or the kernel still takes a process out of it: an empty folder stays until the next run.
    }
  }
}
