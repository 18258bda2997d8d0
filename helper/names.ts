/**
 * How a build, a machine and a toolchain are called in each of the places where the helper deals with them. This is the
 * only file that turns a name from a request into a path, a unit or a link, so no request can name one.
 */
import { createHash } from 'node:crypto';

/** The folders of a host. Tests use others; on a host it is {@link HOST_LAYOUT}. */
export interface Layout {
  /** holds a folder for each volume */
  readonly machines: string;
  readonly agents: string;
  readonly toolchains: string;
  readonly tftpToolchains: string;
  /** our Node with its loader and libraries, seen in machines at the same path */
  readonly runtime: string;
  readonly netns: string;
  /** the machines' bridge */
  readonly bridge: string;
}

/** The folders of a build host. */
export const HOST_LAYOUT: Layout = {
  machines: '/build/machines',
  agents: '/build/agents',
  toolchains: '/build/toolchains',
  tftpToolchains: '/build/tftp/toolchains',
  runtime: '/usr/lib/buildos',
  netns: '/run/netns',
  bridge: 'br1',
};

/** What every name that belongs to a build starts with, in namespaces and link aliases. */
const PREFIX = 'buildos-';
const UNIT = /^buildos-machine-(.+)\.service$/;

/** The glob of all machine units. */
export const MACHINE_UNITS = 'buildos-machine-*.service';

/** The folder in a volume that holds the builds' snapshots. */
export const BUILDS_FOLDER = '.builds';

/** The link's name inside the machine. */
export const INSIDE_LINK = 'host0';

/** The unit that runs a build's machine. */
export function machineUnit(build: string): string {
  return `buildos-machine-${build}.service`;
}

/** The build of a machine unit. */
export function buildOfUnit(unit: string): string | undefined {
  return UNIT.exec(unit)?.[1];
}

/** The network namespace of a build. */
export function netnsName(build: string): string {
  return `${PREFIX}${build}`;
}

/** The build of a network namespace, or of a link's alias, which is the same text. */
export function buildOfNetns(name: string): string | undefined {
  return name.startsWith(PREFIX) && name.length > PREFIX.length ? name.slice(PREFIX.length) : undefined;
}

/**
 * The host's end of a build's link. An interface name has at most 15 bytes (IFNAMSIZ - 1) and a build's name may have
 * 32, so it is a digest; the link's alias tells the build.
 */
export function linkName(build: string): string {
  return `vb${createHash('sha256').update(build).digest('hex').slice(0, 12)}`;
}

/** A machine's own subvolume. */
export function machinePath(layout: Layout, volume: string, machine: string): string {
  return `${layout.machines}/${volume}/${machine}`;
}

/** The folder of a volume's snapshots. */
export function buildsPath(layout: Layout, volume: string): string {
  return `${layout.machines}/${volume}/${BUILDS_FOLDER}`;
}

/** A build's snapshot. */
export function snapshotPath(layout: Layout, volume: string, build: string): string {
  return `${buildsPath(layout, volume)}/${build}`;
}

/** The unit that bootstraps a toolchain. */
export function bootstrapUnit(toolchain: string): string {
  return `buildos-bootstrap-${toolchain}.service`;
}

/** The unit of a toolchain's agent. */
export function agentUnit(toolchain: string): string {
  return `buildos-agent@${toolchain}.service`;
}
