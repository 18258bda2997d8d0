/**
 * Names and numbers of builds: what a build is called, and which address and TFTP port its machine gets. Pure.
 */
import { createHash } from 'node:crypto';

/** The address and the port of one build; the host's side of the pair is fixed. */
export interface Place {
  /** Of the machine, inside 169.254.0.0/16. */
  readonly address: string;
  /** Of its own TFTP instance on the host. */
  readonly port: number;
}

/**
 * The ports of machines. Below those that Linux hands out by itself (from 32768), and so chosen that the address made of a
 * port is never the host's own, 169.254.111.222, nor one of the first or last 256 that RFC 3927 §2.1 keeps.
 */
export const MACHINE_PORTS = { first: 20_000, last: 27_999 } as const;

/** A build's name may be this long: it becomes a host name and part of a unit's. */
const BUILD_NAME_MAX = 32;

/**
 * The name of a build: `<tc>-<n>`.
 *
 * A toolchain name with other characters than letters, digits and dashes, or a long one, is made to fit, with some digits
 * of its digest so that two toolchains never share a name.
 *
 * @param number - from 1
 */
export function buildName(toolchain: string, number: number): string {
  return `${buildPrefix(toolchain)}-${number}`;
}

/** Whether a build's name is one that {@link buildName} gives for this toolchain. */
export function isBuildOf(toolchain: string, build: string): boolean {
  return buildNumber(toolchain, build) !== undefined;
}

/** The number in a build's name, when it is one of this toolchain. */
export function buildNumber(toolchain: string, build: string): number | undefined {
  const prefix = `${buildPrefix(toolchain)}-`;
  const digits = build.startsWith(prefix) ? build.slice(prefix.length) : '';
  return /^[1-9]\d{0,14}$/.test(digits) ? Number(digits) : undefined;
}

/** The number for the next build: one more than any that is known. */
export function nextBuildNumber(toolchain: string, known: Iterable<string>): number {
  let last = 0;
  for (const build of known) last = Math.max(last, buildNumber(toolchain, build) ?? 0);
  return last + 1;
}

/**
 * The address that belongs to a port: the port's two bytes. Whoever holds the port alone holds the address alone.
 *
 * @throws {RangeError} for a port outside {@link MACHINE_PORTS}
 */
export function machineAddress(port: number): string {
  if (!Number.isInteger(port) || port < MACHINE_PORTS.first || port > MACHINE_PORTS.last) {
    throw new RangeError(
      `Cannot make an address of port ${port}: ${MACHINE_PORTS.first} to ${MACHINE_PORTS.last} only`,
    );
  }
  return `169.254.${port >> 8}.${port & 255}`;
}

/**
 * The ports to try for a build, in order: the first that can be bound is its own. Different toolchains begin at different
 * places, so that their agents seldom meet.
 */
export function* portsFor(toolchain: string, number: number): Generator<number> {
  const count = MACHINE_PORTS.last - MACHINE_PORTS.first + 1;
  const start = createHash('sha256').update(toolchain).digest().readUInt16BE() + number;
  for (let step = 0; step < count; step += 1) yield MACHINE_PORTS.first + ((start + step) % count);
}

function buildPrefix(toolchain: string): string {
  // 16 characters are left for the number and its dash.
  if (/^[a-z0-9](?:[a-z0-9-]*[a-z0-9])?$/.test(toolchain) && toolchain.length <= BUILD_NAME_MAX - 16) return toolchain;
  const plain = toolchain
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, '-')
    .replaceAll(/^-|-$/g, '');
  const digest = createHash('sha256').update(toolchain).digest('hex').slice(0, 6);
  return `${plain.slice(0, BUILD_NAME_MAX - 16 - 7).replace(/-$/, '')}-${digest}`.replace(/^-/, '');
}
