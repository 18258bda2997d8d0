/** Performs steps by asking the helper; it makes no choices. */
import { callHelper } from '../helper/client.ts';
import type { CallOptions } from '../helper/client.ts';
import type { MachineEnd } from '../helper/verb.ts';
import { planBoot, planCleanUp, planEnd } from './plan.ts';
import type { Boot } from './plan.ts';
import { describe } from './step.ts';
import type { Step } from './step.ts';

export interface RunOptions extends CallOptions {
  /** Gets a line before each step. */
  readonly onStep?: (line: string) => void;
}

/** Performs steps in order. @throws {HelperError} at the first one that fails */
export async function run(steps: readonly Step[], options: RunOptions): Promise<void> {
  for (const step of steps) {
    options.onStep?.(describe(step));
    await perform(step, options);
  }
}

/** Snapshots and starts a machine. @throws {HelperError} also when a part of it may have been done: end it then */
export async function bootMachine(boot: Boot, options: RunOptions): Promise<void> {
  await run(planBoot(boot), options);
}

/** Stops a machine and deletes its snapshot. */
export async function endMachine(volume: string, build: string, options: RunOptions): Promise<void> {
  await run(planEnd(volume, build), options);
}

/** Waits until a machine ends, as long as it takes or until the signal. */
export async function waitMachine(build: string, options: CallOptions): Promise<MachineEnd> {
  for (;;) {
    const end = await callHelper({ verb: 'machine.wait', build }, options);
    if (end.result !== 'running') return end;
    options.signal?.throwIfAborted();
  }
}

/**
 * Looks, and ends what is left of builds that are ours.
 *
 * @returns the builds that were ended
 */
export async function cleanUp(
  isOurs: (build: string) => boolean,
  volume: string,
  options: RunOptions,
): Promise<readonly string[]> {
  const { builds } = await callHelper({ verb: 'machine.list' }, options);
  await run(planCleanUp(builds, isOurs, volume), options);
  return builds.map(({ build }) => build).filter(isOurs);
}

async function perform(step: Step, options: RunOptions): Promise<void> {
  switch (step.kind) {
    case 'snapshot': {
      const { volume, machine, build } = step;
      await callHelper({ verb: 'machine.snapshot', volume, machine, build }, options);
      return;
    }
    case 'start': {
      const { volume, build, toolchain, place, limits } = step;
      await callHelper({ verb: 'machine.start', volume, build, toolchain, ...place, ...limits }, options);
      return;
    }
    case 'stop':
      await callHelper({ verb: 'machine.stop', build: step.build }, options);
      return;
    case 'delete':
      await callHelper({ verb: 'machine.delete', volume: step.volume, build: step.build }, options);
      return;
    default:
      step satisfies never;
  }
}
