/**
 * Stage 1 of Build OS: PID 1 in the initramfs, after first-steps.sh. Mounts the root from RAM, leaves what the host should know in
 * /run/buildos/host.json, and becomes systemd. layout.ts tells what is around it, plan.ts what it does.
 *
 * Node does not reap orphans and an exit of PID 1 is a kernel panic: so this is short, everything it waits for has a bound,
 * and every way out leads through execve(2). Storage by label, the network and services are units of the image.
 */
import { writeFileSync } from 'node:fs';
import { openLocal } from '../connections/local.ts';
import { type BootStep, HOST_JSON, formatHostJson } from '../host/host-json.ts';
import { formatProblem, parseKernelCommandLine } from '../host/kernel-cmdline.ts';
import { Consoles } from './consoles.ts';
import { NEWROOT } from './layout.ts';
import { lookAtCommandLine, lookAtConsoles, lookAtHost, lookAtRoot } from './look.ts';
import { MOVE_KERNEL_FILE_SYSTEMS, planHandOver, planHost, planRoot } from './plan.ts';
import { RESCUE_COMMAND, describeFailure } from './rescue.ts';
import { run } from './run.ts';
import { type Step, describe } from './step.ts';

/** Nothing that the kernel hands on from its command line. */
const ENVIRONMENT = { HOME: '/', TERM: process.env['TERM'] ?? 'linux' };

const consoles = new Consoles();

/** Milliseconds since the kernel started: CLOCK_MONOTONIC, which is CLOCK_BOOTTIME until a host sleeps; ours never do. */
const nowMs = (): number => Number(process.hrtime.bigint() / 1000n) / 1000;

process.on('uncaughtException', giveUp);
// The event loop ran dry in the middle of something.
process.on('exit', (status) => giveUp(new Error(`init ended by itself with status ${status}`)));

await boot();

async function boot(): Promise<void> {
  const steps: BootStep[] = [{ name: 'node', startMs: nowMs() - performance.now(), endMs: nowMs() }];
  const on = openLocal();

  consoles.open(await lookAtConsoles(on));
  const { options, problems } = parseKernelCommandLine(await lookAtCommandLine(on));
  const rootFacts = await lookAtRoot(on);
  const { buildId } = rootFacts.payload;
  consoles.say(`Build OS ${buildId.slice(0, 8)}: stage 1`);
  for (const problem of problems) consoles.say(`Build OS: kernel command line: ${formatProblem(problem)}`);

  const tell = (step: Step, timing: BootStep): void => {
    steps.push(timing);
    if (options.initDebug) consoles.say(formatStep(step, timing));
  };
  await run(planRoot(options, rootFacts), on, { nowMs, onStep: tell });
  const host = planHost(options, await lookAtHost(on, rootFacts.memoryMiB));
  for (const problem of host.problems) consoles.say(`Build OS: kernel command line: ${formatProblem(problem)}`);
  await run([...host.steps, MOVE_KERNEL_FILE_SYSTEMS], on, { nowMs, onStep: tell });

  const hostJson = { buildId, options, problems: [...problems, ...host.problems], boot: { steps } };
  await on.writeFile(`${NEWROOT}${HOST_JSON}`, formatHostJson(hostJson), { mode: 0o644 });
  const [node] = steps;
  const ownMs = nowMs() - (node?.endMs ?? 0);
  consoles.say(
    `Build OS ${buildId.slice(0, 8)}: stage 1 done ${seconds(nowMs())} after the kernel started ` +
      `(Node ${seconds(performance.now() - ownMs)}, init ${seconds(ownMs)})`,
  );
  become(planHandOver(options));
}

/** Ends stage 1 for any reason: message, rescue shell, reboot. Does not return. */
function giveUp(error: unknown): void {
  consoles.say(describeFailure(error));
  try {
    become(RESCUE_COMMAND);
  } catch (failure) {
    consoles.say(`Build OS: no rescue shell either: ${String(failure)}. Rebooting in 60 s.`);
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 60_000);
    writeFileSync('/proc/sysrq-trigger', 'b');
  }
}

/** Replaces this program by another; PID 1 stays. Node closes all descriptors but stdin, stdout and stderr. */
function become(command: readonly [program: string, ...args: string[]]): void {
  if (process.execve === undefined) throw new Error('This Node cannot execve');
  process.execve(command[0], command, ENVIRONMENT);
}

function formatStep(step: Step, timing: BootStep): string {
  const head = `[${(timing.startMs / 1000).toFixed(3).padStart(8)}] ${step.name}: ${(timing.endMs - timing.startMs).toFixed(0)} ms`;
  return [head, ...describe(step).map((line) => `             ${line}`)].join('\n');
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(2)} s`;
}
