/**
 * What the monitor knows. Pure: clocks arrive in the arguments; events change it in `next.ts`.
 *
 *     starting ──every toolchain tried──► ready ──drain, all quiet──► rebooting
 *        the drain is beside the phase: it can outlive a monitor that was killed
 */
import type { Budget, Verdict, Witness } from './budget.ts';
import { judge, judgeWithoutMemory, recordReached } from './budget.ts';

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

/** Adds an event for the boot chart. */
export function note(state: MonitorState, name: string, clock: Clock): MonitorState {
  return { ...state, events: [...state.events, { name, uptimeMs: clock.uptimeMs }].slice(-EVENTS_KEPT) };
}
