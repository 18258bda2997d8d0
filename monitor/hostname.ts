/**
 * The host's name when no kernel option gives one: from the lease of systemd-networkd, else from the MAC address.
 */
import { readFile, readdir } from 'node:fs/promises';
import { hostname, networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { callHelper } from '../helper/client.ts';
import type { Paths } from './paths.ts';

const UPLINK = 'br0';

/**
 * The host name in a lease file of networkd (`/run/systemd/netif/leases/<ifindex>`, lines `NAME=value`).
 *
 * @returns the first label in lower case; undefined when the lease gives none that is one
 */
export function parseLeaseHostname(text: string): string | undefined {
  const value = /^HOSTNAME="?([^"\n]*)"?$/m.exec(text)?.[1]?.split('.')[0]?.toLowerCase();
  return value !== undefined && /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/.test(value) ? value : undefined;
}

/**
 * A name made of a MAC address: `52:54:00:12:34:56` → `buildos-525400123456`.
 *
 * @returns undefined for what is no MAC address, and for that of the loopback
 */
export function hostnameFromMac(mac: string): string | undefined {
  const digits = mac.toLowerCase().replaceAll(':', '');
  return /^[0-9a-f]{12}$/.test(digits) && digits !== '000000000000' ? `buildos-${digits}` : undefined;
}

/**
 * Names the host through the helper.
 *
 * @param orElseMac - do not wait for a lease any longer
 * @returns the name; undefined: there is none to be had yet
 * @throws {HelperError}
 */
export async function nameHost(paths: Paths, orElseMac: boolean, signal: AbortSignal): Promise<string | undefined> {
  const name = (await findLeaseHostname(paths.leases)) ?? (orElseMac ? findMacHostname() : undefined);
  if (name === undefined || name === hostname()) return name;
  await callHelper({ verb: 'hostname.set', name }, { socket: paths.helperSocket, signal });
  return name;
}

async function findLeaseHostname(folder: string): Promise<string | undefined> {
  const files = (await readdir(folder).catch(() => [])).sort((a, b) => Number(a) - Number(b));
  for (const file of files.slice(0, 64)) {
    const name = parseLeaseHostname(await readFile(join(folder, file), 'utf8').catch(() => ''));
    if (name !== undefined) return name;
  }
  return undefined;
}

function findMacHostname(): string | undefined {
  const interfaces = networkInterfaces();
  const all = [...(interfaces[UPLINK] ?? []), ...Object.values(interfaces).flatMap((addresses) => addresses ?? [])];
  for (const { internal, mac } of all) {
    const name = internal ? undefined : hostnameFromMac(mac);
    if (name !== undefined) return name;
  }
  return undefined;
}
