/** A helper that is played: it runs the worker as a plain process on this machine instead of a container in a snapshot. */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readdir, readlink, rm } from 'node:fs/promises';
import { createServer as createSocketServer } from 'node:net';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseVerb } from '../../helper/verb.ts';
import type { Verb } from '../../helper/verb.ts';
import { put } from '../../tftp/client.ts';
import { TransferError } from '../../tftp/error.ts';

export const TOP: string = join(import.meta.dirname, '..', '..');

/** The words of Node for a worker that asks the server at this port. */
export function workerWords(
  port: number,
  folders: { readonly prefix: string; readonly work: string },
): readonly string[] {
  const { prefix, work } = folders;
  const server = ['--server', '127.0.0.1', '--port', String(port)];
  return [join(TOP, 'agent/worker/main.ts'), ...server, '--prefix', prefix, '--work', work];
}

/** What the machine does that the fake helper starts. */
type Behaviour = 'worker' | 'silent' | 'fill';

/** Answers the verbs that an agent uses. It is a fake: a "machine" is a process of this machine. */
export class FakeHelper implements AsyncDisposable {
  readonly socket: string;
  readonly #folder: string;
  readonly #machines = new Map<string, { child?: ChildProcess; ended?: { result: string; status: number } }>();
  readonly #server = createSocketServer({ allowHalfOpen: true }, (connection) => this.#serve(connection));
  behaviour: Behaviour = 'worker';
  /** Of the filling machine: what its uploads were answered. */
  readonly refusals: string[] = [];
  readonly verbs: string[] = [];

  private constructor(folder: string) {
    this.#folder = folder;
    this.socket = join(folder, 'helper.sock');
  }

  static async open(folder: string): Promise<FakeHelper> {
    const helper = new FakeHelper(folder);
    helper.#server.listen(helper.socket);
    await once(helper.#server, 'listening');
    return helper;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const build of this.#machines.keys()) await this.#kill(build);
    await new Promise((resolve) => this.#server.close(resolve));
  }

  alive(): readonly string[] {
    return [...this.#machines.keys()];
  }

  /** The worker of the newest machine. */
  worker(): ChildProcess | undefined {
    return [...this.#machines.values()].at(-1)?.child;
  }

  #serve(connection: Socket): void {
    let text = '';
    connection.on('error', () => connection.destroy());
    // Of a client that was killed before it had asked.
    connection.on('end', () => {
      if (!text.endsWith('\n')) connection.end();
    });
    connection.on('data', (chunk) => {
      text += chunk.toString();
      if (!text.endsWith('\n')) return;
      const verb = parseVerb(JSON.parse(text));
      void this.#answer(verb).then(
        (answer) => connection.end(`${JSON.stringify({ ok: true, ...answer })}\n`),
        (error: unknown) => connection.end(`${JSON.stringify({ ok: false, error: String(error) })}\n`),
      );
    });
  }

  async #answer(verb: Verb): Promise<object> {
    this.verbs.push(verb.verb);
    // oxlint-disable-next-line typescript/switch-exhaustiveness-check -- only what an agent asks for
    switch (verb.verb) {
      case 'machine.list':
        return {
          builds: [...this.#machines.keys()].map((build) => ({
            build,
            volume: 'default',
            unit: 'active',
            snapshot: true,
            netns: true,
            link: true,
          })),
        };
      case 'machine.snapshot':
        this.#machines.set(verb.build, {});
        return { path: this.#folder };
      case 'machine.start':
        this.#start(verb);
        return { unit: 'fake', started: true };
      case 'machine.wait':
        await sleep(300);
        return this.#end(verb.build);
      case 'machine.stop':
        await this.#kill(verb.build);
        return { wasRunning: true };
      case 'machine.delete':
        await this.#kill(verb.build);
        this.#machines.delete(verb.build);
        await rm(join(this.#folder, 'machine', verb.build), { recursive: true, force: true });
        return { removed: [] };
      default:
        throw new Error(`the fake helper does not know ${verb.verb}`);
    }
  }

  #end(build: string): { result: string; status: number } {
    const machine = this.#machines.get(build);
    if (machine === undefined) return { result: 'absent', status: 0 };
    return machine.ended ?? { result: 'running', status: 0 };
  }

  #start(verb: Extract<Verb, { verb: 'machine.start' }>): void {
    const machine = this.#machines.get(verb.build) ?? {};
    this.#machines.set(verb.build, machine);
    if (this.behaviour === 'silent') return;
    if (this.behaviour === 'fill') {
      void this.#fill(verb.port);
      return;
    }
    const root = join(this.#folder, 'machine', verb.build);
    const child = spawn(
      process.execPath,
      workerWords(verb.port, { prefix: join(root, 'prefix'), work: join(root, 'work') }),
      {
        stdio: 'ignore',
        detached: true,
      },
    );
    machine.child = child;
    child.on('exit', (status, signal) => {
      machine.ended =
        signal === null
          ? { result: status === 0 ? 'success' : 'exit-code', status: status ?? 0 }
          : { result: 'signal', status: 9 };
    });
  }

  /** A machine that writes until it is told to stop, wherever it can. */
  async #fill(port: number): Promise<void> {
    const block = new Uint8Array(4 * 1024 * 1024).fill(0x41);
    for (const name of ['log', 'other', '../escape', 'task.manifest', 'upload.tar', 'result.manifest']) {
      for (let offset = 0; offset < 1024 * 1024 * 1024; offset += block.length) {
        try {
          const where = name === 'log' ? { offset } : {};
          const content =
            name === 'upload.tar'
              ? new Uint8Array(600 * 1024 * 1024)
              : name === 'result.manifest'
                ? new Uint8Array(16_000_000)
                : block;
          await put({ host: '127.0.0.1', port, name, content, timeoutMs: 5000, blksize: 16_384, ...where });
          if (name !== 'log') this.refusals.push(`${name}: taken`);
          if (name !== 'log') break;
        } catch (error) {
          this.refusals.push(
            `${name}: ${error instanceof TransferError ? `${error.code} ${error.from}` : String(error)}`,
          );
          break;
        }
      }
    }
    const machine = [...this.#machines.values()].at(-1);
    if (machine !== undefined) machine.ended = { result: 'exit-code', status: 1 };
  }

  /** Ends the worker and all that it has started, as the end of a container does. */
  async #kill(build: string): Promise<void> {
    const child = this.#machines.get(build)?.child;
    if (child !== undefined && child.exitCode === null && child.signalCode === null) {
      const ended = once(child, 'exit');
      child.kill('SIGKILL');
      await ended;
    }
    const root = join(this.#folder, 'machine', build);
    for (let left = await processesIn(root); left.length > 0; left = await processesIn(root)) {
      left.forEach(killQuietly);
      await sleep(20);
    }
  }
}

export function killQuietly(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has ended by itself.
  }
}

/** Processes whose working directory is in a folder, zombies left out. */
export async function processesIn(folder: string): Promise<readonly number[]> {
  const pids = (await readdir('/proc')).filter((name) => /^[0-9]+$/.test(name));
  const found = await Promise.all(
    pids.map(async (pid) => {
      const directory = await readlink(`/proc/${pid}/cwd`).catch(() => '');
      return directory.startsWith(`${folder}/`) ? [Number(pid)] : [];
    }),
  );
  return found.flat();
}
