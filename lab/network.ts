/**
 * The lab's network: a namespace that has no way out, a bridge, and a tap for each guest.
 *
 *     namespace buildos-lab-<pid>-<n>
 *     ┌───────────────────────────────────────────────┐
 *     │ lab0  10.77.0.1/24, fd00:77::1/64   (bridge)  │
 *     │  ├─ lab-up   keeps the bridge up without taps │
 *     │  ├─ tap1     guest 1, 10.77.0.11              │
 *     │  └─ tap2     guest 2, 10.77.0.12              │
 *     └───────────────────────────────────────────────┘
 */
import type { DnsmasqNetwork } from '../host/dnsmasq.ts';

export const LAB_ADDRESS = '10.77.0.1';
const LAB_BRIDGE = 'lab0';
const LAB_PREFIX6 = 'fd00:77::';

/** Namespaces are named after the process that owns them, so that what a dead one left can be told from a live one's. */
const NAMESPACE = /^buildos-lab-(\d+)-(\d+)$/;

/** A place for a guest. */
export interface LabPort {
  /** From 1. */
  readonly index: number;
  readonly tap: string;
  readonly mac: string;
  /** What DHCP gives it. */
  readonly address: string;
  readonly hostname: string;
}

/** @param index - 1 to 89 */
export function labPort(index: number): LabPort {
  return {
    index,
    tap: `tap${index}`,
    mac: `52:54:00:77:00:${index.toString(16).padStart(2, '0')}`,
    address: `10.77.0.${10 + index}`,
    hostname: `host-${index}`,
  };
}

export const namespaceName = (pid: number, serial: number): string => `buildos-lab-${pid}-${serial}`;

/**
 * The namespaces whose process is gone.
 *
 * @param listing - output of `ip netns list`: a name a line, perhaps with ` (id: 3)` behind it
 * @param isAlive - whether a process with this id runs
 */
export function staleNamespaces(listing: string, isAlive: (pid: number) => boolean): string[] {
  return listing
    .split('\n')
    .map((line) => line.split(' ')[0] ?? '')
    .filter((name) => {
      const pid = NAMESPACE.exec(name)?.[1];
      return pid !== undefined && !isAlive(Number(pid));
    });
}

/** What makes the network inside its namespace: commands for `ip -batch`. */
export function planNetwork(ports: readonly LabPort[]): string {
  const lines = [
    'link set lo up',
    // No spanning tree: a port forwards at once. No multicast snooping: nobody sends the queries that it needs.
    `link add ${LAB_BRIDGE} type bridge stp_state 0 mcast_snooping 0`,
    // A cable plugged in at both ends: the bridge has a carrier, and so its addresses work, before any guest is there.
    'link add lab-up type veth peer name lab-down',
    'link set lab-down up',
    `link set lab-up master ${LAB_BRIDGE} up`,
    `address add ${LAB_ADDRESS}/24 dev ${LAB_BRIDGE}`,
    `address add ${LAB_PREFIX6}1/64 dev ${LAB_BRIDGE} nodad`,
    `link set ${LAB_BRIDGE} up`,
    ...ports.flatMap((port) => [`tuntap add ${port.tap} mode tap`, `link set ${port.tap} master ${LAB_BRIDGE} up`]),
  ];
  return `${lines.join('\n')}\n`;
}

/** DHCP for the network: a fixed address for each port, a pool for anything else. */
export function labDhcp(
  ports: readonly LabPort[],
  leaseFile: string,
  boot: Pick<DnsmasqNetwork, 'bootFiles' | 'bootConfig'> = {},
): DnsmasqNetwork {
  return {
    interface: LAB_BRIDGE,
    address: LAB_ADDRESS,
    range: ['10.77.0.150', '10.77.0.199'],
    advertise: LAB_PREFIX6,
    hosts: ports.map((port) => ({ mac: port.mac, address: port.address, name: port.hostname })),
    leaseFile,
    ...boot,
  };
}
