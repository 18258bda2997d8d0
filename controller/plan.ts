/**
 * The controller's decisions: which task an agent gets, what a result is worth, what becomes of a task that got
 * none. Pure: state and time come as arguments.
 */
import type { MachineHeader } from '../manifests/machine.ts';
import type { Task } from '../manifests/task.ts';
import type { InteractiveMode } from '../manifests/task-request.ts';

/**
 * `queued` → `claimed` → `done`; back to `queued` by an interrupt or a timeout, and to `given-up` when the attempts
 * are used up. A result that comes late still makes a `queued` or `given-up` task `done`.
 */
export const TASK_STATES = ['queued', 'claimed', 'done', 'given-up'] as const;
export type TaskState = (typeof TASK_STATES)[number];

/** How a session ended; absent while it is open. */
export const SESSION_OUTCOMES = ['result', 'interrupt', 'timeout'] as const;
export type SessionOutcome = (typeof SESSION_OUTCOMES)[number];

/** A task that waits for an agent. */
export interface QueuedTask {
  readonly id: string;
  readonly task: Task;
}

/** What an agent offers. */
export interface Offer {
  readonly machines: readonly MachineHeader[];
  readonly interactiveMode?: InteractiveMode;
}

/** A task for an agent, and the machine it is for. */
export interface Choice {
  readonly id: string;
  /** `machine` and `auxiliaryMachines` are exact names of offered machines. */
  readonly task: Task;
}

/** A task that an agent works on. */
export interface Claim {
  readonly taskId: string;
  readonly session: string;
  readonly claimedMs: number;
  /** This one included. */
  readonly attempts: number;
}

/** A claim that has come to its end without a result. */
export interface Expiry {
  readonly taskId: string;
  readonly session: string;
  readonly state: 'queued' | 'given-up';
}

/** What the store knows of a session. */
export interface SessionState {
  readonly taskState: TaskState;
  readonly outcome?: SessionOutcome;
  /** SHA-256 of the result that ended it. */
  readonly digest?: string;
}

/**
 * What to do with a result: keep it; say yes again to one that is kept; refuse another one for the same session;
 * say yes and forget it, since the task went on without it.
 */
export type Verdict = 'accept' | 'repeat' | 'conflict' | 'expired';

/** The first of the queued tasks that fits what the agent offers. */
export function chooseTask(queued: Iterable<QueuedTask>, offer: Offer): Choice | undefined {
  for (const { id, task } of queued) {
    const fitted = fitsMode(task, offer.interactiveMode ?? 'false') ? fitMachines(task, offer.machines) : undefined;
    if (fitted !== undefined) return { id, task: fitted };
  }
  return undefined;
}

/** Whether a task's `machine` means this machine: the same name, or its first dash components. */
export function matchesMachine(wanted: string, name: string): boolean {
  return name === wanted || name.startsWith(`${wanted}-`);
}

/** What a result of this digest is worth for this session. */
export function judgeResult(session: SessionState, digest: string): Verdict {
  if (session.digest !== undefined) return session.digest === digest ? 'repeat' : 'conflict';
  return isWanted(session) ? 'accept' : 'expired';
}

/** Whether what comes in this session can still be used. */
export function isWanted(session: SessionState): boolean {
  if (session.outcome === undefined || session.outcome === 'result') return true;
  // After a timeout: when nobody else has it or has done it, late is as good as in time.
  return session.outcome === 'timeout' && (session.taskState === 'queued' || session.taskState === 'given-up');
}

/** The claims whose time is over, and what becomes of their tasks. */
export function planExpiry(
  claims: readonly Claim[],
  limits: { readonly nowMs: number; readonly timeoutMs: number; readonly maxAttempts: number },
): readonly Expiry[] {
  return claims
    .filter((claim) => limits.nowMs - claim.claimedMs >= limits.timeoutMs)
    .map(({ taskId, session, attempts }) => ({
      taskId,
      session,
      state: planWithoutResult(attempts, limits.maxAttempts),
    }));
}

/** What becomes of a task after an attempt without a result. */
export function planWithoutResult(attempts: number, maxAttempts: number): 'queued' | 'given-up' {
  return attempts < maxAttempts ? 'queued' : 'given-up';
}

function fitsMode(task: Task, mode: InteractiveMode): boolean {
  const isInteractive = task.interactive !== undefined && task.interactive !== 'none';
  return mode === 'both' || isInteractive === (mode === 'true');
}

function fitMachines(task: Task, machines: readonly MachineHeader[]): Task | undefined {
  const machine = findMachine(task.machine, machines, 'build');
  if (machine === undefined) return undefined;
  if (task.auxiliaryMachines === undefined) return { ...task, machine };
  const auxiliaryMachines = task.auxiliaryMachines.flatMap((auxiliary) => {
    const found = findMachine(auxiliary.machine, machines, 'auxiliary');
    return found === undefined ? [] : [{ name: auxiliary.name, machine: found }];
  });
  return auxiliaryMachines.length < task.auxiliaryMachines.length ? undefined : { ...task, machine, auxiliaryMachines };
}

function findMachine(
  wanted: string,
  machines: readonly MachineHeader[],
  role: 'build' | 'auxiliary',
): string | undefined {
  const names = machines.filter((machine) => (machine.role ?? 'build') === role).map((machine) => machine.name);
  return names.find((name) => name === wanted) ?? names.find((name) => matchesMachine(wanted, name));
}
