/**
 * A host's own account of itself: `status.json` of its monitor, read over TFTP from inside the lab with curl.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { text } from '../connections/connection.ts';
import { DeadlineError } from './event-log.ts';
import type { Lab } from './lab.ts';

/** What the lab looks at; the file has more. */
export interface HostStatus {
  readonly buildId: string;
  readonly state: string;
  readonly status: string;
  readonly uptimeMs: number;
  readonly toolchains: Readonly<Record<string, ToolchainStatus>>;
  /** What the agents are building. */
  readonly tasks: readonly RunningTask[];
  /** Names and times since the kernel's start, of the monitor and the agents. */
  readonly events: readonly { readonly name: string; readonly uptimeMs: number }[];
}

export interface ToolchainStatus {
  readonly state: string;
  readonly error?: string | undefined;
  readonly hint?: string | undefined;
  readonly agent?: string | undefined;
}

export interface RunningTask {
  readonly toolchain: string;
  readonly build: string;
  readonly name: string;
}

/** Where a build's live log is on the host's TFTP server. */
export function logPath(task: RunningTask): string {
  return `builds/${task.toolchain}/${task.build}/log`;
}

const eventsSchema = z.array(z.object({ name: z.string(), uptimeMs: z.number() }));

const statusSchema = z.object({
  buildId: z.string(),
  state: z.string(),
  status: z.string(),
  uptimeMs: z.number(),
  toolchains: z.record(
    z.string(),
    z.object({
      state: z.string(),
      error: z.string().optional(),
      hint: z.string().optional(),
      agent: z.string().optional(),
      agentState: z
        .object({
          tasks: z.array(z.object({ build: z.string(), name: z.string() })).default([]),
          events: eventsSchema.default([]),
        })
        .optional(),
    }),
  ),
  events: eventsSchema,
});

/** A status, and when it was read: `readAtMs - uptimeMs` is the kernel's start on this machine's clock. */
export interface StatusReading extends HostStatus {
  readonly readAtMs: number;
}

/** @throws {SyntaxError} or zod's error when the text is no status */
function parseStatus(json: string, readAtMs: number): StatusReading {
  const { toolchains, events, ...rest } = statusSchema.parse(JSON.parse(json));
  const agents = Object.entries(toolchains).flatMap(([toolchain, { agentState }]) =>
    agentState === undefined ? [] : [{ toolchain, ...agentState }],
  );
  return {
    ...rest,
    readAtMs,
    toolchains,
    tasks: agents.flatMap(({ toolchain, tasks }) => tasks.map(({ build, name }) => ({ toolchain, build, name }))),
    events: [...events, ...agents.flatMap((agent) => agent.events)],
  };
}

/** What curl ends with when the server says "file not found" (curl(1), exit codes). */
const NOT_FOUND = 68;

/**
 * Reads a file of the host over TFTP, with curl: a client that is not ours.
 *
 * Asks again, `tries` times in all, when no whole answer comes: an emulated host can be busy for longer than curl waits.
 *
 * @returns undefined when it is not there, or nobody answers
 */
export async function readHostFile(
  lab: Lab,
  path: string,
  options: { readonly port?: number; readonly tries?: number } = {},
): Promise<string | undefined> {
  const url = `tftp://${lab.port(options.port).address}/${path}`;
  const argv = ['curl', '--silent', '--connect-timeout', '3', '--max-time', '30', '--tftp-blksize', '1428', url];
  for (let tries = options.tries ?? 3; tries > 0; tries -= 1) {
    const result = await lab.run(argv, { okStatus: 'any', timeoutMs: 40_000 });
    if (result.status === 0) return text(result);
    if (result.status === NOT_FOUND) break;
  }
  return undefined;
}

/** Reads the status; undefined while there is none. */
export async function readStatus(
  lab: Lab,
  options: { readonly port?: number } = {},
): Promise<StatusReading | undefined> {
  const json = await readHostFile(lab, 'status.json', { ...options, tries: 1 });
  if (json === undefined) return undefined;
  try {
    return parseStatus(json, Date.now());
  } catch {
    return undefined; // half written, or of another version; the deadline of who waits decides
  }
}

/**
 * Reads the status again and again until it is as wanted.
 *
 * @param onStatus - gets every status that says something new
 * @throws {DeadlineError} naming the last status seen
 */
export async function waitForStatus(
  lab: Lab,
  wants: (status: StatusReading) => boolean,
  options: {
    readonly what: string;
    readonly timeoutMs: number;
    readonly signal?: AbortSignal;
    readonly port?: number;
    readonly onStatus?: (status: StatusReading) => void;
  },
): Promise<StatusReading> {
  const deadline = Date.now() + options.timeoutMs;
  let last: StatusReading | undefined;
  while (Date.now() < deadline) {
    options.signal?.throwIfAborted();
    const status = await readStatus(lab, options.port === undefined ? {} : { port: options.port });
    if (status !== undefined) {
      if (status.status !== last?.status) options.onStatus?.(status);
      last = status;
      if (wants(status)) return status;
    }
    await sleep(1000, undefined, options.signal === undefined ? {} : { signal: options.signal });
  }
  const seen = last === undefined ? 'no status was ever read' : `the last status: ${last.state}, ${last.status}`;
  throw new DeadlineError(`${options.what} (${seen})`, options.timeoutMs);
}
