/**
 * QEMU with a serial console for the tests of stage 1: start, wait for a line, type, wait for the end.
 *
 * Not the lab's guest: these end by themselves, a moment after the line that counts, and of a console that is QEMU's own output
 * nothing is lost then.
 */
import assert from 'node:assert/strict';
import { openLocal } from '../../connections/local.ts';
import { type Process, start } from '../../connections/process.ts';
import { cpuModel, readQemuVersion } from '../../host/qemu.ts';

/** What to boot. */
export interface GuestOptions {
  readonly kernel: string;
  readonly initrd: string;
  /** Added to `console=ttyS0 panic=10`. */
  readonly append: string;
  readonly memoryMiB?: number;
}

const PRINTED_LINES = 120;

/** A guest that runs under emulation. With `-no-reboot` its reboot ends QEMU, as its power-off does. */
export class Guest implements AsyncDisposable {
  readonly #qemu: Process;

  private constructor(qemu: Process) {
    this.#qemu = qemu;
  }

  static async start(options: GuestOptions): Promise<Guest> {
    await using local = openLocal();
    // With rdrand: without it the kernel gathers randomness for more than a second, and Node waits for it before its first line.
    const cpu = cpuModel('tcg', await readQemuVersion(local));
    return new Guest(
      await start(
        [
          'qemu-system-x86_64',
          ...option({ machine: 'pc', accel: 'tcg', cpu, m: String(options.memoryMiB ?? 1024) }),
          ...option({ display: 'none', serial: 'stdio', monitor: 'none', net: 'none' }),
          ...option({ kernel: options.kernel, initrd: options.initrd }),
          ...option({ append: `console=ttyS0 panic=10 ${options.append}` }),
          '-no-reboot',
        ],
        { stdin: true, stderr: 'stdout' },
      ),
    );
  }

  /** The first console line that matches; fails the test, with the console's end, when none comes in time. */
  async line(pattern: RegExp, timeoutMs = 60_000): Promise<string> {
    const match = await this.#qemu.stdout.waitFor(pattern, { timeoutMs });
    if (match === undefined) assert.fail(`No line like ${String(pattern)} within ${timeoutMs} ms:\n${this.text()}`);
    return match.input.trimEnd();
  }

  /** Types on the console. */
  async type(text: string): Promise<void> {
    await this.#qemu.write(text);
  }

  /** Waits until the guest has powered off or rebooted. */
  async end(timeoutMs = 60_000): Promise<void> {
    const timeout = new Promise<undefined>((resolve) => {
      setTimeout(() => resolve(undefined), timeoutMs).unref();
    });
    const exit = await Promise.race([this.#qemu.exited, timeout]);
    if (exit === undefined) assert.fail(`The guest did not end within ${timeoutMs} ms:\n${this.text()}`);
    assert.equal(exit.status, 0, this.text());
  }

  /** The last lines of the console. */
  text(): string {
    return this.#qemu.stdout
      .tail(PRINTED_LINES)
      .map((line) => line.trimEnd())
      .join('\n');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#qemu.stop(1000);
  }
}

const option = (values: Readonly<Record<string, string>>): string[] =>
  Object.entries(values).flatMap(([name, value]) => [`-${name}`, value]);
