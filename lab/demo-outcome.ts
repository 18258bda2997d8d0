/** What a demo has shown: the task, its log, and the charts of its two boots. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { TaskView } from '../controller/task-view.ts';
import type { Accelerator, Firmware } from '../host/qemu.ts';
import type { BuiltImage } from '../image/built-image.ts';
import { findMilestones, findPhases, formatChartSvg, type Phase } from './boot-chart.ts';
import { DemoError } from './demo-error.ts';
import type { Guest } from './guest.ts';
import type { Lab } from './lab.ts';
import type { StatusReading } from './status.ts';

/** What the demo has shown. */
export interface DemoOutcome {
  readonly buildIds: readonly [before: string, after: string];
  readonly accelerator: Accelerator;
  readonly boots: readonly { readonly phases: readonly Phase[]; readonly chart: string }[];
  readonly task: TaskView;
  /** How often the log was read over TFTP while the build ran, and how long it was in the end. */
  readonly log: { readonly file: string; readonly readsWhileRunning: number; readonly bytes: number };
  readonly results: string;
  readonly console: string;
  readonly image: string;
}

/** One of the demo's boots, as the host itself told it. */
export interface DemoBoot {
  readonly image: BuiltImage;
  readonly status: StatusReading | undefined;
}

/** A demo whose steps have all been run. */
export interface FinishedDemo {
  readonly folder: string;
  readonly firmware: Firmware;
  readonly accelerator: Accelerator;
  readonly lab: Lab;
  readonly guest: Guest;
  readonly before: DemoBoot;
  readonly after: DemoBoot;
  readonly task: TaskView;
  readonly log: DemoOutcome['log'];
}

/** Writes the boot charts, and names the rest. @throws {DemoError} when the host has not rebooted */
export async function writeOutcome(demo: FinishedDemo): Promise<DemoOutcome> {
  const { folder, guest, before, after, accelerator, task, log } = demo;
  const reset = resetAtMs(guest);
  return {
    buildIds: [before.image.buildId, after.image.buildId],
    accelerator,
    boots: [
      await writeChart(demo, before, { powerOnMs: guest.startedAtMs, untilMs: reset }),
      await writeChart(demo, after, { powerOnMs: reset }),
    ],
    task,
    log,
    results: join(folder, 'results'),
    console: guest.consoleLog,
    image: before.image.folder,
  };
}

async function writeChart(
  demo: FinishedDemo,
  boot: DemoBoot,
  when: { readonly powerOnMs: number; readonly untilMs?: number },
): Promise<DemoOutcome['boots'][number]> {
  const { folder, firmware, accelerator, lab, guest } = demo;
  const told = { lab: lab.log.events, guest: guest.log.events, status: boot.status };
  const phases = findPhases(findMilestones({ ...when, ...told }));
  const isFirst = boot === demo.before;
  const chart = join(folder, `boot-${isFirst ? 1 : 2}.svg`);
  const title = `Build OS ${boot.image.buildId.slice(0, 8)}: ${firmware}, ${accelerator}${isFirst ? '' : ', after the update'}`;
  await writeFile(chart, formatChartSvg(phases, title));
  return { phases, chart };
}

/** When the guest rebooted by itself, last. */
function resetAtMs(guest: Guest): number {
  const reset = guest.log.events.findLast((event) => event.source === 'qemu' && event.what === 'reset');
  if (reset !== undefined) return reset.atMs;
  throw new DemoError(
    'The host has the new image without having rebooted',
    `the host's console is in ${guest.consoleLog}`,
  );
}
