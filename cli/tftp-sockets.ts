/**
 * Sockets that systemd hands over (sd_listen_fds(3)): whether each is one that TFTP can be served on. What a descriptor is
 * stands in /proc: its link names an inode, and the tables of /proc/net say of which protocol that is.
 */
import { readFileSync, readlinkSync } from 'node:fs';

/** A socket handed over cannot be used. */
export class SocketError extends Error {
  readonly hint: string;

  constructor(fd: number, reason: string, hint: string) {
    super(`Cannot serve TFTP on descriptor ${fd} that systemd handed over: ${reason}`);
    this.name = 'SocketError';
    this.hint = hint;
  }
}

/** Tables of /proc/net, the column of the inode in each, and what they hold. */
const TABLES = [
  { file: 'udp', column: 9, kind: 'a UDP socket of IPv4' },
  { file: 'udp6', column: 9, kind: 'a UDP socket of IPv6' },
  { file: 'tcp', column: 9, kind: 'a TCP socket' },
  { file: 'tcp6', column: 9, kind: 'a TCP socket' },
  { file: 'raw', column: 9, kind: 'a raw socket' },
  { file: 'raw6', column: 9, kind: 'a raw socket' },
  { file: 'unix', column: 6, kind: 'a UNIX socket' },
  { file: 'netlink', column: 9, kind: 'a netlink socket' },
  { file: 'packet', column: 8, kind: 'a packet socket' },
] as const;

const UNIT_HINT = 'write ListenDatagram=69 in the .socket unit, or ListenDatagram=ADDRESS:69; not ListenStream=';

/**
 * Looks at a descriptor.
 *
 * @throws {SocketError} when it is not a UDP socket that is bound and not connected
 */
export function checkHandedSocket(fd: number): void {
  const inode = findInode(fd);
  for (const { file, column, kind } of TABLES) {
    const row = readRows(file).find((row) => row[column] === inode);
    if (row === undefined) continue;
    if (file !== 'udp' && file !== 'udp6') throw new SocketError(fd, `it is ${kind}, not one of UDP`, UNIT_HINT);
    const [, local = '', remote = ''] = row;
    if (local.endsWith(':0000')) throw new SocketError(fd, 'it is bound to no port', UNIT_HINT);
    if (!remote.endsWith(':0000')) throw new SocketError(fd, 'it is connected to one peer', UNIT_HINT);
    return;
  }
  throw new SocketError(fd, 'its protocol is unknown, or it is of another network namespace', UNIT_HINT);
}

function findInode(fd: number): string {
  let link: string;
  try {
    link = readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    throw new SocketError(fd, 'it is not open', 'LISTEN_FDS in the environment says more than there is: unset it');
  }
  const [, inode] = /^socket:\[(\d+)\]$/.exec(link) ?? [];
  if (inode === undefined) throw new SocketError(fd, `it is no socket, but ${JSON.stringify(link)}`, UNIT_HINT);
  return inode;
}

function readRows(table: string): readonly (readonly string[])[] {
  let text: string;
  try {
    text = readFileSync(`/proc/net/${table}`, 'utf8');
  } catch {
    // A protocol this kernel has not.
    return [];
  }
  const rows = text.split('\n').map((line) => line.trim().split(/\s+/));
  // "sl local remote" are columns 0 to 2 of the internet tables.
  return rows.slice(1);
}
