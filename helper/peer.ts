/**
 * Who is at the other end of a Unix socket: SO_PEERCRED, unix(7). Node has no call for it, so getsockopt(2) is called
 * with `node:ffi`.
 */
import type { Socket } from 'node:net';

/** asm-generic/socket.h, the same on x86-64 and arm64 */
const SOL_SOCKET = 1;
const SO_PEERCRED = 17;

/** struct ucred, linux/socket.h: `pid` (int), `uid`, `gid` (unsigned), 4 bytes each */
const UCRED_BYTES = 12;

/** The process that connected, as it was then. */
export interface Peer {
  readonly pid: number;
  readonly uid: number;
}

/**
 * Makes the function that asks for a socket's peer.
 *
 * @returns undefined when this Node has no node:ffi; the function gives undefined when the kernel does not tell
 */
export async function openPeerLookup(): Promise<((socket: Socket) => Peer | undefined) | undefined> {
  const ffi = await import('node:ffi').catch(() => undefined);
  if (ffi === undefined) return undefined;
  const { functions } = ffi.dlopen('libc.so.6', {
    getsockopt: { arguments: ['i32', 'i32', 'i32', 'buffer', 'buffer'], return: 'i32' },
  });
  return (socket) => {
    const fd = descriptorOf(socket);
    if (fd === undefined) return undefined;
    const ucred = Buffer.alloc(UCRED_BYTES);
    const length = Buffer.alloc(4);
    writeNative(length, UCRED_BYTES);
    if (functions.getsockopt(fd, SOL_SOCKET, SO_PEERCRED, ucred, length) !== 0) return undefined;
    const words = new Uint32Array(ucred.buffer, ucred.byteOffset, 3);
    return { pid: words[0] ?? 0, uid: words[1] ?? 0 };
  };
}

/** Node tells a socket's descriptor only on its internal handle. */
function descriptorOf(socket: Socket): number | undefined {
  const handle: unknown = Reflect.get(socket, '_handle');
  const fd: unknown = typeof handle === 'object' && handle !== null ? Reflect.get(handle, 'fd') : undefined;
  return typeof fd === 'number' && fd >= 0 ? fd : undefined;
}

/** A 32-bit word in the machine's own byte order. */
function writeNative(into: Buffer, value: number): void {
  into.set(new Uint8Array(Uint32Array.of(value).buffer));
}
