/**
 * What the monitor knows, and how events change it. Pure: clocks and chance arrive in the events.
 *
 *     starting ──every toolchain tried──► ready ──drain, all quiet──► rebooting
 *        the drain is beside the phase: it can outlive a monitor that was killed
 */
import type { Budget, Verdict, Witness } from './budget.ts';
import { EMPTY_BUDGET, judge, judgeWithoutMemory, recordReached } from './budget.ts';
import { type Step, keyOf } from './step.ts';

/** Both clocks, taken together. */
export interface Clock {
  /** ms since boot, never jumps */
  readonly uptimeMs: number;
  /** ms since the epoch, may jump */
  readonly wallMs: number;
}

/** How long things may take, in ms. */
export interface Timing {
  readonly lookEveryMs: number;
  /** a pause between looks is lookEveryMs × (1 ± this) */
  readonly lookSpread: number;
  /** after the first failure of anything; doubles up to retryMaxMs */
  readonly retryFirstMs: number;
  readonly retryMaxMs: number;
  /** the longest wait for running tasks in a drain */
  readonly drainTasksMs: number;
  /** the longest wait for results to be delivered when no task runs */
  readonly drainDeliveryMs: number;
  readonly seeAgentsEveryMs: number;
  /** between two questions to systemd about agents that are ready */
  readonly seeUnitsEveryMs: number;
  /** the longest wait for a started agent to be ready */
  readonly agentStartMs: number;
  /** after a reboot was asked for: still here then is a failure */
  readonly rebootMs: number;
  /** between tries to name the host */
  readonly nameEveryMs: number;
}

/** Figures for a host; tests shorten them. */
export const TIMING: Timing = {
  lookEveryMs: 60_000,
  lookSpread: 0.2,
  retryFirstMs: 30_000,
  retryMaxMs: 3_600_000,
  drainTasksMs: 4 * 3_600_000,
  drainDeliveryMs: 10 * 60_000,
  seeAgentsEveryMs: 2000,
  seeUnitsEveryMs: 15_000,
  agentStartMs: 90_000,
  rebootMs: 5 * 60_000,
  nameEveryMs: 5000,
};

/** What went wrong, for people. */
export interface Trouble {
  readonly error: string;
  readonly hint?: string;
}

/** An agent's own state file, as far as the monitor needs it; the rest is passed on in the status. */
export interface AgentReport {
  readonly state: string;
  readonly tasks: readonly unknown[];
  readonly undelivered: number;
  readonly [more: string]: unknown;
}

export interface AgentView {
  readonly state: 'absent' | 'starting' | 'ready' | 'failed';
  readonly trouble?: Trouble;
  readonly failures: number;
  /** uptime; only when failed */
  readonly nextTryAtMs?: number;
  /** uptime; only when starting */
  readonly startedAtMs?: number;
  readonly report?: AgentReport;
}

export interface ToolchainState {
  readonly name: string;
  /** it has controllers, so its agent is to run */
  readonly wantsAgent: boolean;
  readonly stage: 'fetching' | 'bootstrapping' | 'ready' | 'failed' | 'disabled';
  /** since this monitor started */
  readonly tried: boolean;
  /** of its list: the one in use, or the one last tried */
  readonly id?: string;
  readonly version?: string;
  readonly trouble?: Trouble;
  /** in a row */
  readonly failures: number;
  /** uptime; only when failed */
  readonly nextTryAtMs?: number;
  readonly hasAgent: boolean;
  readonly agent: AgentView;
}

/** What a look got for one URL. */
export type Found =
  | { readonly kind: 'id'; readonly id: string }
  | { readonly kind: 'unreachable'; readonly error: string };

/** The last check of what is published. */
export interface Proof {
  /** {@link targetsKey} of what was checked */
  readonly key: string;
  readonly isGood: boolean;
  readonly why?: string;
  readonly duringDrain: boolean;
  readonly failures: number;
  /** uptime; only when bad */
  readonly nextAtMs?: number;
}

export interface MonitorEvent {
  readonly name: string;
  readonly uptimeMs: number;
}

export interface MonitorState {
  readonly buildId: string;
  /** the host watches its build id */
  readonly watchesImage: boolean;
  readonly timing: Timing;
  readonly phase: 'starting' | 'ready' | 'rebooting';
  /** keys of steps under way */
  readonly busy: readonly string[];
  /** steps that failed, by key: not before, how often in a row */
  readonly setbacks: Readonly<Record<string, { readonly failures: number; readonly notBeforeMs: number } & Trouble>>;
  readonly toolchains: Readonly<Record<string, ToolchainState>>;
  readonly naming: { readonly tries: number; readonly nextAtMs: number; readonly isDone: boolean };
  readonly nextLookAtMs: number;
  readonly nextSeeAtMs: number;
  readonly nextSeeUnitsAtMs: number;
  /** the last answer of each URL: `image`, `toolchain <tc>` → id */
  readonly published: Readonly<Record<string, string>>;
  /** the last error of each URL, absent when it answered */
  readonly unreachable: Readonly<Record<string, string>>;
  readonly looksBefore: number;
  readonly looksSince: number;
  readonly proof?: Proof;
  readonly drain?: { readonly reason: string; readonly sinceMs: number };
  readonly stateStorage: 'disk' | 'ram';
  /** absent: not durable, see budget.ts */
  readonly budget?: Budget;
  /** the budget has changed and is to be saved */
  readonly isBudgetDirty: boolean;
  readonly budgetProblem?: string;
  readonly rebootsThisBoot: number;
  readonly rebootAskedAtMs?: number;
  readonly events: readonly MonitorEvent[];
}

/** What the outcome of a step, or the passing of time, tells. */
export type Event =
  | { readonly kind: 'began'; readonly step: Step }
  | { readonly kind: 'ended'; readonly step: Step }
  /** a step ended with an error that it does not report itself */
  | { readonly kind: 'setback'; readonly step: Step; readonly trouble: Trouble }
  | { readonly kind: 'toolchain-stage'; readonly toolchain: string; readonly stage: 'fetching' | 'bootstrapping' }
  | { readonly kind: 'toolchain-list'; readonly toolchain: string; readonly id: string; readonly version?: string }
  | { readonly kind: 'toolchain-ready'; readonly toolchain: string; readonly hasAgent: boolean }
  | { readonly kind: 'toolchain-disabled'; readonly toolchain: string }
  | { readonly kind: 'toolchain-failed'; readonly toolchain: string; readonly trouble: Trouble }
  | { readonly kind: 'agent-started'; readonly toolchain: string }
  | { readonly kind: 'agent-failed'; readonly toolchain: string; readonly trouble: Trouble }
  | { readonly kind: 'agents-seen'; readonly agents: Readonly<Record<string, SeenAgent>> }
  | { readonly kind: 'named'; readonly isDone: boolean }
  | { readonly kind: 'ready' }
  | {
      readonly kind: 'looked';
      readonly found: Readonly<Record<string, Found>>;
      /** 0 to 1, for the spread of the next pause */
      readonly random: number;
    }
  | {
      readonly kind: 'verified';
      readonly key: string;
      readonly isGood: boolean;
      readonly why?: string;
      readonly duringDrain: boolean;
    }
  | { readonly kind: 'drain-on'; readonly reason: string }
  | { readonly kind: 'drain-off' }
  | { readonly kind: 'budget-saved' }
  | { readonly kind: 'budget-lost'; readonly problem: string }
  | { readonly kind: 'reboot-asked'; readonly budget?: Budget }
  | { readonly kind: 'reboot-failed'; readonly trouble: Trouble };

/** What was seen of one agent. */
export interface SeenAgent {
  /** systemd's ActiveState; absent when it was not asked */
  readonly unit?: string;
  readonly detail?: string;
  readonly report?: AgentReport;
}

/** What {@link startState} begins with. */
export interface Start {
  readonly buildId: string;
  readonly watchesImage: boolean;
  /** the host was given a name, or it is not ours to give */
  readonly isNamed: boolean;
  readonly timing: Timing;
  readonly toolchains: readonly { readonly name: string; readonly wantsAgent: boolean }[];
  readonly stateStorage: 'disk' | 'ram';
  readonly budget?: Budget;
  readonly budgetProblem?: string;
  /** a drain that an earlier monitor of this boot began */
  readonly drain?: string;
  /** events that an earlier monitor of this boot wrote down */
  readonly events: readonly MonitorEvent[];
}

/** Names and times in the status: the boot chart needs the first ones, people the last ones. */
const EVENTS_KEPT = 200;

/** The state of a monitor that has just started. */
export function startState(start: Start, clock: Clock): MonitorState {
  const toolchains: Record<string, ToolchainState> = {};
  for (const { name, wantsAgent } of start.toolchains) {
    toolchains[name] = {
      name,
      wantsAgent,
      stage: 'fetching',
      tried: false,
      failures: 0,
      hasAgent: false,
      agent: { state: 'absent', failures: 0 },
    };
  }
  const reached = start.budget === undefined ? undefined : recordReached(start.budget, `image ${start.buildId}`);
  return note(
    {
      buildId: start.buildId,
      watchesImage: start.watchesImage,
      timing: start.timing,
      phase: 'starting',
      busy: [],
      setbacks: {},
      toolchains,
      naming: { tries: 0, nextAtMs: 0, isDone: start.isNamed },
      nextLookAtMs: 0,
      nextSeeAtMs: 0,
      nextSeeUnitsAtMs: 0,
      published: {},
      unreachable: {},
      looksBefore: 0,
      looksSince: 0,
      stateStorage: start.stateStorage,
      isBudgetDirty: reached !== start.budget,
      rebootsThisBoot: start.events.filter((event) => event.name === 'reboot').length,
      events: start.events.slice(-EVENTS_KEPT),
      ...(reached === undefined ? {} : { budget: reached }),
      ...(start.budgetProblem === undefined ? {} : { budgetProblem: start.budgetProblem }),
      ...(start.drain === undefined ? {} : { drain: { reason: start.drain, sinceMs: clock.uptimeMs } }),
    },
    'monitor-start',
    clock,
  );
}

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

/** What a reboot would bring that the host has not: sorted, empty when nothing has changed. */
export function targetsOf(state: MonitorState): readonly string[] {
  const targets: string[] = [];
  const image = state.published['image'];
  if (image !== undefined && image !== state.buildId) targets.push(`image ${image}`);
  for (const one of Object.values(state.toolchains)) {
    const published = state.published[`toolchain ${one.name}`];
    // One that failed or is disabled is tried in place, see `looked`: nothing of it is in use.
    if (one.stage === 'ready' && published !== undefined && published !== one.id) {
      targets.push(`toolchain ${one.name} ${published}`);
    }
  }
  return targets.sort();
}

/** A name for a set of targets. */
export function targetsKey(targets: readonly string[]): string {
  return targets.join('\n');
}

/** May the host reboot for what has changed? Times in the verdict are ms since the epoch. */
export function verdictOf(state: MonitorState, clock: Clock): Verdict {
  if (state.budget !== undefined) return judge(state.budget, targetsOf(state), clock.wallMs);
  const witness: Witness = {
    looksBefore: state.looksBefore,
    looksSince: state.looksSince,
    rebootsThisBoot: state.rebootsThisBoot,
    uptimeMs: clock.uptimeMs,
  };
  const verdict = judgeWithoutMemory(witness);
  if (verdict.kind !== 'wait') return verdict;
  return { ...verdict, untilMs: verdict.untilMs === 0 ? 0 : verdict.untilMs - clock.uptimeMs + clock.wallMs };
}

/** Why the host does not follow a change that it has seen; undefined when there is none, or it is following it. */
export function holdOf(state: MonitorState, clock: Clock): string | undefined {
  const targets = targetsOf(state);
  if (targets.length === 0 || state.phase !== 'ready') return undefined;
  const { proof } = state;
  if (proof?.key === targetsKey(targets) && !proof.isGood) return proof.why ?? 'it is not published whole';
  const verdict = verdictOf(state, clock);
  if (verdict.kind !== 'go') {
    const until = verdict.kind === 'wait' && verdict.untilMs > 0 ? `; not before ${isoOf(verdict.untilMs)}` : '';
    return `${verdict.why}${until}`;
  }
  const setback = state.setbacks['reboot'];
  return setback === undefined ? undefined : setback.error;
}

/** ISO 8601 in UTC without fractions of a second. */
export function isoOf(wallMs: number): string {
  return new Date(wallMs).toISOString().replace(/\.\d+Z$/, 'Z');
}

/** The pause after so many failures in a row, in ms. */
export function pauseAfter(failures: number, timing: Timing): number {
  return Math.min(timing.retryFirstMs * 2 ** Math.min(failures - 1, 30), timing.retryMaxMs);
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

/** Adds an event for the boot chart. */
function note(state: MonitorState, name: string, clock: Clock): MonitorState {
  return { ...state, events: [...state.events, { name, uptimeMs: clock.uptimeMs }].slice(-EVENTS_KEPT) };
}
