/**
 * What the monitor says of the host: the status line (`STATUS=`, the console) and `status.json`, which anyone reads
 * over TFTP. Pure. Everything said is computed from the state at that moment, nothing is remembered.
 *
 * Mail, metrics and a status page will say the same things; they start from {@link statusOf}.
 */
import * as z from 'zod';
import type { OptionProblem } from '../host/kernel-cmdline.ts';
import type { StatsSnapshot } from '../tftp/stats.ts';
import {
  type AgentReport,
  type Clock,
  type MonitorEvent,
  type MonitorState,
  type ToolchainState,
  holdOf,
  isoOf,
  targetsOf,
} from './state.ts';
import { shorten } from './plan.ts';

/** The content of status.json. */
export interface Status {
  readonly buildId: string;
  readonly state: 'starting' | 'ready' | 'draining' | 'held' | 'rebooting';
  /** one line */
  readonly status: string;
  readonly uptimeMs: number;
  /** ISO 8601, UTC */
  readonly bootedAt: string;
  /** one line each */
  readonly problems: readonly string[];
  readonly stateStorage: 'disk' | 'ram';
  readonly toolchains: Readonly<Record<string, ToolchainStatus>>;
  readonly tftp: TftpStatus;
  readonly events: readonly MonitorEvent[];
}

/** Reads from the TFTP folder since the monitor's start; this file is read there, too. */
export interface TftpStatus {
  readonly done: number;
  readonly failed: number;
  readonly refused: number;
  readonly bytes: number;
  /** packets that were sent again */
  readonly repeats: number;
  readonly openNow: number;
  readonly openAtMost: number;
}

export interface ToolchainStatus {
  readonly id?: string;
  readonly version?: string;
  readonly state: ToolchainState['stage'];
  readonly error?: string;
  readonly hint?: string;
  /** ISO 8601, UTC */
  readonly nextTryAt?: string;
  readonly agent: 'absent' | 'starting' | 'ready' | 'failed';
  readonly agentState?: AgentReport;
}

/**
 * The status of the host.
 *
 * @param optionProblems - what was wrong on the kernel command line
 * @param tftp - counters of the TFTP server
 */
export function statusOf(
  state: MonitorState,
  optionProblems: readonly OptionProblem[],
  clock: Clock,
  tftp: StatsSnapshot,
): Status {
  const toolchains: Record<string, ToolchainStatus> = {};
  for (const one of Object.values(state.toolchains)) toolchains[one.name] = toolchainStatus(one, clock);
  return {
    buildId: state.buildId,
    state: wordOf(state, clock),
    status: formatStatusLine(state, clock),
    uptimeMs: Math.round(clock.uptimeMs),
    bootedAt: isoOf(clock.wallMs - clock.uptimeMs),
    problems: problemsOf(state, optionProblems),
    stateStorage: state.stateStorage,
    toolchains,
    tftp: tftpStatus(tftp),
    events: state.events.map((event) => ({ name: event.name, uptimeMs: Math.round(event.uptimeMs) })),
  };
}

/** The text of status.json: indented, with a final newline. */
export function formatStatus(status: Status): string {
  return `${JSON.stringify(status, undefined, 2)}\n`;
}

/**
 * The events in a status.json that an earlier monitor of this boot has left, so that a boot chart is whole even when
 * the monitor was killed; empty when the text is not one.
 */
export function parseEvents(text: string): readonly MonitorEvent[] {
  let data: unknown;
  try {
    data = JSON.parse(text);
  } catch {
    return [];
  }
  const result = z
    .object({ events: z.array(z.object({ name: z.string(), uptimeMs: z.number() })).max(1000) })
    .safeParse(data);
  return result.success ? result.data.events : [];
}

/** One line for people: what the host does now and what keeps it from more. */
export function formatStatusLine(state: MonitorState, clock: Clock): string {
  const word = wordOf(state, clock);
  switch (word) {
    case 'starting':
      return `Starting: ${toolchainsLine(state)}`;
    case 'rebooting':
      return `Rebooting for ${state.drain?.reason ?? targetsLine(state)}`;
    case 'draining':
      return `Draining for ${state.drain?.reason ?? targetsLine(state)}: ${waitingFor(state)}`;
    case 'held':
      return `Held on image ${shorten(state.buildId)}, not following ${targetsLine(state)}: ${holdOf(state, clock) ?? ''}`;
    case 'ready': {
      const lost = Object.keys(state.unreachable);
      return `Ready: ${toolchainsLine(state)}${lost.length === 0 ? '' : `; cannot look at ${lost.join(', ')}`}`;
    }
    default:
      return word satisfies never;
  }
}

function wordOf(state: MonitorState, clock: Clock): Status['state'] {
  if (state.phase === 'rebooting') return 'rebooting';
  if (state.drain !== undefined) return 'draining';
  if (state.phase === 'starting') return 'starting';
  return holdOf(state, clock) === undefined ? 'ready' : 'held';
}

function toolchainsLine(state: MonitorState): string {
  const all = Object.values(state.toolchains);
  if (all.length === 0) return 'no toolchain is configured';
  return all.map(toolchainLine).join('; ');
}

function toolchainLine(one: ToolchainState): string {
  const version = one.version === undefined ? '' : ` ${one.version}`;
  const name = `toolchain ${one.name}${version}`;
  if (one.stage === 'failed')
    return `${name} failed (${one.failures}×): ${one.trouble?.error ?? 'its list has changed'}`;
  if (one.stage !== 'ready') return `${name} ${one.stage}`;
  const { agent } = one;
  if (!one.wantsAgent) return `${name} ready, no controllers`;
  if (!one.hasAgent) return `${name} ready, without an agent`;
  if (agent.state === 'failed') return `${name} ready, agent failed: ${agent.trouble?.error ?? ''}`;
  if (agent.state !== 'ready' || agent.report === undefined) return `${name} ready, agent ${agent.state}`;
  const count = agent.report.tasks.length;
  return `${name} ready, agent ${agent.report.state}, ${count} ${count === 1 ? 'task' : 'tasks'}`;
}

function waitingFor(state: MonitorState): string {
  const parts: string[] = [];
  for (const { name, agent } of Object.values(state.toolchains)) {
    if (agent.state !== 'ready' && agent.state !== 'starting') continue;
    const tasks = agent.report?.tasks.length ?? 0;
    const undelivered = agent.report?.undelivered ?? 0;
    if (tasks > 0) parts.push(`agent ${name} has ${tasks} ${tasks === 1 ? 'task' : 'tasks'}`);
    else if (undelivered > 0)
      parts.push(`agent ${name} owes ${undelivered} ${undelivered === 1 ? 'result' : 'results'}`);
    else if (agent.report?.state !== 'draining') parts.push(`agent ${name} has not stopped polling yet`);
  }
  return parts.length === 0 ? 'all is quiet' : `waiting, ${parts.join('; ')}`;
}

function targetsLine(state: MonitorState): string {
  return targetsOf(state)
    .map((target) =>
      target
        .split(' ')
        .map((word) => shorten(word))
        .join(' '),
    )
    .join(', ');
}

function toolchainStatus(one: ToolchainState, clock: Clock): ToolchainStatus {
  const trouble = one.trouble ?? one.agent.trouble;
  const isWaiting = one.stage === 'failed' && one.nextTryAtMs !== undefined;
  return {
    ...(one.id === undefined ? {} : { id: one.id }),
    ...(one.version === undefined ? {} : { version: one.version }),
    state: one.stage,
    ...(trouble === undefined ? {} : { error: trouble.error }),
    ...(trouble?.hint === undefined ? {} : { hint: trouble.hint }),
    ...(isWaiting ? { nextTryAt: isoOf(clock.wallMs + Math.max(0, (one.nextTryAtMs ?? 0) - clock.uptimeMs)) } : {}),
    agent: one.agent.state,
    ...(one.agent.report === undefined ? {} : { agentState: one.agent.report }),
  };
}

function tftpStatus({ read, open, peak }: StatsSnapshot): TftpStatus {
  const { results, bytes, repeats } = read;
  return { ...results, bytes, repeats, openNow: open, openAtMost: peak };
}

function problemsOf(state: MonitorState, optionProblems: readonly OptionProblem[]): readonly string[] {
  const problems = optionProblems.map((problem) => {
    const value = problem.value === undefined ? '' : `=${problem.value}`;
    return `kernel option ${problem.name}${value}: ${problem.message}${problem.hint === undefined ? '' : ` (${problem.hint})`}`;
  });
  if (state.stateStorage === 'ram') {
    problems.push('/state is in RAM: keys, undelivered results and the reboot budget do not survive a reboot');
  }
  if (state.budgetProblem !== undefined) problems.push(`reboot budget: ${state.budgetProblem}`);
  for (const [subject, error] of Object.entries(state.unreachable))
    problems.push(`cannot look at ${subject}: ${error}`);
  for (const [key, setback] of Object.entries(state.setbacks)) {
    const hint = setback.hint === undefined ? '' : ` (${setback.hint})`;
    problems.push(`${key} failed (${setback.failures}×): ${setback.error}${hint}`);
  }
  return problems;
}
