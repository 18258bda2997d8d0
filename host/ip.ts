/**
 * iproute2: network namespaces, links (veth, bridge, tap), addresses, routes.
 *
 * Every function takes the network namespace to work in as `netns`; without it, the connection's own. "Make" functions
 * fail when the thing exists: look first with the `find` and `list` functions.
 */
import { type Connection, text } from '../connections/connection.ts';

const TIMEOUT_MS = 20_000;

/** A network interface as `ip -j -d link` tells it. */
export interface Link {
  readonly name: string;
  readonly up: boolean;
  /** MAC address */
  readonly address?: string;
  /** `bridge`, `veth`, `tun`, …; absent for physical ones */
  readonly kind?: string;
  /** the bridge it is a port of */
  readonly master?: string;
  /** free text given with {@link makeVeth} or `ip link set alias` */
  readonly alias?: string;
}

/** Makes a named network namespace with its loopback up; it is a file in /run/netns. */
export async function makeNetns(on: Connection, name: string): Promise<void> {
  await ip(on, undefined, ['netns', 'add', name]);
  await ip(on, name, ['link', 'set', 'lo', 'up']);
}

/** Takes a namespace's name away; it ends with its last process, and with it its links. */
export async function deleteNetns(on: Connection, name: string): Promise<void> {
  await ip(on, undefined, ['netns', 'delete', name]);
}

/** Names of all network namespaces, in ip's order. */
export async function listNetns(on: Connection): Promise<readonly string[]> {
  const rows = await ipJson(on, undefined, ['netns', 'list']);
  return rows.map((row) => row['name']).filter((name) => typeof name === 'string');
}

/** All interfaces. */
export async function listLinks(on: Connection, netns?: string): Promise<readonly Link[]> {
  return parseLinks(await ipJson(on, netns, ['-details', 'link', 'show']));
}

/**
 * Makes a veth pair: one end here, down, the other in a namespace.
 *
 * @param options.alias - told by {@link listLinks}; at most 255 bytes
 */
export async function makeVeth(
  on: Connection,
  options: {
    readonly name: string;
    readonly peer: string;
    readonly peerNetns: string;
    readonly alias?: string;
    readonly netns?: string;
  },
): Promise<void> {
  const peer = ['peer', 'name', options.peer, 'netns', options.peerNetns];
  await ip(on, options.netns, ['link', 'add', options.name, 'type', 'veth', ...peer]);
  if (options.alias !== undefined) {
    await ip(on, options.netns, ['link', 'set', options.name, 'alias', options.alias]);
  }
}

/**
 * Makes a link a port of a bridge, and sets it up.
 *
 * @param options.isolated - it exchanges frames with the bridge itself only, not with other isolated ports
 */
export async function addPort(
  on: Connection,
  options: { readonly link: string; readonly bridge: string; readonly isolated?: boolean; readonly netns?: string },
): Promise<void> {
  await ip(on, options.netns, ['link', 'set', options.link, 'master', options.bridge]);
  if (options.isolated === true) {
    await ip(on, options.netns, ['link', 'set', options.link, 'type', 'bridge_slave', 'isolated', 'on']);
  }
  await ip(on, options.netns, ['link', 'set', options.link, 'up']);
}

/** Sets a link up. */
export async function setUp(on: Connection, link: string, netns?: string): Promise<void> {
  await ip(on, netns, ['link', 'set', link, 'up']);
}

/** Keeps the kernel from giving a link an IPv6 link-local address when it comes up. */
export async function withoutLinkLocal6(on: Connection, link: string, netns?: string): Promise<void> {
  await ip(on, netns, ['link', 'set', link, 'addrgenmode', 'none']);
}

/** Deletes a link, of a veth pair both ends. */
export async function deleteLink(on: Connection, link: string, netns?: string): Promise<void> {
  await ip(on, netns, ['link', 'delete', link]);
}

/** Gives a link an address, such as `169.254.1.2/16`; an address it has already is no error. */
export async function addAddress(on: Connection, link: string, address: string, netns?: string): Promise<void> {
  await ip(on, netns, ['address', 'replace', address, 'dev', link]);
}

/** Sets the IPv4 default route. */
export async function setDefaultRoute(on: Connection, gateway: string, netns?: string): Promise<void> {
  await ip(on, netns, ['route', 'replace', 'default', 'via', gateway]);
}

/** Takes what {@link listLinks} gets apart; rows without a name are left out. */
export function parseLinks(rows: readonly Readonly<Record<string, unknown>>[]): readonly Link[] {
  return rows.flatMap((row) => {
    const name = row['ifname'];
    if (typeof name !== 'string') return [];
    const { address, master, ifalias: alias, flags, linkinfo } = row;
    const kind: unknown = typeof linkinfo === 'object' && linkinfo !== null && Reflect.get(linkinfo, 'info_kind');
    const link: Link = {
      name,
      up: Array.isArray(flags) && flags.includes('UP'),
      ...(typeof address === 'string' && { address }),
      ...(typeof kind === 'string' && { kind }),
      ...(typeof master === 'string' && { master }),
      ...(typeof alias === 'string' && { alias }),
    };
    return [link];
  });
}

async function ip(on: Connection, netns: string | undefined, words: readonly string[]): Promise<string> {
  const where = netns === undefined ? [] : ['-netns', netns];
  return text(await on.run(['ip', ...where, ...words], { timeoutMs: TIMEOUT_MS }));
}

/** Rows of `ip -json`; older versions print nothing, and newer ones `{}` in a list, where there is nothing to tell. */
async function ipJson(
  on: Connection,
  netns: string | undefined,
  words: readonly string[],
): Promise<readonly Readonly<Record<string, unknown>>[]> {
  const answer = await ip(on, netns, ['-json', ...words]);
  const rows: unknown = answer.trim() === '' ? [] : JSON.parse(answer);
  if (!Array.isArray(rows)) throw new Error(`Cannot read the answer of "ip ${words.join(' ')}": it is not a list`);
  return rows.filter((row) => typeof row === 'object' && row !== null);
}
