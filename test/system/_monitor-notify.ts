/** The socket that systemd gives a service to report to (sd_notify(3)). */
import assert from 'node:assert/strict';

/**
 * systemd's end of the notify socket. Node has no Unix datagram sockets, so libc is asked. It is read all the time:
 * the kernel queues ten messages, then sd_notify() waits.
 */
export class NotifySocket implements Disposable {
  readonly path: string;
  readonly messages: string[] = [];
  readonly #libc = openLibc();
  readonly #fd: number;
  readonly #beat: NodeJS.Timeout;

  constructor(path: string) {
    this.path = path;
    const address = Buffer.alloc(110);
    address.writeUInt16LE(1, 0); // AF_UNIX
    address.write(path, 2);
    this.#fd = this.#libc.socket(1, 2, 0); // SOCK_DGRAM
    assert.equal(this.#libc.bind(this.#fd, address, 110), 0);
    this.#beat = setInterval(() => this.read(), 50);
  }

  /** All messages so far. */
  read(): readonly string[] {
    const data = Buffer.alloc(8192);
    for (;;) {
      const length = Number(this.#libc.recv(this.#fd, data, 8192n, 0x40)); // MSG_DONTWAIT
      if (length <= 0) return this.messages;
      this.messages.push(data.toString('utf8', 0, length));
    }
  }

  [Symbol.dispose](): void {
    clearInterval(this.#beat);
    this.#libc.close(this.#fd);
  }
}

/** What of libc the notify socket needs. */
interface Libc {
  socket(domain: number, type: number, protocol: number): number;
  bind(fd: number, address: Buffer, length: number): number;
  recv(fd: number, buffer: Buffer, length: bigint, flags: number): bigint;
  close(fd: number): number;
}

function openLibc(): Libc {
  const ffi = process.getBuiltinModule('node:ffi');
  assert.ok(ffi);
  return ffi.dlopen('libc.so.6', {
    socket: { arguments: ['i32', 'i32', 'i32'], return: 'i32' },
    bind: { arguments: ['i32', 'buffer', 'u32'], return: 'i32' },
    recv: { arguments: ['i32', 'buffer', 'u64', 'i32'], return: 'i64' },
    close: { arguments: ['i32'], return: 'i32' },
  }).functions;
}
