/**
 * The agent as a process, with a real controller, real TFTP instances and the real worker. Only the helper is a fake: it
 * runs the worker as a plain process on this machine instead of a container in a snapshot.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { copyFile, mkdir, mkdtemp, readdir, readFile, readlink, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { Server } from 'node:http';
import { createServer as createSocketServer } from 'node:net';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { readLog, readTaskView, submitTask } from '../../controller/client.ts';
import { openController } from '../../controller/server.ts';
import type { Controller } from '../../controller/server.ts';
import type { TaskView } from '../../controller/task-view.ts';
import type { HostJson } from '../../host/host-json.ts';
import { formatHostJson } from '../../host/host-json.ts';
import { parseVerb } from '../../helper/verb.ts';
import type { Verb } from '../../helper/verb.ts';
import { parseResult } from '../../manifests/result.ts';
import type { Result } from '../../manifests/result.ts';
import { formatTask } from '../../manifests/task.ts';
import type { Task } from '../../manifests/task.ts';
import { formatToolchainJson } from '../../manifests/toolchain.ts';
import { put } from '../../tftp/client.ts';
import { TransferError } from '../../tftp/error.ts';
import { serveMachine } from '../../tftp/instance.ts';
import type { TftpServer } from '../../tftp/server.ts';

const TOP = join(import.meta.dirname, '..', '..');
const MACHINE = 'linux_test-gcc_1';
const SECONDS = 1000;

const CONFIGURE = `#!/bin/sh
echo "checking for prefix... $*"
echo "MESSAGE = $MESSAGE" > config.mk
`;
const MAKEFILE = `include config.mk
all:
\t@echo "$\${NOISE:-building}"
\t@if [ -n "$\${MARK}" ]; then echo "$$$$" > "$\${MARK}"; fi
\t@sleep "$\${SLOW:-0}"
\t@echo "$(MESSAGE)" > tiny
check:
\t@test -s tiny && echo "PASS: tiny"
install:
\tmkdir -p $(DESTDIR)/usr/local/share && cp tiny $(DESTDIR)/usr/local/share/
`;

/** What the machine does that the fake helper starts. */
type Behaviour = 'worker' | 'silent' | 'fill';

/** A build host on this machine: folders, controller, sources, helper, agent. */
class Bench implements AsyncDisposable {
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
  async configure(controllers: readonly string[], state = this.path('state', 'agent', 'default')): Promise<void> {
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

  async done(id: string, limitMs = 30 * SECONDS): Promise<TaskView> {
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

  untilSaid(pattern: RegExp, limitMs = 15 * SECONDS): Promise<true> {
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

/** Answers the verbs that an agent uses. It is a fake: a "machine" is a process of this machine. */
class FakeHelper implements AsyncDisposable {
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
        return { unit: 'fake', started: true, warnings: [] };
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
      [
        join(TOP, 'agent/worker/main.ts'),
        '--server',
        '127.0.0.1',
        '--port',
        String(verb.port),
        '--prefix',
        join(root, 'prefix'),
        '--work',
        join(root, 'work'),
      ],
      { stdio: 'ignore', detached: true },
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

function killQuietly(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has ended by itself.
  }
}

/** Processes whose working directory is in a folder, zombies left out. */
async function processesIn(folder: string): Promise<readonly number[]> {
  const pids = (await readdir('/proc')).filter((name) => /^[0-9]+$/.test(name));
  const found = await Promise.all(
    pids.map(async (pid) => {
      const directory = await readlink(`/proc/${pid}/cwd`).catch(() => '');
      return directory.startsWith(`${folder}/`) ? [Number(pid)] : [];
    }),
  );
  return found.flat();
}

async function command(...argv: readonly [string, ...string[]]): Promise<void> {
  const [program, ...args] = argv;
  const [status] = await once(spawn(program, args, { stdio: 'inherit' }), 'exit');
  assert.equal(status, 0, argv.join(' '));
}

async function listen(server: Server): Promise<number> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  assert.ok(typeof address === 'object' && address !== null);
  return address.port;
}

async function closeServer(server: Server): Promise<void> {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
}

const timeout = 60 * SECONDS;

/** Starts the worker alone, against an instance that the test may stop and start. */
async function runWorker(
  bench: Bench,
  task: Partial<Task>,
  options: {
    readonly words?: readonly string[];
    readonly during?: (stop: () => Promise<void>, begin: () => Promise<void>) => Promise<void>;
  },
): Promise<{ readonly status: number | null; readonly log: string; readonly result: Result }> {
  const folder = bench.path('alone');
  await mkdir(folder);
  const whole: Task = {
    name: 'tiny',
    version: '1.0',
    repositoryType: 'archive',
    repositoryUrl: bench.sourceUrl,
    machine: MACHINE,
    target: 'x86_64-linux-gnu',
    ...task,
  };
  await writeFile(join(folder, 'task.manifest'), formatTask(whole));
  const toolchain = bench.path('tftp', 'toolchains', 'default');
  await copyFile(join(toolchain, 'toolchain.tar'), join(folder, 'toolchain.tar'));
  await copyFile(join(toolchain, 'v1', 'toolchain.json'), join(folder, 'toolchain.json'));
  let port = 0;
  let server: TftpServer | undefined;
  const begin = async (): Promise<void> => {
    server = await serveMachine({
      folder,
      address: '127.0.0.1',
      port,
      peer: '127.0.0.1',
      writable: {
        'result.manifest': { maxBytes: 15_000_000, rule: 'replace' },
        'upload.tar': { maxBytes: 100_000_000, rule: 'replace' },
        log: { maxBytes: 10_000_000, rule: 'append' },
      },
    });
    ({ port } = server);
  };
  const stop = async (): Promise<void> => server?.close();
  await begin();
  const child = spawn(
    process.execPath,
    [
      join(TOP, 'agent/worker/main.ts'),
      '--server',
      '127.0.0.1',
      '--port',
      String(port),
      '--prefix',
      bench.path('alone-prefix'),
      '--work',
      bench.path('alone-work'),
      ...(options.words ?? []),
    ],
    { stdio: ['ignore', 'ignore', 'inherit'] },
  );
  try {
    const ended = once(child, 'exit');
    await options.during?.(stop, begin);
    await ended;
    return {
      status: child.exitCode,
      log: await readFile(join(folder, 'log'), 'utf8'),
      result: parseResult(await readFile(join(folder, 'result.manifest'), 'utf8')),
    };
  } finally {
    child.kill('SIGKILL');
    (await processesIn(bench.path('alone-work'))).forEach(killQuietly);
    await stop();
  }
}

test('worker: a host that does not answer for some seconds costs nothing of the log', { timeout }, async () => {
  await using bench = await Bench.open();
  const mark = bench.path('mark');
  const { status, log, result } = await runWorker(
    bench,
    { environment: `MESSAGE=x MARK=${mark} SLOW=4` },
    {
      during: async (stop, begin) => {
        await bench.until('the build runs', 20 * SECONDS, () => (existsSync(mark) ? true : undefined));
        await sleep(1200);
        await stop();
        await sleep(4 * SECONDS);
        await begin();
      },
    },
  );
  assert.equal(status, 0);
  assert.equal(result.status, 'success');
  const [start, ...rest] = log.split('=== build tiny 1.0\n');
  assert.match(start ?? '', /configure: success/);
  assert.equal(rest.length, 1);
  assert.match(rest[0] ?? '', /^\$ .*mk\nbuilding\n=== build: success\n[^]*=== result: success\n$/);
});

test('worker: an operation that takes too long is stopped with all its children', { timeout }, async () => {
  await using bench = await Bench.open();
  const mark = bench.path('mark');
  const { result } = await runWorker(
    bench,
    { environment: `MESSAGE=x MARK=${mark} SLOW=100` },
    { words: ['--operation-limit', '2'] },
  );
  assert.equal(result.status, 'abort');
  assert.match(
    result.operations.at(-1)?.log ?? '',
    /ran longer than 2 s\nnot run because of this: check, install, upload/,
  );
  const shell = (await readFile(mark, 'utf8')).trim();
  await bench.until('its shell is gone', 2000, () => (existsSync(`/proc/${shell}`) ? undefined : true));
});

test('worker: a source that is not what the task names is not unpacked', { timeout }, async () => {
  await using bench = await Bench.open();
  const repositoryUrl = bench.sourceUrl.replace(/[0-9a-f]{64}$/, '0'.repeat(64));
  const { result } = await runWorker(bench, { repositoryUrl }, {});
  assert.equal(result.status, 'error');
  assert.match(result.operations[0]?.log ?? '', /Cannot trust .* its SHA-256 is [0-9a-f]{64}, the task names 0{64}/);
});

test('agent: a task is built in a machine, and result, log and upload come back', { timeout }, async () => {
  await using bench = await Bench.open();
  const id = await bench.submit({ environment: 'MESSAGE=hello', targetConfig: '--disable-nls' });
  bench.startAgent();
  const view = await bench.done(id);
  assert.equal(view.status, 'success', bench.output);
  assert.deepEqual(
    view.operations.map(({ operation, status }) => `${operation} ${status}`),
    ['configure success', 'build success', 'check success', 'install success', 'upload success'],
  );
  assert.match(await bench.log(id, 'configure'), /checking for prefix\.\.\. --prefix=\/usr\/local --disable-nls/);
  assert.match(await bench.log(id, 'check'), /PASS: tiny/);
  assert.equal(view.uploads.length, 1);
  assert.ok((view.uploads[0]?.sizeBytes ?? 0) >= 10_240);

  await bench.until('nothing is left over', 5000, async () =>
    (await bench.leftOver()).length === 0 ? true : undefined,
  );
  const log = await readFile(bench.path('tftp', 'builds', 'default', 'default-1', 'log'), 'utf8');
  assert.match(log, /=== configure tiny 1\.0[^]*=== upload: success\n=== result: success\n$/);
  assert.deepEqual((await readdir(bench.path('tftp', 'builds', 'default', 'default-1'))).sort(), [
    'log',
    'result.manifest',
    'task.manifest',
  ]);
  const { events } = await bench.until('the agent knows that it is delivered', 5000, () => {
    const state = bench.state();
    return state.undelivered === 0 ? state : undefined;
  });
  assert.deepEqual(
    events.map(({ name }) => name),
    ['agent-ready', 'task-claimed', 'job-started', 'result'],
  );
  assert.equal(await bench.stopAgent('SIGTERM'), 0, bench.output);
});

test('agent: a failing operation ends the build, a matching line is a warning', { timeout }, async () => {
  await using bench = await Bench.open();
  const failing = await bench.submit({ environment: 'SLOW=nonsense' });
  const warning = await bench.submit({
    environment: 'NOISE="tiny.c:1: warning: x" MESSAGE=x',
    warningRegex: ['^.+: warning: '],
  });
  const foreign = await bench.submit({ repositoryType: 'git' });
  bench.startAgent();
  const failed = await bench.done(failing);
  assert.deepEqual(
    failed.operations.map(({ operation, status }) => `${operation} ${status}`),
    ['configure success', 'build error'],
  );
  assert.match(
    await bench.log(failing, 'build'),
    /ended with status 2\nnot run because of this: check, install, upload/,
  );
  assert.equal((await bench.done(warning)).status, 'warning');
  assert.equal((await bench.done(foreign)).status, 'error');
  assert.match(await bench.log(foreign, 'configure'), /repository-type "git" is not supported[^]*hint: /);
});

test(
  'agent: killed with SIGKILL during a build, its successor gives the task back, and it is built',
  { timeout },
  async () => {
    await using bench = await Bench.open();
    const id = await bench.submit({ environment: `MESSAGE=x SLOW=3 MARK=${bench.path('mark')}` });
    bench.startAgent();
    await bench.until('the build runs', 20 * SECONDS, () => (existsSync(bench.path('mark')) ? true : undefined));
    await bench.stopAgent('SIGKILL');
    assert.deepEqual(bench.helper.alive(), ['default-1'], 'the machine of the killed agent is still there');
    bench.startAgent();
    const view = await bench.done(id);
    assert.equal(view.status, 'success', bench.output);
    assert.deepEqual(
      view.events.map(({ name }) => name),
      ['submitted', 'claimed', 'interrupt', 'claimed', 'upload', 'result'],
    );
    assert.match(bench.output, /cleaned up after default-1/);
    await bench.until('nothing is left over', 5000, async () =>
      (await bench.leftOver()).length === 0 ? true : undefined,
    );
  },
);

test('agent: told to stop during a build, it gives the task back before it ends', { timeout }, async () => {
  await using bench = await Bench.open();
  const id = await bench.submit({ environment: `SLOW=30 MARK=${bench.path('mark')}` });
  bench.startAgent();
  await bench.until('the build runs', 20 * SECONDS, () => (existsSync(bench.path('mark')) ? true : undefined));
  const start = performance.now();
  assert.equal(await bench.stopAgent('SIGTERM'), 0, bench.output);
  assert.ok(performance.now() - start < 10 * SECONDS);
  assert.equal((await bench.view(id)).state, 'queued');
  assert.deepEqual(await bench.leftOver(), []);
});

test('agent: a controller that is away gets the result later, once', { timeout }, async () => {
  await using bench = await Bench.open();
  const id = await bench.submit({ environment: `MESSAGE=x SLOW=1 MARK=${bench.path('mark')}` });
  bench.startAgent();
  await bench.until('the build runs', 20 * SECONDS, () => (existsSync(bench.path('mark')) ? true : undefined));
  const { port } = bench.controller;
  await bench.controller.close();
  await bench.until('the result waits', 20 * SECONDS, () => (bench.state().undelivered === 1 ? true : undefined));
  await bench.untilSaid(/result of default-1 waits: Cannot reach/);
  assert.equal((await readdir(bench.path('state', 'agent', 'default', 'results'))).length, 2);
  assert.equal(await bench.stopAgent('SIGTERM'), 0, bench.output);
  bench.startAgent();
  await bench.untilSaid(/result of default-1 waits: Cannot reach[^]*result of default-1 waits: Cannot reach/);
  bench.controller = await openController({ folder: bench.path('controller'), address: '127.0.0.1', port });
  const view = await bench.done(id);
  assert.equal(view.status, 'success', bench.output);
  assert.deepEqual(
    view.events.map(({ name }) => name),
    ['submitted', 'claimed', 'upload', 'result'],
  );
  await bench.until('nothing is left over', 5000, async () =>
    (await bench.leftOver()).length === 0 ? true : undefined,
  );
  assert.equal(bench.output.match(/result of default-1 delivered/g)?.length, 1);
});

test(
  'agent: without a writable state folder, tasks and results are kept in RAM, and it says so',
  { timeout },
  async () => {
    await using bench = await Bench.open();
    await bench.configure([bench.controller.url], '/proc/nowhere/agent/default');
    const id = await bench.submit({ environment: 'MESSAGE=x' });
    bench.startAgent();
    assert.equal((await bench.done(id)).status, 'success', bench.output);
    assert.match(bench.output, /Cannot keep .* in \/proc\/nowhere\/agent\/default\/results: .*kept in RAM/);
    assert.match(bench.output, /Cannot keep the key/);
    assert.equal(bench.state().lastError?.includes('kept in RAM'), true);
  },
);

test('agent: a killed worker is an abnormal result that says so', { timeout }, async () => {
  await using bench = await Bench.open();
  const id = await bench.submit({ environment: `SLOW=30 MARK=${bench.path('mark')}` });
  bench.startAgent();
  await bench.until('the build runs', 20 * SECONDS, () => (existsSync(bench.path('mark')) ? true : undefined));
  await sleep(1500);
  bench.helper.worker()?.kill('SIGKILL');
  const view = await bench.done(id);
  assert.equal(view.status, 'abnormal');
  assert.match(await bench.log(id, 'machine'), /worker was killed by signal 9[^]*The end of its log:[^]*building/);
});

test('agent: a machine that never asks for its task is stopped', { timeout }, async () => {
  await using bench = await Bench.open();
  bench.helper.behaviour = 'silent';
  const id = await bench.submit();
  bench.startAgent();
  const view = await bench.done(id);
  assert.equal(view.status, 'abnormal');
  assert.match(await bench.log(id, 'machine'), /did not ask for its task within 4 s[^]*hint: /);
  await bench.until('nothing is left over', 5000, async () =>
    (await bench.leftOver()).length === 0 ? true : undefined,
  );
});

test(
  'agent: a machine that writes all it can is refused, and the host goes on',
  { timeout: 120 * SECONDS },
  async () => {
    await using bench = await Bench.open();
    bench.helper.behaviour = 'fill';
    const id = await bench.submit();
    bench.startAgent();
    const view = await bench.done(id, 90 * SECONDS);
    assert.equal(view.status, 'abnormal');
    assert.deepEqual(bench.helper.refusals, [
      'log: 3 peer',
      'other: 2 peer',
      '../escape: 2 peer',
      'task.manifest: 2 peer',
      'upload.tar: 3 peer',
      'result.manifest: 3 peer',
    ]);
    assert.match(bench.output, /TFTP: write of "upload\.tar" failed/);
    const next = await bench.submit({ environment: 'MESSAGE=x' });
    bench.helper.behaviour = 'worker';
    assert.equal((await bench.done(next)).status, 'success');
  },
);

test('agent: a controller that answers garbage is named, and does not hold back another', { timeout }, async () => {
  await using bench = await Bench.open();
  const answers = ['<html>Welcome</html>', 'x'.repeat(3_000_000), ': 1\nsession: s\n'];
  let asked = 0;
  const garbage = createServer((_request, response) => {
    response.end(answers[asked % answers.length]);
    asked += 1;
  });
  const slow = createServer(() => undefined);
  const urls = [await listen(garbage), await listen(slow)].map((port) => `http://127.0.0.1:${port}`);
  try {
    await bench.configure([...urls, bench.controller.url]);
    const id = await bench.submit({ environment: 'MESSAGE=x' });
    bench.startAgent();
    assert.equal((await bench.done(id)).status, 'success', bench.output);
    await bench.untilSaid(/line 1, column 21: .*it begins with "<html>Welcome/);
    await bench.untilSaid(/answered with more than 1000000 bytes \(is that the URL of a controller\?/);
    await bench.untilSaid(/a task is expected after the response with a session|"result-url" is missing/);
    await bench.untilSaid(/no answer within 2 s/);
    assert.ok(asked < 100, `asked ${asked} times`);
  } finally {
    await closeServer(garbage);
    await closeServer(slow);
  }
});

test('agent: takes no task while the drain file is there', { timeout }, async () => {
  await using bench = await Bench.open();
  await writeFile(bench.path('run', 'drain'), '{"reason":"test"}');
  const id = await bench.submit({ environment: 'MESSAGE=x' });
  bench.startAgent();
  await bench.until('it drains', 15 * SECONDS, () =>
    existsSync(bench.path('run', 'default.json')) && bench.state().state === 'draining' ? true : undefined,
  );
  await sleep(1000);
  assert.equal((await bench.view(id)).state, 'queued');
  await rm(bench.path('run', 'drain'));
  assert.equal((await bench.done(id)).status, 'success');
});
