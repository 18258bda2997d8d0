/**
 * A guest of the lab: QEMU, its console, and what happens to it.
 *
 * The console reaches us through a socket, so every line has the time it came; QEMU keeps a copy in `console.log` by itself.
 */
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { type Socket, createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { openLocal } from '../connections/local.ts';
import { type Process, start } from '../connections/process.ts';
import {
  type Accelerator,
  type Firmware,
  OVMF,
  type QemuDisk,
  type QemuGuest,
  qemuArgv,
  readQemuVersion,
} from '../host/qemu.ts';
import { ConsoleLines } from './console.ts';
import type { GuestEvent } from './event.ts';
import { DeadlineError, EventLog, type WaitOptions } from './event-log.ts';
import type { LabPort } from './network.ts';
import { enrollKeys } from './ovmf-vars.ts';
import { type Qmp, type QmpEvent, connectQmp } from './qmp.ts';

export interface GuestOptions {
  readonly name: string;
  readonly firmware: Firmware;
  readonly accelerator: Accelerator;
  readonly memoryMiB: number;
  readonly cpus?: number;
  /** Of a direct boot. */
  readonly kernel?: QemuGuest['kernel'];
  readonly disks?: readonly QemuDisk[];
  /** The lab's network namespace, and the guest's place in it; without, the guest has no network. */
  readonly network?: { readonly namespace: string; readonly port: LabPort };
  /** For what the guest needs of its own, such as its UEFI variables; made when absent. */
  readonly folder: string;
  /** Where everything the console says is written; default: `console.log` in the folder. */
  readonly consoleLog?: string;
  /** A guest that reboots ends instead. */
  readonly noReboot?: boolean;
  /** A second serial port with a socket, for a {@link GuestShell}. */
  readonly shell?: boolean;
  /** Of `uefi`: Secure Boot is in force, and this X.509 certificate (DER) is all that the firmware trusts. */
  readonly secureBoot?: { readonly certificate: Uint8Array };
  /** Whether iPXE's prompt, which waits 2 s for a key, gets one; default true. On a host nobody is there to press it. */
  readonly answersPrompt?: boolean;
  /** Of `uefi`: the firmware boots over HTTP, and does not try PXE. */
  readonly httpBoot?: boolean;
}

/** A console did not say what it should have, in time or before the guest ended. Its last lines are in the message. */
export class GuestError extends Error {
  readonly tail: readonly string[];
  readonly hint: string;

  constructor(message: string, tail: readonly string[], consoleLog: string, cause: unknown) {
    const lines = tail.length === 0 ? '\n  (the console said nothing)' : tail.map((line) => `\n  | ${line}`).join('');
    super(`${message}; the console's last lines:${lines}`, { cause });
    this.name = 'GuestError';
    this.tail = tail;
    this.hint = `the whole console is in ${consoleLog}`;
  }
}

/** A running QEMU. */
export class Guest implements AsyncDisposable {
  readonly name: string;
  /** When the QEMU process was started. */
  readonly startedAtMs: number;
  readonly consoleLog: string;
  /** UNIX sockets, for a person who wants to look: the console takes one reader at a time, ours until `releaseConsole`. */
  readonly sockets: { readonly console: string; readonly qmp: string; readonly shell: string };
  readonly log: EventLog<GuestEvent> = new EventLog<GuestEvent>();
  readonly #process: Process;
  readonly #runtime: string;
  #console: Socket | undefined;
  #qmp: Qmp | undefined;
  #closing: Promise<void> | undefined;

  private constructor(name: string, process: Process, runtime: string, consoleLog: string) {
    this.name = name;
    this.startedAtMs = Date.now();
    this.consoleLog = consoleLog;
    this.sockets = { console: join(runtime, 'console'), qmp: join(runtime, 'qmp'), shell: join(runtime, 'shell') };
    this.#process = process;
    this.#runtime = runtime;
    this.#add({ source: 'qemu', atMs: this.startedAtMs, what: 'start' });
  }

  /** Starts QEMU and returns when the console is connected and QMP answers. @throws when QEMU ends before that */
  static async start(options: GuestOptions): Promise<Guest> {
    await mkdir(options.folder, { recursive: true });
    // Short paths: a UNIX socket's is limited to 107 bytes.
    const runtime = await mkdtemp(join(tmpdir(), 'buildos-qemu-'));
    const description = await describeGuest(options, runtime);
    const inside = options.network === undefined ? [] : ['ip', 'netns', 'exec', options.network.namespace];
    const qemu = await start([...inside, ...qemuArgv(description)], { stderr: 'stdout' });
    const guest = new Guest(options.name, qemu, runtime, description.consoleLog);
    void qemu.exited.then(({ status, signal }) => guest.#ended(status, signal));
    try {
      await guest.#connect(options.answersPrompt ?? true);
    } catch (error) {
      await guest.close();
      const said = qemu.stdout.tail(20).join('\n');
      throw new Error(`Cannot start QEMU for "${options.name}"${said === '' ? '' : `; it said:\n${said}`}`, {
        cause: error,
      });
    }
    return guest;
  }

  /** The console's lines so far, oldest first. */
  get lines(): readonly string[] {
    return this.log.events.flatMap((event) => (event.source === 'console' ? [event.line] : []));
  }

  /** The console's last lines. */
  tail(count = 30): readonly string[] {
    return this.lines.slice(-count);
  }

  /**
   * Waits for a line of the console.
   *
   * @param text - a part of the line, or an expression
   * @throws {GuestError} when it does not come in time, or the guest ends first
   */
  async waitForLine(
    text: string | RegExp,
    options: Pick<WaitOptions, 'timeoutMs' | 'past' | 'signal'>,
  ): Promise<{ readonly atMs: number; readonly line: string }> {
    const matches = (line: string): boolean => (typeof text === 'string' ? line.includes(text) : text.test(line));
    const wants = (event: GuestEvent): event is GuestEvent & { source: 'console' } =>
      event.source === 'console' && matches(event.line);
    const what = `"${String(text)}" on the console of ${this.name}`;
    return this.#waitFor(what, () => this.log.waitFor(wants, { ...options, what }), options.signal);
  }

  /** Waits until the guest reboots. @throws {GuestError} as `waitForLine` */
  async waitForReset(options: Pick<WaitOptions, 'timeoutMs' | 'past' | 'signal'>): Promise<GuestEvent> {
    const wants = (event: GuestEvent): boolean => event.source === 'qemu' && event.what === 'reset';
    const what = `a reboot of ${this.name}`;
    return this.#waitFor(what, () => this.log.waitFor(wants, { ...options, what }), options.signal);
  }

  /**
   * Does something that makes sense only while the guest runs.
   *
   * @param what - for the message: `monitor ready`
   * @param work - gets a signal that is aborted when the guest ends
   * @throws {GuestError} when the work runs out of time, or the guest ends first; other errors of the work as they are
   */
  async whileRunning<T>(what: string, work: (ended: AbortSignal) => Promise<T>): Promise<T> {
    const ended = new AbortController();
    const stop = this.log.listen((event) => {
      if (event.source === 'qemu' && event.what === 'exit') ended.abort(new DeadlineError(what, 0));
    });
    if (this.#exited) ended.abort(new DeadlineError(what, 0));
    try {
      return await work(ended.signal);
    } catch (error) {
      if (ended.signal.aborted) throw this.#error(`${this.name} ended before ${what}`, error);
      throw error instanceof DeadlineError ? this.#error(error.message, error) : error;
    } finally {
      stop();
    }
  }

  /** Types on the console. */
  type(text: string): void {
    this.#console?.write(text);
  }

  /** The reset button. */
  async reset(): Promise<void> {
    await this.#qmp?.execute('system_reset');
  }

  /** Leaves the console to somebody else; the log goes on, our events of it end. */
  releaseConsole(): void {
    this.#console?.destroy();
    this.#console = undefined;
  }

  /** Ends QEMU: nothing the guest has not written is saved. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #close(): Promise<void> {
    await this.#qmp?.execute('quit').catch(() => {}); // it closes the socket before it answers, or is gone already
    await this.#process.stop(2000);
    this.#qmp?.close();
    this.#console?.destroy();
    await rm(this.#runtime, { recursive: true, force: true });
  }

  async #connect(answersPrompt: boolean): Promise<void> {
    const lines = new ConsoleLines();
    let asked = false;
    this.#console = await this.#retry(() => connectSocket(this.sockets.console));
    this.#console.on('data', (chunk: Buffer) => {
      const atMs = Date.now();
      for (const line of lines.push(chunk)) this.#add({ source: 'console', atMs, line });
      // iPXE waits 2 s for Ctrl-B at each start; any other key ends that.
      const asks = lines.unfinished.includes(IPXE_PROMPT);
      if (answersPrompt && asks && !asked) this.type(' ');
      asked = asks;
    });
    this.#console.on('error', () => {});
    this.#qmp = await this.#retry(() => connectQmp(this.sockets.qmp, (event) => this.#onQmp(event)));
  }

  /** QEMU makes its sockets some tenths of a second after its start. */
  async #retry<T>(connect: () => Promise<T>): Promise<T> {
    const deadline = Date.now() + 15_000;
    for (;;) {
      try {
        return await connect();
      } catch (error) {
        if (this.#exited || Date.now() > deadline) throw error;
        await sleep(20);
      }
    }
  }

  #exited = false;

  #ended(status: number, signal: string | undefined): void {
    this.#exited = true;
    const how = signal === undefined ? `status ${status}` : `signal ${signal}`;
    const detail = [how, ...this.#process.stdout.tail(20)].join('; ');
    this.#add({ source: 'qemu', atMs: Date.now(), what: 'exit', detail });
    this.log.end(new Error(`QEMU of "${this.name}" has ended: ${detail}`));
  }

  #onQmp(event: QmpEvent): void {
    const what = QMP_EVENTS[event.event];
    if (what === undefined) return;
    const reason = event.data['reason'];
    this.#add({
      source: 'qemu',
      atMs: Date.now(),
      what,
      ...(typeof reason === 'string' ? { detail: reason } : {}),
    });
  }

  #add(event: GuestEvent): void {
    this.log.add(event);
  }

  async #waitFor<T>(what: string, wait: () => Promise<T>, signal: AbortSignal | undefined): Promise<T> {
    try {
      return await wait();
    } catch (error) {
      if (signal?.aborted === true) throw error;
      const message = error instanceof DeadlineError ? error.message : `${this.name} ended before ${what}`;
      throw this.#error(message, error);
    }
  }

  #error(message: string, cause: unknown): GuestError {
    return new GuestError(message, this.tail(), this.consoleLog, cause);
  }
}

const IPXE_PROMPT = 'Press Ctrl-B for the iPXE command line...';

/** Which of QMP's events are ours. A guest's reboot is a RESET with reason guest-reset. */
const QMP_EVENTS: Readonly<Record<string, 'reset' | 'shutdown' | 'panic'>> = {
  RESET: 'reset',
  SHUTDOWN: 'shutdown',
  GUEST_PANICKED: 'panic',
};

async function describeGuest(options: GuestOptions, runtime: string): Promise<QemuGuest> {
  const ovmf = options.firmware === 'uefi' ? await prepareOvmf(options) : undefined;
  await using local = openLocal();
  return {
    name: options.name,
    version: await readQemuVersion(local),
    accelerator: options.accelerator,
    firmware: options.firmware,
    memoryMiB: options.memoryMiB,
    cpus: options.cpus ?? 2,
    ...(options.kernel === undefined ? {} : { kernel: options.kernel }),
    ...(ovmf === undefined ? {} : { ovmf }),
    httpBoot: options.httpBoot ?? false,
    ...(options.network === undefined
      ? {}
      : { network: { tap: options.network.port.tap, mac: options.network.port.mac } }),
    disks: options.disks ?? [],
    consoleSocket: join(runtime, 'console'),
    consoleLog: options.consoleLog ?? join(options.folder, 'console.log'),
    qmpSocket: join(runtime, 'qmp'),
    noReboot: options.noReboot ?? false,
    ...(options.shell === true ? { shellSocket: join(runtime, 'shell') } : {}),
  };
}

/** The guest's own copy of the firmware's variables. */
async function prepareOvmf(options: GuestOptions): Promise<QemuGuest['ovmf']> {
  const vars = join(options.folder, 'ovmf-vars.fd');
  if (options.secureBoot === undefined) {
    await copyFile(OVMF.vars, vars);
    return { code: OVMF.code, vars };
  }
  await writeFile(vars, enrollKeys(await readFile(OVMF.vars), options.secureBoot.certificate));
  return { code: OVMF.secureCode, vars, secureBoot: true };
}

function connectSocket(path: string): Promise<Socket> {
  const { promise, resolve, reject } = Promise.withResolvers<Socket>();
  const socket = createConnection(path);
  socket.once('error', reject);
  socket.once('connect', () => {
    socket.off('error', reject);
    resolve(socket);
  });
  return promise;
}
