/**
 * From what the monitor knows to what it does now. Pure, and asked again after every event: a step that is under way
 * or has failed a moment ago is left out, everything else that is due is in.
 */
import { recordReboot } from './budget.ts';
import {
  type Clock,
  type MonitorState,
  type ToolchainState,
  holdOf,
  targetsKey,
  targetsOf,
  verdictOf,
} from './state.ts';
import { type Step, keyOf } from './step.ts';

/** Waiting for a lease longer than this many tries, the MAC names the host. */
const TRIES_FOR_A_LEASE = 6;

/** The steps that are due. */
export function plan(state: MonitorState, clock: Clock): Step[] {
  if (state.phase === 'rebooting') return [];
  return wanted(state, clock).filter((step) => {
    const key = keyOf(step);
    return !state.busy.includes(key) && (state.setbacks[key]?.notBeforeMs ?? 0) <= clock.uptimeMs;
  });
}

/** Whether a reboot was asked for and has not happened in time. */
export function isRebootOverdue(state: MonitorState, clock: Clock): boolean {
  return state.rebootAskedAtMs !== undefined && clock.uptimeMs - state.rebootAskedAtMs > state.timing.rebootMs;
}

function wanted(state: MonitorState, clock: Clock): Step[] {
  const now = clock.uptimeMs;
  const steps: Step[] = [];
  const all = Object.values(state.toolchains);
  if (!state.naming.isDone && now >= state.naming.nextAtMs) {
    steps.push({ kind: 'name-host', orElseMac: state.naming.tries >= TRIES_FOR_A_LEASE });
  }
  if (state.isBudgetDirty && state.budget !== undefined) steps.push({ kind: 'save-budget', budget: state.budget });

  // An earlier monitor's drain does not keep this one from finding out how things stand.
  const mayTry = state.drain === undefined || state.phase === 'starting';
  for (const one of all) {
    if (mayTry && wantsTry(one, now)) steps.push({ kind: 'try-toolchain', toolchain: one.name });
    if (mayTry && wantsAgentStart(one, now)) steps.push({ kind: 'start-agent', toolchain: one.name });
  }
  const agents = all.filter((one) => one.agent.state !== 'absent').map((one) => one.name);
  if (agents.length > 0 && now >= state.nextSeeAtMs) {
    // Their own word costs one read of a file; systemd's costs a process of root, and is needed when things change.
    const isUnitsTurn = now >= state.nextSeeUnitsAtMs;
    const units = agents.filter((name) => isUnitsTurn || state.toolchains[name]?.agent.state === 'starting');
    steps.push({ kind: 'see-agents', toolchains: agents, units });
  }

  if (state.phase === 'starting') {
    if (all.every((one) => one.tried)) steps.push({ kind: 'say-ready' });
    return steps;
  }
  if (now >= state.nextLookAtMs && (state.watchesImage || all.length > 0)) steps.push({ kind: 'look' });
  // While a look is under way what it will say is not known yet, and a drain left by an earlier monitor waits for it.
  if (!state.busy.includes('look') && !steps.some((step) => step.kind === 'look')) steps.push(...follow(state, clock));
  return steps;
}

/** Verify, drain, verify again, reboot; or let go of a drain that has lost its reason. */
function follow(state: MonitorState, clock: Clock): Step[] {
  const targets = targetsOf(state);
  const { drain } = state;
  const undrain = (why: string): Step[] => (drain === undefined ? [] : [{ kind: 'undrain', why }]);
  if (targets.length === 0) {
    const isUnknown = Object.keys(state.unreachable).length > 0;
    return undrain(isUnknown ? 'no change can be seen any more' : 'what is published is what runs here');
  }

  const proof = state.proof?.key === targetsKey(targets) ? state.proof : undefined;
  const verify: Step = { kind: 'verify', targets, duringDrain: isQuiet(state, clock) };
  if (proof === undefined) return [verify];
  if (!proof.isGood) {
    const steps = undrain(proof.why ?? 'the change is not published whole');
    return (proof.nextAtMs ?? 0) <= clock.uptimeMs ? [...steps, verify] : steps;
  }
  const hold = holdOf(state, clock);
  const isDue = (state.setbacks['reboot']?.notBeforeMs ?? 0) <= clock.uptimeMs;
  if (verdictOf(state, clock).kind !== 'go' || !isDue) return undrain(hold ?? 'the reboot is not due yet');

  const reason = reasonOf(state, targets);
  if (drain === undefined) return [{ kind: 'drain', reason }];
  if (!isQuiet(state, clock)) return [];
  if (!proof.duringDrain) return [verify];
  return [
    {
      kind: 'reboot',
      reason,
      agents: Object.values(state.toolchains)
        .filter((one) => one.agent.state !== 'absent')
        .map((one) => one.name),
      ...(state.budget === undefined ? {} : { budget: recordReboot(state.budget, targets, clock.wallMs) }),
    },
  ];
}

/**
 * Whether the drain is over: every agent that runs says that it takes nothing, has no task and owes no result; or the
 * limits have passed. Results wait on the state disk where there is one, so a shorter limit does for them.
 */
function isQuiet(state: MonitorState, clock: Clock): boolean {
  if (state.drain === undefined) return false;
  const elapsedMs = clock.uptimeMs - state.drain.sinceMs;
  if (elapsedMs > state.timing.drainTasksMs) return true;
  return Object.values(state.toolchains).every(({ agent }) => {
    if (agent.state === 'absent' || agent.state === 'failed') return true;
    const { report } = agent;
    // 'polling' with no task may be a poll under way that will bring one; the drain is seen before the next.
    if (report?.state !== 'draining' || report.tasks.length > 0) return false;
    if (report.undelivered === 0) return true;
    return state.stateStorage === 'disk' && elapsedMs > state.timing.drainDeliveryMs;
  });
}

function wantsTry(one: ToolchainState, now: number): boolean {
  if (!one.tried) return true;
  return one.stage === 'failed' && now >= (one.nextTryAtMs ?? 0);
}

function wantsAgentStart(one: ToolchainState, now: number): boolean {
  if (one.stage !== 'ready' || !one.hasAgent || !one.wantsAgent) return false;
  if (one.agent.state === 'absent') return true;
  return one.agent.state === 'failed' && now >= (one.agent.nextTryAtMs ?? 0);
}

function reasonOf(state: MonitorState, targets: readonly string[]): string {
  const changes = targets.map((target) => {
    const [kind, ...rest] = target.split(' ');
    if (kind === 'image') return `image ${shorten(state.buildId)} → ${shorten(rest[0] ?? '')}`;
    const [name, id] = rest;
    return `toolchain ${name} ${shorten(state.toolchains[name ?? '']?.id ?? '')} → ${shorten(id ?? '')}`;
  });
  return changes.join(', ').slice(0, 400);
}

/** Enough of an id to recognise it. */
export function shorten(id: string): string {
  return id.length > 16 ? id.slice(0, 12) : id;
}
