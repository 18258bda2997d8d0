/** A build host on this machine for tests of agent and worker: folders, controller, sources, a played helper, the agent as a process. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { Server } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { readLog, readTaskView, submitTask } from '../../controller/client.ts';
import { openController } from '../../controller/server.ts';
import type { Controller } from '../../controller/server.ts';
import type { TaskView } from '../../controller/task-view.ts';
import type { HostJson } from '../../host/host-json.ts';
import { formatHostJson } from '../../host/host-json.ts';
import type { Task } from '../../manifests/task.ts';
import { formatToolchainJson } from '../../manifests/toolchain.ts';
import { FakeHelper, TOP } from './_agent-helper.ts';

export const MACHINE = 'linux_test-gcc_1';
export const SECONDS = 1000;

const CONFIGURE = `#!/bin/sh
echo "checking for prefix... $*"
echo "MESSAGE = $MESSAGE" > config.mk
`;
const MAKEFILE = `include config.mk
all:
\t@echo "$\${NOISE:-building}"
\t@if [ -n "$\${MARK}" ]; then echo "$$$$" > "$\${MARK}"; fi; exec sleep "$\${SLOW:-0}"
\t@echo "$(MESSAGE)" > tiny
check:
\t@test -s tiny && echo "PASS: tiny"
install:
\tmkdir -p $(DESTDIR)/usr/local/share && cp tiny $(DESTDIR)/usr/local/share/
`;

/** A build host on this machine: folders, controller, sources, helper, agent. */
export class Bench implements AsyncDisposable {
  readonly folder: string;
  readonly helper: FakeHelper;
  readonly #stack = new AsyncDisposableStack();
  controller: Controller;
  sourceUrl = '';
  agent: ChildProcess | undefined;
  output = '';

  private constructor(folder: string, helper: FakeHelper, controller: Controller) {
    this.folder = folder;
    this.helper = helper;
    this.controller = controller;
  }

  static async open(): Promise<Bench> {
    const folder = await mkdtemp(join(tmpdir(), 'agent-'));
    const helper = await FakeHelper.open(folder);
    const controller = await openController({ folder: join(folder, 'controller'), address: '127.0.0.1', port: 0 });
    const bench = new Bench(folder, helper, controller);
    bench.#stack.defer(() => rm(folder, { recursive: true, force: true }));
    bench.#stack.use(helper);
    bench.#stack.defer(() => bench.controller.close());
    await bench.#makeHost();
    bench.sourceUrl = await bench.#serveSource();
    return bench;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stopAgent('SIGKILL');
    await this.#stack.disposeAsync();
  }

  path(...parts: readonly string[]): string {
    return join(this.folder, ...parts);
  }

  async #makeHost(): Promise<void> {
    const machine = this.path('machines', 'default', MACHINE);
    await mkdir(join(machine, 'root'), { recursive: true });
    await writeFile(join(machine, 'manifest'), `: 1\nid: 1\nname: ${MACHINE}\nsummary: Test\ntype: nspawn\n`);
    const toolchain = this.path('tftp', 'toolchains', 'default');
    await mkdir(join(toolchain, 'v1'), { recursive: true });
    await mkdir(this.path('run'));
    await mkdir(this.path('prefix-source', 'bin'), { recursive: true });
    await writeFile(this.path('prefix-source', 'bin', 'mk'), '#!/bin/sh\nexec make --no-print-directory "$@"\n', {
      mode: 0o755,
    });
    await command('tar', '-C', this.path('prefix-source'), '-cf', join(toolchain, 'toolchain.tar'), '.');
    await writeFile(
      join(toolchain, 'v1', 'toolchain.json'),
      formatToolchainJson({
        bootstrap: { command: ['true'], timeLimitSeconds: 1, leaves: [], environment: {} },
        agent: 'agent.tar',
        machine: { environment: { MAKE: '{prefix}/bin/mk' } },
      }),
    );
    await writeFile(this.path('tftp', 'status.json'), '{"toolchains":{"default":{"version":"1"}}}');
    await this.configure([this.controller.url]);
  }

  /** Writes what the agent reads at its start. */
  async configure(
    controllers: readonly string[],
    state: string = this.path('state', 'agent', 'default'),
  ): Promise<void> {
    const host: HostJson = {
      buildId: 'test',
      problems: [],
      boot: { steps: [] },
      options: {
        toolchains: {
          default: {
            controllers: controllers.map((url) => ({ priority: '0', url })),
            controllerTrust: [],
            instances: 1,
            ramMiB: 512,
            interactive: 'false',
          },
        },
        monitorIntervalSeconds: 60,
        sshKeys: [],
        initDebug: false,
        initShell: false,
      },
    };
    await writeFile(this.path('host.json'), formatHostJson(host));
    const paths = {
      hostJson: this.path('host.json'),
      status: this.path('tftp', 'status.json'),
      machines: this.path('machines'),
      toolchain: this.path('tftp', 'toolchains', 'default'),
      builds: this.path('tftp', 'builds', 'default'),
      state,
      ramTasks: this.path('run', 'default-tasks'),
      ramResults: this.path('run', 'default-results'),
      stateFile: this.path('run', 'default.json'),
      drain: this.path('run', 'drain'),
      helperSocket: this.helper.socket,
      tftpAddress: '127.0.0.1',
      tftpPeer: '127.0.0.1',
    };
    const times = {
      startMs: 4 * SECONDS,
      taskMs: 60 * SECONDS,
      idleMs: [200, 400],
      errorMs: [300, 600],
      drainMs: 100,
      requestMs: 2 * SECONDS,
      uploadMs: 10 * SECONDS,
      stopMs: 2 * SECONDS,
    };
    await writeFile(this.path('paths.json'), JSON.stringify({ paths, times }));
  }

  async #serveSource(): Promise<string> {
    const source = this.path('tiny-1.0');
    await mkdir(source);
    await writeFile(join(source, 'configure'), CONFIGURE, { mode: 0o755 });
    await writeFile(join(source, 'Makefile'), MAKEFILE);
    const archive = this.path('tiny-1.0.tar.gz');
    await command('tar', '-C', this.folder, '-czf', archive, 'tiny-1.0');
    const bytes = await readFile(archive);
    const server = createServer((_request, response) => response.end(bytes));
    const port = await listen(server);
    this.#stack.defer(() => closeServer(server));
    return `http://127.0.0.1:${port}/tiny-1.0.tar.gz#sha256=${createHash('sha256').update(bytes).digest('hex')}`;
  }

  startAgent(): void {
    const agent = spawn(process.execPath, [join(TOP, 'agent/main.ts'), 'default', '--paths', this.path('paths.json')], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const keep = (chunk: Buffer): void => {
      this.output += chunk.toString();
    };
    agent.stdout.on('data', keep);
    agent.stderr.on('data', keep);
    this.agent = agent;
  }

  async stopAgent(signal: NodeJS.Signals): Promise<number | null> {
    const { agent } = this;
    this.agent = undefined;
    if (agent === undefined) return null;
    if (agent.exitCode === null && agent.signalCode === null) {
      const ended = once(agent, 'exit');
      agent.kill(signal);
      await ended;
    }
    return agent.exitCode;
  }

  submit(change: Partial<Task> = {}): Promise<string> {
    return submitTask(
      { url: this.controller.url },
      {
        name: 'tiny',
        version: '1.0',
        repositoryType: 'archive',
        repositoryUrl: this.sourceUrl,
        machine: MACHINE,
        target: 'x86_64-linux-gnu',
        ...change,
      },
    );
  }

  view(id: string): Promise<TaskView> {
    return readTaskView({ url: this.controller.url }, id);
  }

  log(id: string, operation: string): Promise<string> {
    return readLog({ url: this.controller.url }, id, operation);
  }

  async done(id: string, limitMs: number = 30 * SECONDS): Promise<TaskView> {
    return this.until(`task ${id} is done`, limitMs, async () => {
      const view = await this.view(id);
      return view.state === 'done' || view.state === 'given-up' ? view : undefined;
    });
  }

  /** Waits for something; on the deadline the agent's output is in the message. */
  async until<T>(what: string, limitMs: number, look: () => Promise<T | undefined> | T | undefined): Promise<T> {
    const end = performance.now() + limitMs;
    for (;;) {
      const found = await look();
      if (found !== undefined) return found;
      if (performance.now() > end)
        assert.fail(`not within ${limitMs} ms: ${what}\n--- the agent said:\n${this.output}`);
      await sleep(50);
    }
  }

  untilSaid(pattern: RegExp, limitMs: number = 15 * SECONDS): Promise<true> {
    return this.until(`the agent says ${String(pattern)}`, limitMs, () =>
      pattern.test(this.output) ? true : undefined,
    );
  }

  state(): { state: string; undelivered: number; lastError?: string; events: { name: string }[] } {
    return JSON.parse(readFileSync(this.path('run', 'default.json'), 'utf8'));
  }

  /** What must not be there when nothing runs. */
  async leftOver(): Promise<readonly string[]> {
    const kept = async (folder: string): Promise<readonly string[]> => readdir(folder).catch(() => []);
    const state = this.path('state', 'agent', 'default');
    return [
      ...this.helper.alive(),
      ...(await kept(join(state, 'tasks'))),
      ...(await kept(join(state, 'results'))),
      ...(await kept(this.path('run', 'default-tasks'))),
      ...(await kept(this.path('run', 'default-results'))),
    ];
  }
}

async function command(...argv: readonly [string, ...string[]]): Promise<void> {
  const [program, ...args] = argv;
  const [status] = await once(spawn(program, args, { stdio: 'inherit' }), 'exit');
  assert.equal(status, 0, argv.join(' '));
}

export async function listen(server: Server): Promise<number> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  assert.ok(typeof address === 'object' && address !== null);
  return address.port;
}

export async function closeServer(server: Server): Promise<void> {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
}
