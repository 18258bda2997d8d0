/**
 * What the monitor can do, as data. plan.ts chooses the steps, run.ts performs them.
 */
import type { Budget } from './budget.ts';

/** One thing to do; several different ones may be under way at once, never two with one {@link keyOf}. */
export type Step =
  /** Fetch, bootstrap, pack, install one toolchain. */
  | { readonly kind: 'try-toolchain'; readonly toolchain: string }
  | { readonly kind: 'start-agent'; readonly toolchain: string }
  /** Read what the agents say of themselves and what systemd says of them. */
  | {
      readonly kind: 'see-agents';
      readonly toolchains: readonly string[];
      /** those of them that systemd is asked about */
      readonly units: readonly string[];
    }
  /** Give the host a name; `orElseMac` when waiting for the lease has been enough. */
  | { readonly kind: 'name-host'; readonly orElseMac: boolean }
  /** READY=1. */
  | { readonly kind: 'say-ready' }
  /** Fetch the build id and the toolchain lists. */
  | { readonly kind: 'look' }
  /** Check that what a reboot would get is published whole. */
  | { readonly kind: 'verify'; readonly targets: readonly string[]; readonly duringDrain: boolean }
  /** Tell the agents to take no more tasks. */
  | { readonly kind: 'drain'; readonly reason: string }
  | { readonly kind: 'undrain'; readonly why: string }
  /** Stop the agents, remember the reboot, reboot. */
  | {
      readonly kind: 'reboot';
      readonly reason: string;
      readonly agents: readonly string[];
      /** to be on the disk before the reboot; absent when there is no durable budget */
      readonly budget?: Budget;
    }
  /** A changed budget to be remembered. */
  | { readonly kind: 'save-budget'; readonly budget: Budget };

/** The name under which a step is under way and its failures are counted. */
export function keyOf(step: Step): string {
  return 'toolchain' in step ? `${step.kind} ${step.toolchain}` : step.kind;
}

/** A line for the log. */
export function describe(step: Step): string {
  switch (step.kind) {
    case 'try-toolchain':
      return `try toolchain ${step.toolchain}`;
    case 'start-agent':
      return `start agent ${step.toolchain}`;
    case 'see-agents':
      return `see agents ${step.toolchains.join(', ')}`;
    case 'name-host':
      return `name the host from its lease${step.orElseMac ? ', else from its MAC' : ''}`;
    case 'say-ready':
      return 'say ready';
    case 'look':
      return 'look at the build id and the toolchain lists';
    case 'verify':
      return `verify ${step.targets.join(', ')}${step.duringDrain ? ' once more before the reboot' : ''}`;
    case 'drain':
      return `drain: ${step.reason}`;
    case 'undrain':
      return `end the drain: ${step.why}`;
    case 'reboot':
      return `reboot: ${step.reason}; agents to stop: ${step.agents.join(', ') || 'none'}`;
    case 'save-budget':
      return `save the reboot budget (${step.budget.reboots.length} reboots)`;
    default:
      return step satisfies never;
  }
}

/** Whether the step is worth a line in the log each time: not the ones that come round every few seconds. */
export function isNoteworthy(step: Step): boolean {
  return step.kind !== 'see-agents' && step.kind !== 'look';
}
