/** A verb from look to reply: looks, plans, runs. */
import { setTimeout as sleep } from 'node:timers/promises';
import { type Connection, text } from '../connections/connection.ts';
import { systemState } from '../host/systemd.ts';
import {
  checkVolume,
  findAgent,
  findAllRemains,
  findBootstrap,
  findBuild,
  findMachine,
  findMachineEnd,
  findMissing,
  findResolved,
  findUnit,
} from './look.ts';
import { type Layout, agentUnit, bootstrapUnit, machineUnit, snapshotPath } from './names.ts';
import { bootstrapFolders, planAgent, planBootstrap, planDelete, planSnapshot, planStart, planStop } from './plan.ts';
import { run } from './run.ts';
import type { Step } from './step.ts';
import { type MachineEnd, type Replies, type Verb, WAIT_LIMIT_MS } from './verb.ts';

/** What a verb is performed with. */
export interface Host {
  readonly on: Connection;
  readonly layout: Layout;
  readonly log: (line: string) => void;
}

/** Between two looks of `machine.wait`; each is a process, and there may be as many waits as machines. */
const LOOK_PAUSE_MS = 1000;

/** What each step of a deletion removes. */
const REMOVED: Partial<Record<Step['kind'], Replies['machine.delete']['removed'][number]>> = {
  'forget-unit': 'unit',
  'delete-netns': 'netns',
  'delete-link': 'link',
  'close-port': 'firewall',
  'delete-subvolume': 'snapshot',
};

/**
 * What a verb must not run beside: the same build, the same toolchain, the same host. Verbs that only look have none.
 */
export function lockOf(verb: Verb): string | undefined {
  switch (verb.verb) {
    case 'machine.snapshot':
    case 'machine.delete':
    case 'machine.start':
    case 'machine.stop':
      return `build ${verb.build}`;
    case 'bootstrap.start':
    case 'bootstrap.stop':
      return `bootstrap ${verb.toolchain}`;
    case 'agent.start':
    case 'agent.stop':
    case 'agent.restart':
      return `agent ${verb.toolchain}`;
    case 'hostname.set':
    case 'reboot':
      return verb.verb;
    case 'machine.list':
    case 'machine.wait':
    case 'bootstrap.state':
    case 'agent.state':
      return undefined;
    default:
      return verb satisfies never;
  }
}

/**
 * Performs a verb.
 *
 * @param gone - aborted when nobody waits for the answer any more; only verbs that change nothing end by it
 * @throws {RefusedError} when things stand against it; {@link CommandError} when a program fails
 */
export async function perform(verb: Verb, host: Host, gone: AbortSignal): Promise<Replies[Verb['verb']]> {
  const { on, layout, log } = host;
  const change = (steps: readonly Step[]): Promise<void> => run(steps, on, layout, log);
  switch (verb.verb) {
    case 'machine.snapshot': {
      await checkVolume(on, verb.volume, layout);
      const found = await findBuild(on, verb.volume, verb.build, layout);
      const machine = await findMachine(on, verb.volume, verb.machine, layout);
      await change(planSnapshot(verb, { ...found, ...machine }, layout));
      return { path: snapshotPath(layout, verb.volume, verb.build) };
    }
    case 'machine.delete': {
      await checkVolume(on, verb.volume, layout);
      const steps = planDelete(verb, await findBuild(on, verb.volume, verb.build, layout), layout);
      await change(steps);
      return { removed: steps.flatMap(({ kind }) => REMOVED[kind] ?? []) };
    }
    case 'machine.start': {
      await checkVolume(on, verb.volume, layout);
      const found = await findBuild(on, verb.volume, verb.build, layout);
      const steps = planStart(verb, { ...found, resolved: await findResolved(on) }, layout);
      await change(steps);
      return { unit: machineUnit(verb.build), started: steps.length > 0 };
    }
    case 'machine.stop':
      return stop(machineUnit(verb.build), on, change);
    case 'machine.list':
      return { builds: await findAllRemains(on, layout) };
    case 'machine.wait':
      return waitForEnd(verb.build, on, gone);
    case 'bootstrap.start': {
      const unit = bootstrapUnit(verb.toolchain);
      const missingFolders = await findMissing(on, bootstrapFolders(verb.toolchain, layout));
      const steps = planBootstrap(verb, { unit: await findUnit(on, unit), missingFolders }, layout);
      await change(steps);
      return { unit, started: steps.length > 0 };
    }
    case 'bootstrap.state':
      return findBootstrap(on, bootstrapUnit(verb.toolchain));
    case 'bootstrap.stop':
      return stop(bootstrapUnit(verb.toolchain), on, change);
    case 'agent.start':
    case 'agent.stop':
    case 'agent.restart':
      await change(planAgent(verb));
      return findAgent(on, agentUnit(verb.toolchain));
    case 'agent.state':
      return findAgent(on, agentUnit(verb.toolchain));
    case 'hostname.set': {
      const changed = text(await on.run(['hostname'])).trim() !== verb.name;
      await change(changed ? [{ kind: 'set-hostname', name: verb.name }] : []);
      return { changed };
    }
    case 'reboot': {
      const started = (await systemState(on)) !== 'stopping';
      if (!started) log('a shutdown is on its way already');
      await change(started ? [{ kind: 'reboot', reason: verb.reason }] : []);
      return { started };
    }
    default:
      return verb satisfies never;
  }
}

async function stop(
  unit: string,
  on: Connection,
  change: (steps: readonly Step[]) => Promise<unknown>,
): Promise<{ wasRunning: boolean }> {
  const steps = planStop(unit, await findUnit(on, unit));
  await change(steps);
  return { wasRunning: steps.length > 0 };
}

async function waitForEnd(build: string, on: Connection, gone: AbortSignal): Promise<MachineEnd> {
  const until = performance.now() + WAIT_LIMIT_MS;
  for (;;) {
    const end = await findMachineEnd(on, build);
    if (end.result !== 'running' || gone.aborted || performance.now() + LOOK_PAUSE_MS > until) return end;
    await sleep(LOOK_PAUSE_MS, undefined, { signal: gone }).catch(() => undefined);
  }
}
