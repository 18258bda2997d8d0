/** What an agent may use and how long it waits: from the host's options, its CPUs and its memory. Pure. */
import * as z from 'zod';
import type { ToolchainOptions } from '../host/kernel-cmdline.ts';
import type { Limits } from '../machines/step.ts';

/** What the host has. */
export interface HostSize {
  readonly cpus: number;
  readonly memoryMiB: number;
  /** Size of the file system of `/build/tftp`. */
  readonly tftpBytes: number;
  /** Agents that share it. */
  readonly agents: number;
}

/** How much a machine may write to the host. */
export interface Quotas {
  readonly resultBytes: number;
  readonly logBytes: number;
  readonly uploadBytes: number;
}

/** Waits, all in ms. */
export interface Times {
  /** A machine that has not asked for its task by then is stopped. */
  readonly startMs: number;
  /** A build that has no result by then is stopped. */
  readonly taskMs: number;
  /** Between questions that bring no task: from the first to the second, growing. */
  readonly idleMs: readonly [number, number];
  /** The same after errors. */
  readonly errorMs: readonly [number, number];
  /** Between looks at the drain file. */
  readonly drainMs: number;
  /** One exchange with a controller. */
  readonly requestMs: number;
  /** One upload to a controller. */
  readonly uploadMs: number;
  /** For the last deliveries when the agent is told to stop. */
  readonly stopMs: number;
}

/** All of it. */
export interface Settings {
  readonly instances: number;
  readonly limits: Limits;
  /** CPUs of the host: for a task that gets all. */
  readonly allCpus: number;
  readonly quotas: Quotas;
  readonly times: Times;
}

/** The waits on a build host. Starting a container takes seconds even where the CPU is emulated; minutes mean trouble. */
export const HOST_TIMES: Times = {
  startMs: 180_000,
  taskMs: 4 * 3600_000,
  idleMs: [2000, 30_000],
  errorMs: [5000, 300_000],
  drainMs: 1000,
  requestMs: 30_000,
  uploadMs: 15 * 60_000,
  stopMs: 5000,
};

const pair = z.tuple([z.number().positive(), z.number().positive()]).readonly();
const timesSchema = z.object({
  times: z.strictObject({
    startMs: z.number().positive(),
    taskMs: z.number().positive(),
    idleMs: pair,
    errorMs: pair,
    drainMs: z.number().positive(),
    requestMs: z.number().positive(),
    uploadMs: z.number().positive(),
    stopMs: z.number().positive(),
  }),
});

/**
 * Reads other waits than those of a host.
 *
 * @param json - an object with `times`, every name of {@link Times} in it
 * @throws {z.ZodError}
 */
export function parseTimes(json: string): Times {
  return timesSchema.parse(JSON.parse(json)).times;
}

const MIB = 1024 * 1024;

/** A machine with less than this cannot compile much: fewer machines instead. */
const MACHINE_MEMORY_MIB = 1024;
/** The least that a machine is started with. */
const MACHINE_MEMORY_MIN_MIB = 256;

/**
 * Divides the host among its machines.
 *
 * @param options - what was asked for; wins over what is computed, but for more memory than the host has
 */
export function settingsFor(options: ToolchainOptions, size: HostSize, times: Times): Settings {
  const agents = Math.max(1, size.agents);
  // A quarter and 256 MiB are the system's: programs in RAM, monitor, agent, and /build/tftp, which is RAM as well.
  const memoryMiB = Math.floor(Math.max(MACHINE_MEMORY_MIN_MIB, size.memoryMiB * 0.75 - 256) / agents);
  const cpus = Math.max(1, Math.floor(size.cpus / agents));
  const byMemory = Math.max(1, Math.floor(memoryMiB / MACHINE_MEMORY_MIB));
  const instances = options.instances ?? Math.max(1, Math.min(Math.ceil(cpus / 2), byMemory));
  const share = Math.max(MACHINE_MEMORY_MIN_MIB, Math.floor(memoryMiB / instances));
  const tftpShare = size.tftpBytes / (agents * instances);
  return {
    instances,
    allCpus: size.cpus,
    limits: {
      cpus: options.ncpu ?? Math.max(1, Math.floor(cpus / instances)),
      memoryMiB: Math.min(options.ramMiB ?? share, size.memoryMiB),
      tasksMax: 4096,
      timeoutSeconds: Math.ceil(times.taskMs / 1000) + 60,
    },
    quotas: {
      // Less than a controller takes in one request, so that there is room for what is around it.
      resultBytes: 14_000_000,
      logBytes: Math.max(MIB, Math.min(64 * MIB, Math.floor(tftpShare / 8))),
      uploadBytes: Math.max(MIB, Math.min(512 * MIB, Math.floor(tftpShare / 2))),
    },
    times,
  };
}

/**
 * The next pause of a growing row, with spread so that hosts that booted together do not ask together.
 *
 * @param count - how many in a row brought nothing, from 1
 * @param random - 0 to 1
 */
export function pauseMs([first, last]: readonly [number, number], count: number, random: number): number {
  const grown = Math.min(last, first * 1.5 ** Math.min(count - 1, 64));
  return Math.round(grown * (0.75 + random / 2));
}
