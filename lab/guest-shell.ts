/**
 * A root shell in a guest, over its second serial port: for tests that look inside a host, and break it.
 *
 * The guest must be started with `shell: true`, and its kernel with {@link SHELL_ARGUMENT}, so that systemd
 * (systemd-debug-generator(8)) runs a shell on the port. Commands run one at a time.
 */
import { randomUUID } from 'node:crypto';
import { type Socket, createConnection } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { ESCAPES } from './console.ts';
import { DeadlineError } from './event-log.ts';

/** For the kernel command line. */
export const SHELL_ARGUMENT = 'systemd.debug_shell=ttyS1';

/** No echo, no pager, no colours: programs take the port for a person's terminal. */
const QUIET = 'stty -echo -onlcr </dev/tty; export TERM=dumb NO_COLOR=1 PAGER=cat SYSTEMD_PAGER=cat SYSTEMD_COLORS=0';

const INTERRUPT = '\x03';

/** What a command said and how it ended. */
export interface ShellResult {
  readonly status: number;
  /** Standard output and error, without what is for a terminal only: some programs print that whatever TERM says. */
  readonly output: string;
}

/** A shell. Disposing it leaves the guest as it is. */
export class GuestShell implements Disposable {
  readonly #socket: Socket;
  #received = '';

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.setEncoding('utf8');
    socket.on('data', (text: string) => (this.#received += text));
    socket.on('error', () => {}); // the guest ended; who waits runs into the deadline
  }

  /** Connects to the socket and waits until the shell answers. @throws {DeadlineError} */
  static async open(path: string, options: { readonly timeoutMs: number }): Promise<GuestShell> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const socket = createConnection(path, resolve);
    socket.once('error', reject);
    await promise;
    const shell = new GuestShell(socket);
    const deadline = Date.now() + options.timeoutMs;
    while (Date.now() < deadline) {
      try {
        await shell.run(QUIET, { timeoutMs: 3000 });
        return shell;
      } catch (error) {
        if (!(error instanceof DeadlineError)) throw error;
      }
    }
    throw new DeadlineError('an answer of the shell in the guest', options.timeoutMs);
  }

  /**
   * Runs a line of shell.
   *
   * @throws {DeadlineError} when it does not end in time; it is interrupted then
   */
  async run(line: string, options: { readonly timeoutMs: number }): Promise<ShellResult> {
    const mark = randomUUID();
    // The mark is put together by the shell, so that an echo of this line does not hold it.
    const [head, tail] = [mark.slice(0, 8), mark.slice(8)];
    this.#received = '';
    this.#socket.write(
      `printf '%s%s<' ${head} ${tail}; { ${line}\n} </dev/null 2>&1; printf '>%s%s=%s.\\n' ${head} ${tail} $?\n`,
    );
    const pattern = new RegExp(`${mark}<([\\s\\S]*)>${mark}=(\\d+)\\.`);
    const deadline = Date.now() + options.timeoutMs;
    for (;;) {
      const match = pattern.exec(this.#received);
      if (match !== null) {
        const output = (match[1] ?? '').replaceAll(ESCAPES, '');
        return { output, status: Number(match[2]) };
      }
      if (Date.now() > deadline) {
        this.#socket.write(INTERRUPT);
        throw new DeadlineError(`the end of "${line}" in the guest`, options.timeoutMs);
      }
      await sleep(50);
    }
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }
}
