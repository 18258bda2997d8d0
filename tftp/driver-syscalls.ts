/**
 * The system calls of the accelerator, through node:ffi: none of them takes or gives a type whose width differs between the
 * C libraries here. All return what the call returned, or the negative errno.
 *
 * Only for Linux on x86-64 and arm64, little-endian with 64-bit pointers: the layouts below are those of
 * include/linux/socket.h and include/uapi/linux/{uio,in,in6,udp}.h there, the same with glibc and musl (which pads what
 * glibc makes wider). Elsewhere there is no accelerator.
 */
import { endianness } from 'node:os';

/** Socket calls. `address` is memory of `SystemCalls.addressOf`. */
export interface SystemCalls {
  socket(family: number, type: number, protocol: number): number;
  bind(fd: number, address: bigint, length: number): number;
  setsockopt(fd: number, level: number, name: number, value: bigint, length: number): number;
  /** @returns messages that were sent; less than asked when one could not be */
  sendmmsg(fd: number, messages: bigint, count: number, flags: number): number;
  /** @returns messages that were received */
  recvmmsg(fd: number, messages: bigint, count: number, flags: number): number;
  epollCreate(flags: number): number;
  epollControl(epoll: number, operation: number, fd: number, event: bigint): number;
  /** @returns events that were written, at most `count` */
  epollWait(epoll: number, events: bigint, count: number, timeoutMs: number): number;
  close(fd: number): number;
  /** Where the bytes are. They must be held as long as the address is used, and not be a part of a pool. */
  addressOf(bytes: ArrayBuffer): bigint;
}

/** Numbers of Linux, the same on x86-64 and arm64 (asm-generic/errno-base.h, errno.h). */
export const ERRNO = { EIO: 5, EAGAIN: 11, EINVAL: 22, EMSGSIZE: 90, ENOBUFS: 105, ECONNREFUSED: 111 } as const;

/** bits/socket.h, linux/udp.h, asm-generic/socket.h. */
export const AF_INET = 2;
export const AF_INET6 = 10;
export const SOCK_DGRAM = 2;
export const SOCK_NONBLOCK = 0o4000;
export const SOCK_CLOEXEC = 0o2000000;
export const SOL_UDP = 17;
export const UDP_SEGMENT = 103;
export const MSG_DONTWAIT = 0x40;
export const MSG_TRUNC = 0x20;

/** linux/eventpoll.h. */
export const EPOLL_CLOEXEC = 0o2000000;
export const EPOLL_CTL_ADD = 1;
export const EPOLL_CTL_DEL = 2;
export const EPOLLIN = 1;
/** struct epoll_event: u32 events, u64 data; without padding between them on x86-64. */
export const EPOLL_EVENT: { readonly bytes: number; readonly data: number } =
  process.arch === 'x64' ? { bytes: 12, data: 4 } : { bytes: 16, data: 8 };

/** The calls, or `undefined` where they cannot be had: no node:ffi, forbidden, another system. */
export function openSystemCalls(): SystemCalls | undefined {
  const isKnown = process.platform === 'linux' && ['x64', 'arm64'].includes(process.arch) && endianness() === 'LE';
  if (!isKnown) return undefined;
  try {
    const ffi = loadFfi();
    const pointer = 'pointer' as const;
    const library = ffi.dlopen(null, {
      socket: { arguments: ['i32', 'i32', 'i32'], return: 'i32' },
      bind: { arguments: ['i32', pointer, 'u32'], return: 'i32' },
      setsockopt: { arguments: ['i32', 'i32', 'i32', pointer, 'u32'], return: 'i32' },
      sendmmsg: { arguments: ['i32', pointer, 'u32', 'i32'], return: 'i32' },
      recvmmsg: { arguments: ['i32', pointer, 'u32', 'i32', pointer], return: 'i32' },
      epoll_create1: { arguments: ['i32'], return: 'i32' },
      epoll_ctl: { arguments: ['i32', 'i32', 'i32', pointer], return: 'i32' },
      epoll_wait: { arguments: ['i32', pointer, 'i32', 'i32'], return: 'i32' },
      close: { arguments: ['i32'], return: 'i32' },
      // The name in glibc and in musl.
      __errno_location: { arguments: [], return: pointer },
    });
    const { functions } = library;
    const errnoAt = functions.__errno_location();
    const checked = (result: number): number => (result < 0 ? -ffi.getInt32(errnoAt) : result);
    return {
      socket: (family, type, protocol) => checked(functions.socket(family, type, protocol)),
      bind: (fd, address, length) => checked(functions.bind(fd, address, length)),
      setsockopt: (fd, level, name, value, length) => checked(functions.setsockopt(fd, level, name, value, length)),
      sendmmsg: (fd, messages, count, flags) => checked(functions.sendmmsg(fd, messages, count, flags)),
      recvmmsg: (fd, messages, count, flags) => checked(functions.recvmmsg(fd, messages, count, flags, 0n)),
      epollCreate: (flags) => checked(functions.epoll_create1(flags)),
      epollControl: (epoll, operation, fd, event) => checked(functions.epoll_ctl(epoll, operation, fd, event)),
      epollWait: (epoll, events, count, timeoutMs) => checked(functions.epoll_wait(epoll, events, count, timeoutMs)),
      close: (fd) => checked(functions.close(fd)),
      addressOf: (bytes) => ffi.getRawPointer(bytes),
    };
  } catch {
    return undefined;
  }
}

/**
 * Loads node:ffi without its ExperimentalWarning: the choice is recorded, and a line in every log helps nobody. Only this
 * warning, and only while the module loads, is kept back.
 *
 * @throws {Error} when this Node has no node:ffi (before 26, or `--no-experimental-ffi`)
 */
export function loadFfi(): typeof import('node:ffi') {
  // oxlint-disable-next-line typescript/unbound-method -- put back as it was found, and called through Reflect.apply
  const emitWarning = process.emitWarning;
  const filtered = (warning: string | Error, ...rest: unknown[]): void => {
    if (rest[0] === 'ExperimentalWarning' && String(warning).startsWith('FFI ')) return;
    Reflect.apply(emitWarning, process, [warning, ...rest]);
  };
  process.emitWarning = filtered;
  try {
    const ffi = process.getBuiltinModule('node:ffi');
    if (ffi === undefined) throw new Error('this Node has no node:ffi');
    return ffi;
  } finally {
    process.emitWarning = emitWarning;
  }
}
