/** What is done to machines, as data: printable, comparable. Every step is one verb of the helper. */
import type { Place } from './name.ts';

/** What a machine may use. */
export interface Limits {
  readonly cpus: number;
  readonly memoryMiB: number;
  /** Processes and threads. */
  readonly tasksMax: number;
  /** Wall time, after which the machine is killed. */
  readonly timeoutSeconds: number;
}

export type Step =
  | { readonly kind: 'snapshot'; readonly volume: string; readonly machine: string; readonly build: string }
  | {
      readonly kind: 'start';
      readonly volume: string;
      readonly build: string;
      readonly toolchain: string;
      readonly place: Place;
      readonly limits: Limits;
    }
  | { readonly kind: 'stop'; readonly build: string }
  | { readonly kind: 'delete'; readonly volume: string; readonly build: string };

/** A step as one line of a log. */
export function describe(step: Step): string {
  switch (step.kind) {
    case 'snapshot':
      return `snapshot ${step.volume}/${step.machine} as ${step.build}`;
    case 'start': {
      const { cpus, memoryMiB, timeoutSeconds } = step.limits;
      return `start ${step.build} at ${step.place.address}, TFTP port ${step.place.port}, ${cpus} CPUs, ${memoryMiB} MiB, at most ${timeoutSeconds} s`;
    }
    case 'stop':
      return `stop ${step.build}`;
    case 'delete':
      return `delete ${step.volume}/${step.build}`;
    default:
      return step satisfies never;
  }
}
