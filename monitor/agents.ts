/**
 * What the agents say of themselves (their state files) and what systemd says of them (through the helper).
 */
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import * as z from 'zod';
import { callHelper } from '../helper/client.ts';
import type { Paths } from './paths.ts';
import type { SeenAgent } from './event.ts';
import type { AgentReport } from './state.ts';

/** An agent's tasks, with everything about them, fit into much less. */
const MAX_STATE_BYTES = 256 * 1024;

const REPORT = z.looseObject({
  state: z.string(),
  tasks: z.array(z.unknown()).max(10_000),
  undelivered: z.int().nonnegative(),
});

/**
 * Looks at the agents.
 *
 * @param which.units - those of them that systemd is asked about
 * @throws {HelperError} when systemd cannot be asked
 */
export async function seeAgents(
  { toolchains, units }: { readonly toolchains: readonly string[]; readonly units: readonly string[] },
  paths: Paths,
  signal: AbortSignal,
): Promise<Readonly<Record<string, SeenAgent>>> {
  const agents: Record<string, SeenAgent> = {};
  for (const toolchain of toolchains) {
    const unit = units.includes(toolchain)
      ? await callHelper({ verb: 'agent.state', toolchain }, { socket: paths.helperSocket, signal })
      : undefined;
    const report = parseAgentReport(await readAgentState(join(paths.agentStates, `${toolchain}.json`)));
    agents[toolchain] = {
      ...(unit === undefined ? {} : { unit: unit.state, detail: unit.detail }),
      ...(report === undefined ? {} : { report }),
    };
  }
  return agents;
}

/** Reads an agent's state; undefined when the text is not one. */
function parseAgentReport(text: string): AgentReport | undefined {
  try {
    const result = REPORT.safeParse(JSON.parse(text));
    return result.success ? result.data : undefined;
  } catch {
    return undefined;
  }
}

/** The text of a state file; empty when there is none. The agent runs jobs, so it is read within a bound. */
async function readAgentState(file: string): Promise<string> {
  try {
    await using handle = await open(file, 'r');
    const buffer = Buffer.alloc(MAX_STATE_BYTES);
    const { bytesRead } = await handle.read(buffer, 0, MAX_STATE_BYTES, 0);
    return buffer.toString('utf8', 0, bytesRead);
  } catch {
    return '';
  }
}
