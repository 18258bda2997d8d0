/**
 * Memory that the kernel reads and writes through pointers, and what stands in it (little-endian, 64-bit pointers):
 *
 *   mmsghdr (64 bytes)   0 name* │ 8 namelen │ 16 iov* │ 24 iovlen │ 32 control* │ 40 controllen │ 48 flags │ 56 len
 *   iovec (16)           0 base* │ 8 length
 *   sockaddr_in (16)     0 family │ 2 port │ 4 address │ 8 zeros
 *   sockaddr_in6 (28)    0 family │ 2 port │ 4 flow │ 8 address │ 24 scope
 */
import { SocketAddress, isIPv6 } from 'node:net';
import { networkInterfaces } from 'node:os';

import { type SystemCalls, AF_INET, AF_INET6 } from './driver-syscalls.ts';

export const MMSGHDR_BYTES = 64;
export const IOVEC_BYTES = 16;
/** struct sockaddr_in6, the longer one. */
export const SOCKADDR_BYTES = 28;

/** Memory with a fixed address. */
export class Memory {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly at: bigint;

  constructor(calls: SystemCalls, length: number) {
    const buffer = new ArrayBuffer(length);
    this.bytes = new Uint8Array(buffer);
    this.view = new DataView(buffer);
    this.at = calls.addressOf(buffer);
  }

  pointer(at: number, value: bigint): void {
    this.view.setBigUint64(at, value, true);
  }

  /** A size_t or socklen_t with its padding. */
  size(at: number, value: number): void {
    this.view.setUint32(at, value, true);
    this.view.setUint32(at + 4, 0, true);
  }
}

/**
 * Writes a struct sockaddr_in or sockaddr_in6 (linux/in.h, linux/in6.h) with port 0: any that is free.
 *
 * @returns its length; 0 when the address is not numeric or its zone is not known
 */
export function writeSocketAddress(view: DataView, text: string): number {
  const [bare = '', zone] = text.split('%');
  if (!isIPv6(bare)) {
    const parts = bare.split('.').map(Number);
    if (parts.length !== 4) return 0;
    view.setUint16(0, AF_INET, true);
    view.setUint16(2, 0);
    for (const [index, part] of parts.entries()) view.setUint8(4 + index, part);
    view.setBigUint64(8, 0n);
    return 16;
  }
  const scope = zone === undefined ? 0 : scopeOf(zone);
  if (scope === undefined) return 0;
  view.setUint16(0, AF_INET6, true);
  view.setUint16(2, 0);
  view.setUint32(4, 0);
  for (const [index, group] of ipv6Groups(bare).entries()) view.setUint16(8 + 2 * index, group);
  view.setUint32(24, scope, true);
  return SOCKADDR_BYTES;
}

/** The eight groups of an IPv6 address. */
function ipv6Groups(text: string): readonly number[] {
  // Without an IPv4 tail, and with no more than one `::`.
  const { address } = new SocketAddress({ address: text, family: 'ipv6' });
  const tail = /^(.*:)(\d+)\.(\d+)\.(\d+)\.(\d+)$/.exec(address);
  const [, head = '', a, b, c, d] = tail ?? [];
  const hex = (high: number, low: number): string => (high * 256 + low).toString(16);
  const plain = tail === null ? address : `${head}${hex(Number(a), Number(b))}:${hex(Number(c), Number(d))}`;
  const [left = '', right] = plain.split('::');
  const parse = (part: string): number[] =>
    part
      .split(':')
      .filter(Boolean)
      .map((group) => Number.parseInt(group, 16));
  const before = parse(left);
  const after = right === undefined ? [] : parse(right);
  return [...before, ...Array.from({ length: 8 - before.length - after.length }, () => 0), ...after];
}

/** The index of an interface: its number, or its name (an address of it, as the system lists them, has the index). */
function scopeOf(zone: string): number | undefined {
  if (/^[0-9]{1,9}$/.test(zone)) return Number(zone);
  const found = networkInterfaces()[zone]?.find((one) => one.family === 'IPv6' && (one.scopeid ?? 0) > 0);
  return found?.scopeid;
}
