/** Where everything of an agent is, in one place, so that a test can move all of it. */
import * as z from 'zod';

/** Files, folders and addresses that an agent uses. */
export interface Paths {
  readonly hostJson: string;
  /** The monitor's status: has the toolchain's version. */
  readonly status: string;
  /** Folder of the volumes. */
  readonly machines: string;
  /** The toolchain's files; `toolchain.tar` among them. */
  readonly toolchain: string;
  /** A folder per build, readable over TFTP. */
  readonly builds: string;
  /** Key, running tasks, undelivered results: kept over a reboot when there is a state disk. */
  readonly state: string;
  /** Where tasks and results go when `state` cannot be written. */
  readonly ramTasks: string;
  readonly ramResults: string;
  /** What the agent is doing, for the monitor. */
  readonly stateFile: string;
  /** Exists while no task may be taken. */
  readonly drain: string;
  readonly helperSocket: string;
  /** Where the TFTP instances of machines listen. */
  readonly tftpAddress: string;
  /** The address from which every machine's TFTP comes; without it from its own, see machines/name.ts. */
  readonly tftpPeer?: string;
}

/** The paths on a build host. */
export function hostPaths(toolchain: string): Paths {
  return {
    hostJson: '/run/buildos/host.json',
    status: '/build/tftp/status.json',
    machines: '/build/machines',
    toolchain: `/build/tftp/toolchains/${toolchain}`,
    builds: `/build/tftp/builds/${toolchain}`,
    state: `/state/agent/${toolchain}`,
    ramTasks: `/run/buildos/agents/${toolchain}-tasks`,
    ramResults: `/run/buildos/agents/${toolchain}-results`,
    stateFile: `/run/buildos/agents/${toolchain}.json`,
    drain: '/run/buildos/monitor/drain',
    helperSocket: '/run/buildos/helper.sock',
    tftpAddress: '169.254.111.222',
  };
}

const schema = z.strictObject({
  hostJson: z.string(),
  status: z.string(),
  machines: z.string(),
  toolchain: z.string(),
  builds: z.string(),
  state: z.string(),
  ramTasks: z.string(),
  ramResults: z.string(),
  stateFile: z.string(),
  drain: z.string(),
  helperSocket: z.string(),
  tftpAddress: z.string(),
  tftpPeer: z.string().exactOptional(),
});

/**
 * Reads other paths than those of a host.
 *
 * @param json - an object with `paths`, every name of {@link Paths} in it
 * @throws {z.ZodError}
 */
export function parsePaths(json: string): Paths {
  return z.object({ paths: schema }).parse(JSON.parse(json)).paths;
}
