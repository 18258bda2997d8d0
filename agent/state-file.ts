/** The agent's state file: what the monitor, and through it everybody, sees of this agent. Replaced in one step. */
import { renameSync, writeFileSync } from 'node:fs';

/** A task that runs. */
export interface RunningTask {
  readonly build: string;
  readonly name: string;
  readonly version: string;
  readonly machine: string;
  /** ms since 1970. */
  readonly startedMs: number;
}

/** A moment worth a mark in the boot chart. */
export interface AgentEvent {
  readonly name: 'agent-ready' | 'task-claimed' | 'job-started' | 'result';
  /** ms since the kernel started. */
  readonly uptimeMs: number;
}

export interface AgentState {
  readonly state: 'starting' | 'polling' | 'busy' | 'draining';
  readonly tasks: readonly RunningTask[];
  /** Results that no controller has acknowledged yet. */
  readonly undelivered: number;
  /** The latest thing that went wrong and has not gone right since. */
  readonly lastError?: string;
  readonly events: readonly AgentEvent[];
}

/** The first and the latest events are kept. */
const EVENTS_FIRST = 16;
const EVENTS_LAST = 48;

/** Adds an event; in a long life those in the middle are forgotten. */
export function addEvent(events: readonly AgentEvent[], event: AgentEvent): readonly AgentEvent[] {
  const all = [...events, event];
  if (all.length <= EVENTS_FIRST + EVENTS_LAST) return all;
  return [...all.slice(0, EVENTS_FIRST), ...all.slice(-EVENTS_LAST)];
}

/** Writes the file. @throws when its folder cannot be written */
export function writeState(file: string, state: AgentState): void {
  const temporary = `${file}.new`;
  writeFileSync(temporary, `${JSON.stringify(state, undefined, 2)}\n`, { mode: 0o644 });
  renameSync(temporary, file);
}
