/** `buildos demo`: everything this is for, once, on this machine. */
import { join, resolve } from 'node:path';
import { once } from 'node:events';
import { Command, InvalidArgumentError, Option } from 'commander';
import { Listr } from 'listr2';
import { formatChart } from '../lab/boot-chart.ts';
import { Demo } from '../lab/demo.ts';
import type { DemoOutcome } from '../lab/demo-outcome.ts';
import { onInterrupt } from './interrupt.ts';
import { needPackages, needRoot } from './setup.ts';

interface Options {
  readonly work: string;
  readonly firmware: 'bios' | 'uefi';
  readonly memory: number;
  readonly keep?: boolean;
  readonly json?: boolean;
}

/** The command. */
export function demoCommand(): Command {
  return new Command('demo')
    .description(
      'build an image and a build machine, boot a host from the network in QEMU, bootstrap a toolchain on it, build a package,\n' +
        'read its log over TFTP, and let the host update itself; all on this machine, in a network of its own (as root)',
    )
    .option('--work <dir>', 'folder for caches and results', 'work')
    .addOption(new Option('--firmware <kind>', 'of the host').choices(['bios', 'uefi']).default('bios'))
    .option('--memory <MiB>', 'memory of the host', mebibytes, 3072)
    .option('--keep', 'leave the host running at the end, until Ctrl-C, and print how to reach it')
    .option('--json', 'print what came of it as JSON; progress goes to the standard error')
    .action(async (options: Options) => {
      needRoot('a network namespace, loop devices, another root file system');
      await needPackages(['image', 'machine', 'sources', 'lab']);
      await demo(options);
    });
}

async function demo(options: Options): Promise<void> {
  const startedMs = Date.now();
  using interrupt = onInterrupt();
  await using show = new Demo({
    work: resolve(options.work),
    firmware: options.firmware,
    memoryMiB: options.memory,
    signal: interrupt.signal,
    cli: join(import.meta.dirname, 'main.ts'),
  });
  await runSteps(show, options);
  const outcome = await show.outcome();
  const seconds = (Date.now() - startedMs) / 1000;
  if (options.json === true) process.stdout.write(`${JSON.stringify({ ...outcome, seconds }, undefined, 2)}\n`);
  else process.stdout.write(describeOutcome(outcome, seconds));
  if (options.keep !== true) return;
  show.releaseConsole();
  process.stderr.write(`\nThe host is running; Ctrl-C ends it.\n${indent(show.describeAccess())}\n`);
  if (!interrupt.signal.aborted) await once(interrupt.signal, 'abort');
}

/** Shows the steps while they run: on a terminal with what is going on below each, otherwise a line at a time. */
async function runSteps(show: Demo, options: Options): Promise<void> {
  const isTerminal = process.stderr.isTTY && options.json !== true;
  const tasks = show.steps.map(({ title, run }) => ({
    title,
    task: async (_: unknown, task: { title: string; output: string }): Promise<void> => {
      const startedMs = Date.now();
      const came = await run((line) => {
        // Other renderers print every line; the console's would bury the steps.
        if (isTerminal) task.output = line.slice(0, Math.max(20, process.stderr.columns - 8));
      });
      task.title = `${title}: ${came} [${((Date.now() - startedMs) / 1000).toFixed(0)} s]`;
    },
  }));
  if (isTerminal) {
    const rendererOptions = { collapseErrors: false, showErrorMessage: false, outputBar: 4 } as const;
    await new Listr(tasks, { rendererOptions, concurrent: false }).run();
    return;
  }
  for (const [index, { title, run }] of show.steps.entries()) {
    const startedMs = Date.now();
    process.stderr.write(`[${index + 1}/${tasks.length}] ${title} ...\n`);
    const came = await run((line) => process.stderr.write(`    ${line}\n`));
    process.stderr.write(`    => ${came} [${((Date.now() - startedMs) / 1000).toFixed(0)} s]\n`);
  }
}

/** The end of the demo, for people. */
function describeOutcome(outcome: DemoOutcome, seconds: number): string {
  const [first, second] = outcome.boots;
  return [
    '',
    `From power-on to the result (${outcome.accelerator}; seconds of each phase, and since power-on):`,
    indent(formatChart(first?.phases ?? []).split('\n')),
    '',
    'The same for the reboot into the new image:',
    indent(formatChart(second?.phases ?? []).split('\n')),
    '',
    `image        ${outcome.image}`,
    `build log    ${outcome.log.file} (${outcome.log.bytes} bytes, over TFTP)`,
    `results      ${outcome.results}/`,
    `console      ${outcome.console}`,
    `boot charts  ${outcome.boots.map((boot) => boot.chart).join(', ')}`,
    `done in ${seconds.toFixed(0)} s`,
    '',
  ].join('\n');
}

const indent = (lines: readonly string[]): string => lines.map((line) => `  ${line}`).join('\n');

function mebibytes(text: string): number {
  if (!/^\d{3,6}$/.test(text) || Number(text) < 1024) throw new InvalidArgumentError('expected at least 1024');
  return Number(text);
}
