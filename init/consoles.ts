/** The host's consoles: init writes to all that the kernel writes to, so that a screen and a serial line both tell. */
import { closeSync, constants, openSync, writeSync } from 'node:fs';

/** stderr of PID 1: the kernel opened /dev/console there. */
const STDERR = 2;
/** A console that takes nothing (a serial line held by flow control) must not stop the boot. */
const RETRY_LIMIT = 100;
const RETRY_PAUSE_MS = 10;

const pause = new Int32Array(new SharedArrayBuffer(4));

/** Where lines for people go. Never throws: a host without a working console boots all the same. */
export class Consoles implements Disposable {
  #fds: number[] = [];

  /** Opens the consoles by name, as in /sys/class/tty/console/active; those that cannot be opened are left out. */
  open(names: readonly string[]): void {
    for (const name of names) {
      try {
        const flags = constants.O_WRONLY | constants.O_NOCTTY | constants.O_NONBLOCK;
        this.#fds.push(openSync(`/dev/${name}`, flags));
      } catch {
        // Named on the command line, but this host has no such device.
      }
    }
  }

  /** Writes text and a newline, before it returns. */
  say(text: string): void {
    for (const fd of this.#fds.length === 0 ? [STDERR] : this.#fds) writeAll(fd, Buffer.from(`${text}\n`));
  }

  [Symbol.dispose](): void {
    for (const fd of this.#fds) closeSync(fd);
    this.#fds = [];
  }
}

function writeAll(fd: number, bytes: Uint8Array): void {
  let offset = 0;
  for (let tries = 0; offset < bytes.length && tries < RETRY_LIMIT; tries += 1) {
    try {
      offset += writeSync(fd, bytes, offset);
    } catch (error) {
      const busy = error instanceof Error && 'code' in error && error.code === 'EAGAIN';
      if (!busy) return;
      Atomics.wait(pause, 0, 0, RETRY_PAUSE_MS);
    }
  }
}
