/** A helper that is played: its bootstraps are processes of this machine, its agents are counted. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, openSync, writeFileSync } from 'node:fs';
import { type Server as NetServer, createServer } from 'node:net';
import { join } from 'node:path';
import { type Verb, parseVerb } from '../../helper/verb.ts';

/** The FAKE helper: no root, no systemd. */
export class FakeHelper implements AsyncDisposable {
  readonly verbs: Verb[] = [];
  readonly #root: string;
  readonly #server: NetServer;
  readonly #bootstraps = new Map<string, { child: ChildProcess; state: string; detail: string }>();
  readonly #agents = new Set<string>();
  readonly #beat: NodeJS.Timeout;
  /** what the played agents are doing */
  tasks = 0;
  undelivered = 0;

  constructor(root: string) {
    this.#root = root;
    this.#server = createServer({ allowHalfOpen: true }, (socket) => {
      let text = '';
      socket.on('data', (chunk: Buffer) => {
        text += chunk.toString();
        if (!text.endsWith('\n')) return;
        const verb = parseVerb(JSON.parse(text));
        this.verbs.push(verb);
        socket.end(`${JSON.stringify({ ok: true, ...this.#perform(verb) })}\n`);
      });
      socket.on('error', () => undefined);
      // Of a client that was killed before it had asked.
      socket.on('end', () => {
        if (!text.endsWith('\n')) socket.end();
      });
    });
    this.#server.listen(join(root, 'run/buildos/helper.sock'));
    this.#beat = setInterval(() => this.#playAgents(), 100);
  }

  count(verb: Verb['verb'], toolchain?: string): number {
    return this.verbs.filter(
      (one) => one.verb === verb && (toolchain === undefined || ('toolchain' in one && one.toolchain === toolchain)),
    ).length;
  }

  #perform(verb: Verb): object {
    switch (verb.verb) {
      case 'bootstrap.start':
        return this.#bootstrap(verb);
      case 'bootstrap.state': {
        const one = this.#bootstraps.get(verb.toolchain);
        return one === undefined
          ? { state: 'absent', detail: 'not started' }
          : { state: one.state, detail: one.detail };
      }
      case 'bootstrap.stop':
        killGroup(this.#bootstraps.get(verb.toolchain)?.child);
        return { wasRunning: this.#bootstraps.delete(verb.toolchain) };
      case 'agent.start':
      case 'agent.restart':
        this.#agents.add(verb.toolchain);
        this.#playAgents();
        return { state: 'active', detail: 'running (fake)' };
      case 'agent.stop':
        this.#agents.delete(verb.toolchain);
        return { state: 'inactive', detail: '' };
      case 'agent.state':
        return { state: this.#agents.has(verb.toolchain) ? 'active' : 'inactive', detail: 'fake' };
      case 'hostname.set':
        return { changed: true };
      case 'reboot':
        return { started: true };
      case 'machine.snapshot':
      case 'machine.delete':
      case 'machine.start':
      case 'machine.stop':
      case 'machine.list':
      case 'machine.wait':
        throw new Error(`The fake helper does not know ${verb.verb}`);
      default:
        return verb satisfies never;
    }
  }

  #bootstrap(verb: Extract<Verb, { readonly verb: 'bootstrap.start' }>): object {
    const { toolchain } = verb;
    const prefix = join(this.#root, 'build/toolchains', toolchain);
    mkdirSync(prefix, { recursive: true });
    const log = openSync(join(this.#root, 'build/tftp/toolchains', toolchain, 'bootstrap.log'), 'a');
    const work = mkdtempSync(join(this.#root, 'work-'));
    const [program = '', ...args] = verb.command;
    const child = spawn(program, args, {
      cwd: work,
      detached: true,
      env: { PATH: process.env['PATH'] ?? '', ...verb.environment },
      stdio: ['ignore', log, log],
    });
    const one = { child, state: 'running', detail: '' };
    const timer = setTimeout(() => {
      one.state = 'timeout';
      one.detail = 'ended after its time limit';
      killGroup(child);
    }, verb.timeLimitSeconds * 1000);
    child.on('exit', (status) => {
      clearTimeout(timer);
      if (one.state !== 'running') return;
      one.state = status === 0 ? 'success' : 'failed';
      one.detail = `exit status ${String(status)}`;
    });
    this.#bootstraps.set(toolchain, one);
    return { unit: `buildos-bootstrap-${toolchain}.service`, started: true };
  }

  /** An agent that keeps to the contract: claims nothing while the drain file exists, and says so. */
  #playAgents(): void {
    const isDraining = existsSync(join(this.#root, 'run/buildos/monitor/drain'));
    for (const toolchain of this.#agents) {
      const tasks = Array.from({ length: this.tasks }, (_, index) => ({ build: `${toolchain}-${index}` }));
      const state = isDraining ? 'draining' : this.tasks > 0 ? 'busy' : 'polling';
      const text = JSON.stringify({ state, tasks, undelivered: this.undelivered, events: [] });
      writeFileSync(join(this.#root, `run/buildos/agents/${toolchain}.json`), text);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#beat);
    for (const { child } of this.#bootstraps.values()) killGroup(child);
    this.#server.close();
    await once(this.#server, 'close');
  }
}

export function killGroup(child: ChildProcess | undefined): void {
  if (child?.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  process.kill(-child.pid, 'SIGKILL');
}
