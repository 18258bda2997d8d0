/**
 * `buildos qemu`: boots a published image in QEMU, over PXE from a network of its own, and waits for what is asked. For CI: one exit
 * status, a console log, a boot chart.
 */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';
import type { Firmware } from '../host/qemu.ts';
import { findAccelerator } from '../lab/accelerator.ts';
import { type Bootable, formatBootScript, guestArgs, readBootable } from '../lab/bootable.ts';
import { type Phase, findMilestones, findPhases, formatChart, formatChartSvg } from '../lab/boot-chart.ts';
import { Guest } from '../lab/guest.ts';
import { type Lab, openLab } from '../lab/lab.ts';
import { type StatusReading, waitForStatus } from '../lab/status.ts';
import { needPackages, needRoot } from './setup.ts';
import { onInterrupt } from './interrupt.ts';

interface Options {
  readonly image: string;
  readonly firmware: Firmware;
  readonly memory: number;
  readonly cpus: number;
  readonly timeout: number;
  readonly until: string;
  readonly append: readonly string[];
  readonly console: string;
  readonly chart?: string;
  readonly disk: readonly string[];
  readonly json?: boolean;
}

/** What `--json` prints. */
interface Outcome {
  readonly buildId: string;
  readonly firmware: Firmware;
  readonly accelerator: string;
  readonly until: string;
  readonly seconds: number;
  readonly phases: readonly Phase[];
  readonly console: string;
  readonly status?: StatusReading | undefined;
}

/** The command. */
export function qemuCommand(): Command {
  return new Command('qemu')
    .description('boot an image in QEMU over PXE, and wait until it says or is what is asked (as root)')
    .requiredOption('--image <dir>', 'the folder of a built image, or one that "image publish" has written')
    .addOption(
      new Option('--firmware <kind>', 'BIOS or UEFI with PXE, or a direct boot without firmware')
        .choices(['bios', 'uefi', 'direct'])
        .default('bios'),
    )
    .option('--memory <MiB>', 'memory of the guest', positive, 2048)
    .option('--cpus <n>', 'processors of the guest', positive, 2)
    .option('--timeout <s>', 'how long to wait', positive, 300)
    .option('--until <condition>', 'monitor-ready, which a build host says, or a text on the console', 'monitor-ready')
    .option('--append <args>', 'more kernel arguments, separated by blanks; may be repeated', words, [])
    .option('--console <file>', 'write everything the console says to this file', 'work/console.log')
    .option('--chart <file.svg>', 'write the boot chart to this file')
    .option(
      '--disk <file>',
      'a raw disk, found by its label; writes to it are thrown away; may be repeated',
      collect,
      [],
    )
    .option('--json', 'print the outcome as JSON')
    .addHelpText('after', '\nExit status: 0 when the condition is met, 1 otherwise, with the end of the console.')
    .action(async (options: Options) => {
      needRoot('a network namespace');
      await needPackages(['lab']);
      await boot(options);
    });
}

async function boot(options: Options): Promise<void> {
  const bootable = await readBootable(options.image);
  await using scratch = await makeScratch();
  using interrupt = onInterrupt();
  const args = guestArgs(bootable, options.append);
  const kernel = join(bootable.folder, bootable.kernel);
  const accelerator = await findAccelerator(kernel);
  await using lab = await openLab({ httpFolder: bootable.folder });
  await lab.setBootScript(formatBootScript(bootable, lab.url, args));
  const consoleLog = resolve(options.console);
  await mkdir(dirname(consoleLog), { recursive: true });
  await using guest = await Guest.start({
    name: 'buildos',
    firmware: options.firmware,
    accelerator,
    memoryMiB: options.memory,
    cpus: options.cpus,
    kernel: { file: kernel, initrd: join(bootable.folder, bootable.initrd), append: args.join(' ') },
    disks: options.disk.map((file) => ({ file, format: 'raw', snapshot: true })),
    network: lab.network(),
    folder: scratch.folder,
    consoleLog,
  });
  const wanted = options.until === 'monitor-ready' ? 'the monitor is ready' : `the console says "${options.until}"`;
  process.stderr.write(
    `booting ${bootable.buildId} until ${wanted}, ${options.timeout} s at most: see ${consoleLog}\n`,
  );
  const { status, atMs } = await waitUntil(options, lab, guest, interrupt.signal);
  const seconds = (atMs - guest.startedAtMs) / 1000;
  await report({ options, bootable, lab, guest, status, seconds, accelerator });
}

/** Waits for the condition. @returns when it was met, and the host's status where that is what was waited for */
async function waitUntil(
  options: Options,
  lab: Lab,
  guest: Guest,
  signal: AbortSignal,
): Promise<{ readonly atMs: number; readonly status?: StatusReading }> {
  const timeoutMs = options.timeout * 1000;
  if (options.until !== 'monitor-ready') {
    return guest.waitForLine(options.until, { timeoutMs, signal });
  }
  const status = await guest.whileRunning('monitor ready', (ended) =>
    waitForStatus(lab, (status) => status.events.some((event) => event.name === 'monitor-ready'), {
      what: 'monitor ready',
      timeoutMs,
      signal: AbortSignal.any([signal, ended]),
    }),
  );
  return { atMs: Date.now(), status };
}

async function report(what: {
  readonly options: Options;
  readonly bootable: Bootable;
  readonly lab: Lab;
  readonly guest: Guest;
  readonly status: StatusReading | undefined;
  readonly seconds: number;
  readonly accelerator: string;
}): Promise<void> {
  const { options, bootable, lab, guest, status } = what;
  const milestones = findMilestones({
    powerOnMs: guest.startedAtMs,
    lab: lab.log.events,
    guest: guest.log.events,
    status,
  });
  const phases = findPhases(milestones);
  if (options.chart !== undefined) {
    const title = `Build OS ${bootable.buildId.slice(0, 8)}, ${options.firmware}, ${what.accelerator}`;
    await writeFile(options.chart, formatChartSvg(phases, title));
  }
  if (options.json === true) {
    const outcome: Outcome = {
      buildId: bootable.buildId,
      firmware: options.firmware,
      accelerator: what.accelerator,
      until: options.until,
      seconds: what.seconds,
      phases,
      console: guest.consoleLog,
      status,
    };
    process.stdout.write(`${JSON.stringify(outcome, undefined, 2)}\n`);
    return;
  }
  process.stdout.write(`${formatChart(phases)}\n`);
  process.stdout.write(`${options.until} after ${what.seconds.toFixed(1)} s (${what.accelerator})\n`);
}

async function makeScratch(): Promise<AsyncDisposable & { readonly folder: string }> {
  const folder = await mkdtemp(join(tmpdir(), 'buildos-qemu-'));
  return { folder, [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }) };
}

function positive(text: string): number {
  if (!/^[1-9]\d{0,6}$/.test(text)) throw new InvalidArgumentError('expected a whole number from 1 on');
  return Number(text);
}

const collect = (text: string, before: readonly string[]): string[] => [...before, text];

const words = (text: string, before: readonly string[]): string[] => [
  ...before,
  ...(text.match(/(?:[^\s"]|"[^"]*")+/g) ?? []),
];
