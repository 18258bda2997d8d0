/** How events change what the monitor knows. Pure: clocks and chance arrive in the events. */
import { EMPTY_BUDGET, recordReached } from './budget.ts';
import type { Event, SeenAgent } from './event.ts';
import {
  type Clock,
  type Timing,
  type Trouble,
  type AgentView,
  type ToolchainState,
  type Found,
  type Proof,
  type MonitorState,
  targetsOf,
  targetsKey,
  pauseAfter,
  note,
} from './state.ts';
import { keyOf } from './step.ts';

/** The state after an event. */
export function next(state: MonitorState, event: Event, clock: Clock): MonitorState {
  const now = clock.uptimeMs;
  switch (event.kind) {
    case 'began':
      return { ...state, busy: [...state.busy, keyOf(event.step)] };
    case 'ended': {
      const key = keyOf(event.step);
      const busy = state.busy.filter((one) => one !== key);
      const setback = state.setbacks[key];
      if (setback === undefined || setback.notBeforeMs > now) return { ...state, busy };
      const { [key]: _, ...setbacks } = state.setbacks;
      return { ...state, busy, setbacks };
    }
    case 'setback': {
      const key = keyOf(event.step);
      const failures = (state.setbacks[key]?.failures ?? 0) + 1;
      // One more than now, so that the 'ended' which follows at once does not take it for an old one.
      const notBeforeMs = now + 1 + pauseAfter(failures, state.timing);
      return { ...state, setbacks: { ...state.setbacks, [key]: { failures, notBeforeMs, ...event.trouble } } };
    }
    case 'toolchain-stage':
      return withToolchain(state, event.toolchain, (one) => {
        const { nextTryAtMs: _, ...rest } = one;
        return { ...rest, stage: event.stage };
      });
    case 'toolchain-list':
      return withToolchain(state, event.toolchain, (one) => {
        const { version: _, ...rest } = one;
        return { ...rest, id: event.id, ...(event.version === undefined ? {} : { version: event.version }) };
      });
    case 'toolchain-ready': {
      const after = withToolchain(state, event.toolchain, (one) => ({
        ...settled(one),
        stage: 'ready',
        hasAgent: event.hasAgent,
        agent: { state: 'absent', failures: 0 },
      }));
      return reachedToolchain(note(after, `toolchain-ready:${event.toolchain}`, clock), event.toolchain);
    }
    case 'toolchain-disabled': {
      const after = withToolchain(state, event.toolchain, (one) => ({ ...settled(one), stage: 'disabled' }));
      return reachedToolchain(after, event.toolchain);
    }
    case 'toolchain-failed':
      return withToolchain(state, event.toolchain, (one) => ({
        ...one,
        stage: 'failed',
        tried: true,
        failures: one.failures + 1,
        trouble: event.trouble,
        nextTryAtMs: now + pauseAfter(one.failures + 1, state.timing),
      }));
    case 'agent-started':
      return withAgent({ ...state, nextSeeAtMs: now }, event.toolchain, ({ failures }) => ({
        state: 'starting',
        failures,
        startedAtMs: now,
      }));
    case 'agent-failed':
      return withAgent(state, event.toolchain, (agent) => failedAgent(agent, event.trouble, state.timing, now));
    case 'agents-seen':
      return seen(state, event.agents, clock);
    case 'named': {
      const tries = state.naming.tries + 1;
      return { ...state, naming: { tries, nextAtMs: now + state.timing.nameEveryMs, isDone: event.isDone } };
    }
    case 'ready':
      return note({ ...state, phase: 'ready', nextLookAtMs: now }, 'monitor-ready', clock);
    case 'looked':
      return looked(state, event.found, event.random, clock);
    case 'verified': {
      const before = state.proof?.key === event.key && !state.proof.isGood ? state.proof.failures : 0;
      const failures = event.isGood ? 0 : before + 1;
      const proof: Proof = {
        key: event.key,
        isGood: event.isGood,
        duringDrain: event.duringDrain,
        failures,
        ...(event.why === undefined ? {} : { why: event.why }),
        // A publisher is usually done within a minute or two; the files are large, so look at them less and less often.
        ...(event.isGood ? {} : { nextAtMs: now + Math.min(state.timing.lookEveryMs * 2 ** (failures - 1), 900_000) }),
      };
      return { ...state, proof };
    }
    case 'drain-on': {
      // A proof from an earlier drain is not the last look before this reboot.
      const proof = state.proof === undefined ? {} : { proof: { ...state.proof, duringDrain: false } };
      return { ...state, ...proof, drain: { reason: event.reason, sinceMs: now } };
    }
    case 'drain-off': {
      const { drain: _, ...rest } = state;
      return rest;
    }
    case 'budget-saved':
      return { ...state, isBudgetDirty: false };
    case 'budget-lost': {
      const { budget: _, ...rest } = state;
      return { ...rest, isBudgetDirty: false, budgetProblem: event.problem };
    }
    case 'reboot-asked':
      return note(
        {
          ...state,
          phase: 'rebooting',
          rebootsThisBoot: state.rebootsThisBoot + 1,
          rebootAskedAtMs: now,
          ...(event.budget === undefined ? {} : { budget: event.budget }),
        },
        'reboot',
        clock,
      );
    case 'reboot-failed': {
      const { rebootAskedAtMs: _, proof: _proof, ...rest } = state;
      const toolchains: Record<string, ToolchainState> = {};
      // The agents were stopped: plan.ts starts them again.
      for (const [name, one] of Object.entries(state.toolchains)) {
        toolchains[name] = { ...one, agent: { state: 'absent', failures: 0 } };
      }
      const key = 'reboot';
      const failures = (state.setbacks[key]?.failures ?? 0) + 1;
      const notBeforeMs = now + 1 + pauseAfter(failures, state.timing);
      return {
        ...rest,
        phase: 'ready',
        toolchains,
        setbacks: { ...state.setbacks, [key]: { failures, notBeforeMs, ...event.trouble } },
      };
    }
    default:
      return event satisfies never;
  }
}

function looked(
  state: MonitorState,
  found: Readonly<Record<string, Found>>,
  random: number,
  clock: Clock,
): MonitorState {
  const published = { ...state.published };
  const unreachable: Record<string, string> = {};
  for (const [subject, one] of Object.entries(found)) {
    if (one.kind === 'id') published[subject] = one.id;
    else unreachable[subject] = one.error;
  }
  const { lookEveryMs, lookSpread } = state.timing;
  const nextLookAtMs = clock.uptimeMs + lookEveryMs * (1 + lookSpread * (2 * random - 1));
  let after: MonitorState = { ...state, published, unreachable, nextLookAtMs };
  for (const one of Object.values(state.toolchains)) {
    const id = published[`toolchain ${one.name}`];
    if ((one.stage === 'failed' || one.stage === 'disabled') && id !== undefined && id !== one.id) {
      const { trouble: _, ...rest } = one;
      after = withToolchain(after, one.name, () => ({ ...rest, stage: 'failed', failures: 0, nextTryAtMs: 0 }));
    }
  }
  const before = targetsKey(targetsOf(state));
  const key = targetsKey(targetsOf(after));
  const isWhole = Object.keys(unreachable).length === 0;
  if (key === '') return { ...after, looksBefore: state.looksBefore + (isWhole ? 1 : 0), looksSince: 0 };
  if (key === before) return { ...after, looksSince: state.looksSince + (isWhole ? 1 : 0) };
  // From one change to another: the looks that agreed on the earlier one are the looks before this one.
  const looksBefore = before === '' ? state.looksBefore : state.looksSince;
  return note({ ...after, looksBefore, looksSince: 1 }, 'change-seen', clock);
}

function seen(state: MonitorState, agents: Readonly<Record<string, SeenAgent>>, clock: Clock): MonitorState {
  const now = clock.uptimeMs;
  let after: MonitorState = {
    ...state,
    nextSeeAtMs: now + state.timing.seeAgentsEveryMs,
    ...(now >= state.nextSeeUnitsAtMs ? { nextSeeUnitsAtMs: now + state.timing.seeUnitsEveryMs } : {}),
  };
  for (const [name, agent] of Object.entries(agents)) {
    const wasReady = after.toolchains[name]?.agent.state === 'ready';
    after = withAgent(after, name, (view) => viewOf(view, agent, state.timing, now));
    if (!wasReady && after.toolchains[name]?.agent.state === 'ready') after = note(after, `agent-ready:${name}`, clock);
  }
  return after;
}

function viewOf(view: AgentView, agent: SeenAgent, timing: Timing, now: number): AgentView {
  const report = agent.report === undefined ? {} : { report: agent.report };
  const detail = agent.detail ?? '';
  switch (agent.unit) {
    case undefined:
      return { ...view, ...report };
    case 'active':
    case 'reloading':
      return { state: 'ready', failures: 0, ...report };
    case 'failed':
    case 'inactive':
    case 'absent':
      if (view.state === 'failed' || view.state === 'absent') return { ...view, ...report };
      return failedAgent(
        view,
        { error: `The agent's service is ${agent.unit}: ${detail}`, hint: 'journalctl -u buildos-agent@*' },
        timing,
        now,
      );
    default: {
      // Activating, or between two restarts by systemd: bounded, and from the first time it was seen so.
      if (view.state === 'failed') return { ...view, ...report };
      const startedAtMs = view.startedAtMs ?? now;
      if (now - startedAtMs > timing.agentStartMs) {
        const error = `The agent's service is still ${agent.unit} after ${timing.agentStartMs} ms: ${detail}`;
        return failedAgent(view, { error, hint: 'journalctl -u buildos-agent@*' }, timing, now);
      }
      return { state: 'starting', failures: view.failures, startedAtMs, ...report };
    }
  }
}

function failedAgent(agent: AgentView, trouble: Trouble, timing: Timing, now: number): AgentView {
  const failures = agent.failures + 1;
  return { state: 'failed', trouble, failures, nextTryAtMs: now + pauseAfter(failures, timing) };
}

/** Without what belongs to a failure. */
function settled(one: ToolchainState): ToolchainState {
  const { trouble: _, nextTryAtMs: _next, ...rest } = one;
  return { ...rest, tried: true, failures: 0 };
}

/** A reboot for this very list has done what it was for. */
function reachedToolchain(state: MonitorState, name: string): MonitorState {
  const id = state.toolchains[name]?.id;
  const budget = recordReached(state.budget ?? EMPTY_BUDGET, `toolchain ${name} ${id ?? ''}`);
  if (state.budget === undefined || budget === state.budget) return state;
  return { ...state, budget, isBudgetDirty: true };
}

function withToolchain(
  state: MonitorState,
  name: string,
  change: (one: ToolchainState) => ToolchainState,
): MonitorState {
  const one = state.toolchains[name];
  if (one === undefined) return state;
  return { ...state, toolchains: { ...state.toolchains, [name]: change(one) } };
}

function withAgent(state: MonitorState, name: string, change: (agent: AgentView) => AgentView): MonitorState {
  return withToolchain(state, name, (one) => ({ ...one, agent: change(one.agent) }));
}
