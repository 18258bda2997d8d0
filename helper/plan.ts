/**
 * Decides what a verb changes, from what was found. Nothing is remembered between verbs: what an earlier one, or one
 * that was killed half-way, has left is found again and taken into account.
 */
import { type Container, NSPAWN_ENVIRONMENT, nspawnArgv, nspawnTraces } from '../host/nspawn.ts';
import type { PortElement } from '../host/nft.ts';
import type { TransientUnit } from '../host/systemd.ts';
import {
  type Layout,
  INSIDE_LINK,
  agentUnit,
  bootstrapUnit,
  buildsPath,
  linkName,
  machinePath,
  machineUnit,
  netnsName,
  snapshotPath,
} from './names.ts';
import type { Step } from './step.ts';
import { type Verb, HOST_ADDRESS } from './verb.ts';

type Arguments<N extends Verb['verb']> = Extract<Verb, { readonly verb: N }>;

/** What was found of one build. */
export interface FoundBuild {
  /** ActiveState; `exited` when it has ended well; `absent` */
  readonly unit: string;
  readonly netns: boolean;
  readonly link: boolean;
  readonly snapshot: boolean;
  /** all open ports, of other builds too */
  readonly ports: readonly PortElement[];
}

/** The helper will not do it as things are. */
export class RefusedError extends Error {
  override readonly name = 'RefusedError';
  readonly hint: string | undefined;

  constructor(message: string, hint?: string) {
    super(message);
    this.hint = hint;
  }
}

/** Whether a unit in this ActiveState has, or may have, processes. */
const RUNNING: ReadonlySet<string> = new Set(['active', 'activating', 'deactivating', 'reloading', 'refreshing']);

/**
 * `machine.snapshot`: always ends with a fresh snapshot, so one that is there already goes first.
 *
 * @param found.machine - what btrfs says of the machine; undefined when it is no subvolume
 * @throws {RefusedError} when the machine is missing or writable, or the build runs
 */
export function planSnapshot(
  verb: Arguments<'machine.snapshot'>,
  found: FoundBuild & { readonly machine: { readonly readOnly: boolean } | undefined; readonly buildsFolder: boolean },
  layout: Layout,
): Step[] {
  const source = machinePath(layout, verb.volume, verb.machine);
  const target = snapshotPath(layout, verb.volume, verb.build);
  // Also one that has ended: machine.start would take it for the machine of this snapshot.
  if (found.unit !== 'absent') {
    throw new RefusedError(
      `Cannot snapshot for build ${verb.build}: its unit is there, ${found.unit}`,
      'ask for machine.delete first',
    );
  }
  if (found.machine === undefined) {
    throw new RefusedError(
      `Cannot snapshot machine ${verb.machine}: ${source} is not a btrfs subvolume`,
      `see "btrfs subvolume list ${layout.machines}/${verb.volume}"; a volume is mounted by its label`,
    );
  }
  if (!found.machine.readOnly) {
    throw new RefusedError(
      `Cannot snapshot machine ${verb.machine}: ${source} is writable, so it may be half made`,
      `when it is complete: btrfs property set -t subvol ${source} ro true`,
    );
  }
  return [
    ...(found.buildsFolder ? [] : [{ kind: 'make-folder', path: buildsPath(layout, verb.volume) } as const]),
    ...(found.snapshot ? [{ kind: 'delete-subvolume', path: target } as const] : []),
    { kind: 'snapshot', source, target },
  ];
}

/** `machine.delete`: everything that is there, the processes first. */
export function planDelete(verb: Arguments<'machine.delete'>, found: FoundBuild, layout: Layout): Step[] {
  const unit = machineUnit(verb.build);
  return [
    ...planStop(unit, found.unit),
    ...(found.unit === 'exited' ? [{ kind: 'stop-unit', unit } as const] : []),
    ...(found.unit === 'absent' ? [] : forgetMachine(verb.build)),
    ...removeNetwork(verb.build, found),
    ...found.ports.filter((port) => port.comment === verb.build).map(closing),
    ...(found.snapshot
      ? [{ kind: 'delete-subvolume', path: snapshotPath(layout, verb.volume, verb.build) } as const]
      : []),
  ];
}

/**
 * `machine.start`: a build is started once. When its unit is there, in whatever state, nothing is done: the request may
 * be one whose answer was lost.
 *
 * @param found.resolved - systemd-resolved keeps the list of name servers
 * @throws {RefusedError} when there is no snapshot
 */
export function planStart(
  verb: Arguments<'machine.start'>,
  found: FoundBuild & { readonly resolved: boolean },
  layout: Layout,
): Step[] {
  if (found.unit !== 'absent') return [];
  if (!found.snapshot) {
    throw new RefusedError(
      `Cannot start build ${verb.build}: it has no snapshot on volume ${verb.volume}`,
      'ask for machine.snapshot first',
    );
  }
  const netns = netnsName(verb.build);
  return [
    ...removeNetwork(verb.build, found),
    // An element of another build with this address and port would keep its comment, and go away with that build.
    ...found.ports.filter((port) => port.comment === verb.build || port.address === verb.address).map(closing),
    { kind: 'make-netns', netns },
    {
      kind: 'make-link',
      link: linkName(verb.build),
      bridge: layout.bridge,
      netns,
      inside: INSIDE_LINK,
      address: `${verb.address}/16`,
      gateway: HOST_ADDRESS,
    },
    { kind: 'open-port', build: verb.build, address: verb.address, port: verb.port },
    { kind: 'start-transient', unit: machineService(verb, found.resolved, layout) },
  ];
}

/** `machine.stop` and `bootstrap.stop`: kills a unit's processes at once and waits until it is down. */
export function planStop(unit: string, state: string): Step[] {
  if (!RUNNING.has(state)) return [];
  return [
    { kind: 'kill-unit', unit },
    { kind: 'stop-unit', unit },
  ];
}

/**
 * `bootstrap.start`: one that ran before is run anew; one that runs is left alone.
 *
 * @param found.unit - as in {@link FoundBuild}
 * @throws {RefusedError} when the toolchain's folders are not there
 */
export function planBootstrap(
  verb: Arguments<'bootstrap.start'>,
  found: { readonly unit: string; readonly missingFolders: readonly string[] },
  layout: Layout,
): Step[] {
  const unit = bootstrapUnit(verb.toolchain);
  if (RUNNING.has(found.unit)) return [];
  if (found.missingFolders.length > 0) {
    throw new RefusedError(
      `Cannot bootstrap toolchain ${verb.toolchain}: no folder ${found.missingFolders.join(' and ')}`,
      'make it, owned by the user build, before asking',
    );
  }
  return [
    ...(found.unit === 'exited' ? [{ kind: 'stop-unit', unit } as const] : []),
    ...(found.unit === 'absent' ? [] : [{ kind: 'forget-unit', unit } as const]),
    { kind: 'start-transient', unit: bootstrapService(verb, layout) },
  ];
}

/** The agent's verbs. A failed agent is forgotten first, or its start limit would refuse the start. */
export function planAgent(verb: Arguments<'agent.start' | 'agent.stop' | 'agent.restart'>): Step[] {
  const unit = agentUnit(verb.toolchain);
  switch (verb.verb) {
    case 'agent.start':
      return [
        { kind: 'forget-unit', unit },
        { kind: 'start-unit', unit },
      ];
    case 'agent.restart':
      return [
        { kind: 'forget-unit', unit },
        { kind: 'restart-unit', unit },
      ];
    case 'agent.stop':
      return [{ kind: 'stop-unit', unit }];
    default:
      return verb satisfies never;
  }
}

/** The folders that a bootstrap writes to: its prefix, and its files with the log. */
export function bootstrapFolders(toolchain: string, layout: Layout): readonly string[] {
  return [`${layout.toolchains}/${toolchain}`, `${layout.tftpToolchains}/${toolchain}`];
}

function forgetMachine(build: string): Step[] {
  return [
    { kind: 'forget-unit', unit: machineUnit(build) },
    { kind: 'remove-folders', paths: nspawnTraces(build) },
  ];
}

const closing = ({ address, port }: PortElement): Step => ({ kind: 'close-port', address, port });

/** The link first: deleting its end here ends the other one too, while a namespace may live on in a dying process. */
function removeNetwork(build: string, found: FoundBuild): Step[] {
  return [
    ...(found.link ? [{ kind: 'delete-link', link: linkName(build) } as const] : []),
    ...(found.netns ? [{ kind: 'delete-netns', netns: netnsName(build) } as const] : []),
  ];
}

/** The dynamic loader's file name, by Node's name of the architecture. */
const LOADERS: Readonly<Record<string, string>> = {
  x64: 'ld-linux-x86-64.so.2',
  arm64: 'ld-linux-aarch64.so.1',
};

function machineService(verb: Arguments<'machine.start'>, resolved: boolean, layout: Layout): TransientUnit {
  const agent = `${layout.agents}/${verb.toolchain}`;
  const library = `${layout.runtime}/lib`;
  const container: Container = {
    name: verb.build,
    directory: `${snapshotPath(layout, verb.volume, verb.build)}/root`,
    readOnlyBinds: [layout.runtime, agent],
    resolvConf: resolved ? 'replace-uplink' : 'replace-host',
    environment: {},
    command: [
      // A machine needs no Node of its own, nor a C library that ours would run with.
      `${library}/${LOADERS[process.arch] ?? 'ld.so'}`,
      '--library-path',
      library,
      `${layout.runtime}/node`,
      `${agent}/worker.mjs`,
      '--server',
      HOST_ADDRESS,
      '--port',
      String(verb.port),
      '--prefix',
      `${layout.toolchains}/${verb.toolchain}`,
    ],
  };
  return {
    unit: machineUnit(verb.build),
    description: `Machine of build ${verb.build}`,
    properties: [
      // Not `notify`: nspawn also says STOPPING, after which systemd does not keep the unit of RemainAfterExit, and how
      // it ended could not be asked any more.
      ['Type', 'exec'],
      ['RemainAfterExit', 'yes'],
      ['RuntimeMaxSec', String(verb.timeoutSeconds)],
      ['KillMode', 'mixed'],
      ['TimeoutStopSec', '10'],
      ['Delegate', 'yes'],
      ['DelegateSubgroup', 'supervisor'],
      ['CPUQuota', `${verb.cpus * 100}%`],
      ['MemoryMax', `${verb.memoryMiB}M`],
      ['MemorySwapMax', '0'],
      ['TasksMax', String(verb.tasksMax)],
      // A compiler that runs out of memory is killed, and its make says so in the log; the worker lives to send it.
      ['OOMPolicy', 'continue'],
      ['LimitCORE', '0'],
      ['NetworkNamespacePath', `${layout.netns}/${netnsName(verb.build)}`],
      // What nspawn mounts for itself goes away with it, also when it is killed.
      ['PrivateMounts', 'yes'],
      // A second lock on other machines' addresses, where the kernel can filter by control group.
      ['IPAddressDeny', '169.254.0.0/16'],
      ['IPAddressAllow', HOST_ADDRESS],
      ['IPAddressAllow', verb.address],
      ['DevicePolicy', 'closed'],
      ['DeviceAllow', 'char-pts rw'],
      ['StandardInput', 'null'],
    ],
    environment: NSPAWN_ENVIRONMENT,
    command: nspawnArgv(container),
  };
}

function bootstrapService(verb: Arguments<'bootstrap.start'>, layout: Layout): TransientUnit {
  const folders = bootstrapFolders(verb.toolchain, layout);
  return {
    unit: bootstrapUnit(verb.toolchain),
    description: `Bootstrap of toolchain ${verb.toolchain}`,
    properties: [
      ['Type', 'exec'],
      ['RemainAfterExit', 'yes'],
      ['RuntimeMaxSec', String(verb.timeLimitSeconds)],
      ['TimeoutStopSec', '10'],
      ['User', 'build'],
      ['Group', 'build'],
      // With PrivateTmp this /tmp is new and empty, and systemd removes it afterwards.
      ['WorkingDirectory', '/tmp'],
      ['PrivateTmp', 'yes'],
      ['PrivateDevices', 'yes'],
      ['ProtectSystem', 'strict'],
      ...folders.map((folder) => ['ReadWritePaths', folder] as const),
      // A toolchain has no business with the helper's socket, nor with what the agents are doing.
      ['InaccessiblePaths', '-/run/buildos'],
      ['ProtectControlGroups', 'yes'],
      ['ProtectKernelModules', 'yes'],
      ['ProtectKernelTunables', 'yes'],
      ['NoNewPrivileges', 'yes'],
      ['CapabilityBoundingSet', ''],
      ['RestrictSUIDSGID', 'yes'],
      ['MemoryMax', '75%'],
      ['TasksMax', '4096'],
      ['LimitCORE', '0'],
      ['StandardInput', 'null'],
    ],
    environment: { HOME: '/tmp', ...verb.environment },
    // The log is opened by the user build. StandardOutput=append: would have root open it, in a folder of build's,
    // where the name may be a link to any file of the system.
    command: [
      '/bin/sh',
      '-c',
      'log=$1; shift; exec "$@" >>"$log" 2>&1',
      'sh',
      bootstrapLog(verb, layout),
      ...verb.command,
    ],
  };
}

function bootstrapLog(verb: Arguments<'bootstrap.start'>, layout: Layout): string {
  return `${layout.tftpToolchains}/${verb.toolchain}/bootstrap.log`;
}
