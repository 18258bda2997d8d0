/** Which steps a build needs, and which clean up after builds that nobody looks after any more. Pure. */
import type { BuildRemains } from '../helper/verb.ts';
import type { Machine } from './enumerate.ts';
import type { Place } from './name.ts';
import type { Limits, Step } from './step.ts';

/** What is started. */
export interface Boot {
  readonly build: string;
  readonly machine: Machine;
  readonly toolchain: string;
  readonly place: Place;
  readonly limits: Limits;
}

/** A new machine for a build: a fresh snapshot, then the container in it. */
export function planBoot(boot: Boot): readonly Step[] {
  const { build, machine, toolchain, place, limits } = boot;
  const { volume } = machine;
  return [
    { kind: 'snapshot', volume, machine: machine.manifest.name, build },
    { kind: 'start', volume, build, toolchain, place, limits },
  ];
}

/** The end of a build's machine: nothing of it stays. */
export function planEnd(volume: string, build: string): readonly Step[] {
  return [
    { kind: 'stop', build },
    { kind: 'delete', volume, build },
  ];
}

/**
 * Ends whatever is left of builds that are ours and that nobody runs now.
 *
 * @param found - what the helper sees
 * @param isOurs - whether a build belongs to who asks: the builds of another toolchain's agent are left alone
 * @param volume - for remains that have no snapshot: any volume will do
 */
export function planCleanUp(
  found: readonly BuildRemains[],
  isOurs: (build: string) => boolean,
  volume: string,
): readonly Step[] {
  return found
    .filter((remains) => isOurs(remains.build))
    .flatMap((remains) => planEnd(remains.volume ?? volume, remains.build));
}
