/**
 * The real monitor as a process, on a folder that plays the host's root. Everything else is a stand-in:
 *
 * - the helper is a FAKE: a socket that speaks the helper's protocol, runs bootstraps as plain children, plays an
 *   agent that does what its state file says, and counts reboots instead of rebooting;
 * - what is published comes from an HTTP server on the loopback, from memory.
 *
 * Whether the monitor says the right things to systemd is seen on a real notify socket.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { type Server as HttpServer, createServer as createHttpServer } from 'node:http';
import { type Server as NetServer, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { create } from 'tar';
import { type Verb, parseVerb } from '../../helper/verb.ts';
import { formatHostJson } from '../../host/host-json.ts';
import { FetchError, TEXT_LIMITS, fetchDigest, fetchText, fetchToFile } from '../../monitor/fetch.ts';
import { formatImageManifest } from '../../manifests/image-manifest.ts';
import { formatSha256Sums } from '../../manifests/sha256sums.ts';
import { formatToolchainList } from '../../manifests/toolchain-list.ts';
import { type ToolchainJson, formatToolchainJson } from '../../manifests/toolchain.ts';
import { get } from '../../tftp/client.ts';
import { serveFolder } from '../../tftp/server.ts';

const TOP = join(import.meta.dirname, '..', '..');
const LIMIT = { timeout: 90_000 };

const sha256 = (content: string | Uint8Array): string => createHash('sha256').update(content).digest('hex');

/** What is published, from memory. */
class Publisher implements AsyncDisposable {
  readonly files = new Map<string, string | Uint8Array>();
  /** paths asked for, in order */
  readonly asked: string[] = [];
  /** answers nothing but 503 */
  isDown = false;
  readonly #server: HttpServer;

  constructor() {
    this.#server = createHttpServer((request, response) => {
      const path = request.url ?? '';
      this.asked.push(path);
      const content = this.files.get(path);
      if (this.isDown) response.writeHead(503).end();
      else if (path === '/silence') response.writeHead(200, { 'content-length': '10' }).write('x');
      else if (path === '/cut')
        response.writeHead(200, { 'content-length': '10' }).end('x', () => request.socket.destroy());
      else if (content === undefined) response.writeHead(404).end();
      else response.writeHead(200).end(content);
    });
  }

  async listen(): Promise<this> {
    this.#server.listen(0, '127.0.0.1');
    await once(this.#server, 'listening');
    return this;
  }

  url(path: string): string {
    const address = this.#server.address();
    assert.ok(typeof address === 'object' && address !== null);
    return `http://127.0.0.1:${address.port}${path}`;
  }

  /** Publishes an image in one step, or with parts left as they were. */
  image(buildId: string, stale: readonly string[] = []): void {
    const kernel = `kernel of ${buildId}`;
    const initrd = `initrd of ${buildId}`;
    const manifest = formatImageManifest({
      format: 1,
      buildId,
      host: 'build-host',
      hostSha256: sha256('host'),
      architecture: 'amd64',
      base: { name: 'debian', version: '13', suite: 'trixie' },
      kernelVersion: '6.12',
      node: { version: '26.10.0', sha256: sha256('node') },
      packages: [],
      files: [
        { path: 'buildos-image', sha256: sha256(kernel), sizeBytes: kernel.length },
        { path: 'buildos-initrd', sha256: sha256(initrd), sizeBytes: initrd.length },
      ],
      rootfsBytes: 1,
    });
    const content: Record<string, string> = {
      'buildos-image': kernel,
      'buildos-initrd': initrd,
      'buildos-manifest.json': manifest,
      'buildos-buildid': `${buildId}\n`,
    };
    const sums = Object.entries(content).map(([path, text]) => ({ path, sha256: sha256(text) }));
    content['SHA256SUMS'] = formatSha256Sums(sums);
    for (const [name, text] of Object.entries(content)) {
      if (!stale.includes(name)) this.files.set(`/image/${name}`, text);
    }
  }

  /** Publishes a toolchain; `files` come on top of toolchain.json. */
  toolchain(
    name: string,
    options: {
      readonly version?: string;
      readonly script: string;
      readonly timeLimitSeconds?: number;
      readonly agent: Uint8Array;
      readonly leaves?: readonly string[];
    },
  ): void {
    const json: ToolchainJson = {
      bootstrap: {
        command: ['sh', '{files}/bootstrap.sh', '{prefix}'],
        timeLimitSeconds: options.timeLimitSeconds ?? 30,
        leaves: options.leaves ?? ['bin/tool'],
        environment: { WHERE: '{prefix}' },
      },
      agent: 'agent.tar',
      machine: { environment: {} },
    };
    const files = new Map<string, string | Uint8Array>([
      ['toolchain.json', formatToolchainJson(json)],
      ['bootstrap.sh', options.script],
      ['agent.tar', options.agent],
    ]);
    for (const [path, content] of files) this.files.set(`/${name}/${path}`, content);
    const list = formatToolchainList({
      version: options.version ?? '1.0',
      disabled: false,
      files: [...files].map(([path, content]) => ({ path, sha256: sha256(content) })),
    });
    this.files.set(`/${name}/list`, list);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }
}

/** The FAKE helper: no root, no systemd. */
class FakeHelper implements AsyncDisposable {
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

function killGroup(child: ChildProcess | undefined): void {
  if (child?.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  process.kill(-child.pid, 'SIGKILL');
}

/**
 * systemd's end of the notify socket. Node has no Unix datagram sockets, so libc is asked. It is read all the time:
 * the kernel queues ten messages, then sd_notify() waits.
 */
class NotifySocket implements Disposable {
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

const STATUS = z.looseObject({
  state: z.string(),
  status: z.string(),
  problems: z.array(z.string()),
  toolchains: z.record(
    z.string(),
    z.looseObject({ state: z.string(), agent: z.string(), error: z.string().optional(), hint: z.string().optional() }),
  ),
  events: z.array(z.object({ name: z.string(), uptimeMs: z.number() })),
});
type Status = z.infer<typeof STATUS>;

/** A folder that plays a host's root, and the monitors that run on it one after the other. */
class Host implements AsyncDisposable {
  readonly root = mkdtempSync(join(tmpdir(), 'monitor-'));
  readonly #running: ChildProcess[] = [];
  output = '';

  constructor(options: {
    readonly buildId?: string;
    readonly buildidUrl?: string;
    readonly toolchains?: Readonly<Record<string, string>>;
  }) {
    for (const folder of ['run/buildos/agents', 'run/buildos/monitor', 'state/monitor', 'build/agents']) {
      mkdirSync(join(this.root, folder), { recursive: true });
    }
    const toolchains = Object.entries(options.toolchains ?? {}).map(([name, url]) => [
      name,
      {
        url,
        controllers: [{ priority: '0', url: 'http://127.0.0.1:9/' }],
        controllerTrust: [],
        interactive: 'false' as const,
      },
    ]);
    const host = {
      buildId: options.buildId ?? 'id-a',
      options: {
        ...(options.buildidUrl === undefined ? {} : { buildidUrl: options.buildidUrl }),
        toolchains: Object.fromEntries(toolchains),
        monitorIntervalSeconds: 1,
        sshKeys: [],
        hostname: 'test',
        initDebug: false,
        initShell: false,
      },
      problems: [{ name: 'buildos.buildid_ulr', value: 'x', message: 'unknown', hint: 'did you mean buildid_url?' }],
      boot: { steps: [] },
    };
    writeFileSync(join(this.root, 'run/buildos/host.json'), formatHostJson(host));
  }

  path(name: string): string {
    return join(this.root, name);
  }

  read(name: string): string {
    return readFileSync(this.path(name), 'utf8');
  }

  /** Starts the monitor; `bundle` instead of the sources. */
  start(
    options: { readonly notify?: NotifySocket; readonly program?: string; readonly timing?: readonly string[] } = {},
  ): ChildProcess {
    const timing = ['lookSpread=0', 'retryFirstMs=1500', 'seeAgentsEveryMs=200', ...(options.timing ?? [])];
    const args = ['--root', this.root, '--listen', '127.0.0.1:0', '--state', 'disk'];
    const program = options.program ?? join(TOP, 'monitor/main.ts');
    const child = spawn(process.execPath, [program, ...args, ...timing.flatMap((one) => ['--timing', one])], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: {
        PATH: process.env['PATH'] ?? '',
        ...(options.notify === undefined ? {} : { NOTIFY_SOCKET: options.notify.path, WATCHDOG_USEC: '4000000' }),
      },
    });
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (chunk: Buffer) => (this.output += chunk.toString()));
    this.#running.push(child);
    return child;
  }

  status(): Status | undefined {
    try {
      return STATUS.parse(JSON.parse(this.read('build/tftp/status.json')));
    } catch {
      return undefined;
    }
  }

  /** Waits until the status is as wanted. */
  async until(what: string, isSo: (status: Status) => boolean, limitMs = 20_000): Promise<Status> {
    const deadline = Date.now() + limitMs;
    for (;;) {
      const status = this.status();
      if (status !== undefined && isSo(status)) return status;
      if (Date.now() > deadline) {
        assert.fail(`not ${what} within ${limitMs} ms: ${JSON.stringify(status, undefined, 1)}\n${this.output}`);
      }
      await sleep(50);
    }
  }

  /** What the log says the port is. */
  port(): number {
    return Number(
      /serving \S+ on 127\.0\.0\.1:(\d+)/g.exec(this.output.slice(this.output.lastIndexOf('serving ')))?.[1],
    );
  }

  /** What a reboot leaves: the state disk. */
  forget(): void {
    for (const folder of ['build', 'run/buildos/monitor', 'run/buildos/agents']) {
      rmSync(this.path(folder), { recursive: true });
      mkdirSync(this.path(folder), { recursive: true });
    }
    mkdirSync(this.path('build/agents'));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const child of this.#running) await end(child, 'SIGKILL');
    rmSync(this.root, { recursive: true, force: true });
  }
}

async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, 'exit');
  child.kill(signal);
  await exited;
}

async function eventually(what: string, isSo: () => boolean, limitMs = 15_000): Promise<void> {
  const deadline = Date.now() + limitMs;
  while (!isSo()) {
    if (Date.now() > deadline) assert.fail(`not within ${limitMs} ms: ${what}`);
    await sleep(50);
  }
}

/** An agent package. */
async function agentPackage(
  folder: string,
  names: readonly string[] = ['agent.mjs', 'worker.mjs'],
): Promise<Uint8Array> {
  const files = join(folder, 'package');
  mkdirSync(files, { recursive: true });
  for (const name of names) writeFileSync(join(files, name), `// ${name}\n`);
  await create({ cwd: files, file: join(folder, 'agent.tar') }, [...names]);
  return readFileSync(join(folder, 'agent.tar'));
}

const GOOD = 'echo hello from the bootstrap; mkdir -p "$1/bin"; echo tool > "$1/bin/tool"; test "$WHERE" = "$1"\n';

test(
  'one good toolchain among bad ones: ready, each failure reported, nothing taken that is wrong',
  LIMIT,
  async () => {
    await using publisher = await new Publisher().listen();
    const names = ['good', 'checksum', 'failing', 'endless', 'garbage', 'missing', 'leaves', 'agentless'];
    const toolchains = Object.fromEntries(names.map((name) => [name, publisher.url(`/${name}/list`)]));
    await using host = new Host({ toolchains });
    await using helper = new FakeHelper(host.root);
    const agent = await agentPackage(host.path('build'));
    publisher.toolchain('good', { script: GOOD, agent });
    publisher.toolchain('checksum', { script: GOOD, agent });
    publisher.files.set('/checksum/bootstrap.sh', 'echo something else\n');
    publisher.toolchain('failing', { script: 'echo broken >&2; exit 3\n', agent });
    publisher.toolchain('endless', { script: 'sleep 1000\n', agent, timeLimitSeconds: 1 });
    publisher.files.set('/garbage/list', '<html>Welcome to the captive portal</html>\n');
    publisher.toolchain('leaves', { script: 'true\n', agent });
    publisher.toolchain('agentless', { script: GOOD, agent: await agentPackage(host.path('run'), ['agent.mjs']) });
    using notify = new NotifySocket(host.path('notify'));
    const monitor = host.start({ notify, timing: ['retryFirstMs=60000'] });

    const status = await host.until(
      'ready',
      ({ state, toolchains }) => state === 'ready' && toolchains['good']?.agent === 'ready',
      40_000,
    );
    assert.deepEqual(
      Object.entries(status.toolchains).map(([name, { state }]) => `${name} ${state}`),
      names.map((name) => `${name} ${name === 'good' ? 'ready' : 'failed'}`),
    );
    const errorOf = (name: string): string =>
      `${status.toolchains[name]?.error ?? ''} (${status.toolchains[name]?.hint ?? ''})`;
    assert.match(errorOf('checksum'), /bootstrap\.sh: its SHA-256 is [0-9a-f]{64}, not [0-9a-f]{64} as the list says/);
    assert.match(errorOf('failing'), /failed: exit status 3 \(its output is in toolchains\/failing\/bootstrap\.log/);
    assert.match(errorOf('endless'), /did not end within 1 s and was stopped/);
    assert.match(errorOf('garbage'), /"# <version>" is expected, found "<html>/);
    assert.match(errorOf('missing'), /the server answers 404/);
    assert.match(errorOf('leaves'), /succeeded but did not leave bin\/tool/);
    assert.match(errorOf('agentless'), /lacks agent\.mjs or worker\.mjs/);
    assert.ok(status.problems.some((problem) => problem.includes('buildos.buildid_ulr=x: unknown (did you mean')));

    // What is there, and what is not.
    assert.equal(host.read('build/toolchains/good/bin/tool'), 'tool\n');
    assert.equal(host.read('build/agents/good/agent.mjs'), '// agent.mjs\n');
    assert.ok(!existsSync(host.path('build/tftp/toolchains/checksum/bootstrap.sh')));
    assert.ok(!existsSync(host.path('build/agents/failing')));
    const leftOver = readdirSync(host.path('build'), { recursive: true }).filter((name) =>
      /\.part$|\.new$/.test(String(name)),
    );
    assert.deepEqual(leftOver, []);
    assert.equal(helper.count('agent.start'), 1);

    // Over TFTP, with our client; foreign clients are tried in the tests of tftp/.
    const port = host.port();
    const tftp = async (name: string): Promise<string> =>
      Buffer.from(await get({ host: '127.0.0.1', port, name })).toString();
    assert.match(await tftp('toolchains/good/bootstrap.log'), /hello from the bootstrap/);
    assert.match(await tftp('toolchains/failing/bootstrap.log'), /broken/);
    assert.match(await tftp('monitor.log'), /notice  toolchain-ready good/);
    assert.ok((await get({ host: '127.0.0.1', port, name: 'toolchains/good/toolchain.tar' })).length > 1000);

    // systemd was told: alive while starting, READY=1 once and not before all were tried, STATUS with the truth, alive.
    await eventually('the watchdog is fed', () => notify.read().filter((one) => one === 'WATCHDOG=1').length > 1);
    const messages = notify.read();
    const ready = messages.filter((message) => message.startsWith('READY=1'));
    assert.equal(ready.length, 1);
    assert.match(ready[0] ?? '', /^READY=1\nSTATUS=Ready: /);
    const before = messages.slice(
      0,
      messages.findIndex((message) => message.startsWith('READY=1')),
    );
    assert.ok(before.some((message) => message.startsWith('EXTEND_TIMEOUT_USEC=')));
    assert.ok(before.some((message) => message.startsWith('STATUS=Starting: ')));
    assert.match(
      messages.findLast((message) => message.startsWith('STATUS=')) ?? '',
      /good 1\.0 ready, agent polling, 0 tasks/,
    );

    await end(monitor, 'SIGTERM');
    assert.equal(monitor.exitCode, 0);
    assert.match(notify.read().at(-1) ?? '', /^STOPPING=1/);
  },
);

test(
  'a monitor killed with -9 finds what is right, also when nothing can be fetched, and does nothing twice',
  LIMIT,
  async () => {
    await using publisher = await new Publisher().listen();
    await using host = new Host({ toolchains: { default: publisher.url('/default/list') } });
    await using helper = new FakeHelper(host.root);
    publisher.toolchain('default', { script: GOOD, agent: await agentPackage(host.path('build')) });
    const first = host.start();
    await host.until('ready', ({ toolchains }) => toolchains['default']?.agent === 'ready');
    const tar = sha256(readFileSync(host.path('build/tftp/toolchains/default/toolchain.tar')));
    await end(first, 'SIGKILL');

    publisher.isDown = true;
    publisher.asked.length = 0;
    rmSync(host.path('build/tftp/status.json'));
    host.start();
    const status = await host.until(
      'ready',
      ({ state, toolchains }) => state === 'ready' && toolchains['default']?.agent === 'ready',
    );
    assert.equal(status.toolchains['default']?.['version'], '1.0');
    assert.equal(helper.count('bootstrap.start'), 1);
    assert.ok(publisher.asked.every((path) => path === '/default/list'));
    assert.equal(sha256(readFileSync(host.path('build/tftp/toolchains/default/toolchain.tar'))), tar);
    await host.until('it says what it cannot look at', (now) =>
      now.status.includes('cannot look at toolchain default'),
    );
  },
);

test('a monitor killed with -9 during a bootstrap follows the one that runs', LIMIT, async () => {
  await using publisher = await new Publisher().listen();
  await using host = new Host({ toolchains: { default: publisher.url('/default/list') } });
  await using helper = new FakeHelper(host.root);
  publisher.toolchain('default', { script: `sleep 3; ${GOOD}`, agent: await agentPackage(host.path('build')) });
  const first = host.start();
  await eventually('a bootstrap runs', () => helper.count('bootstrap.start') === 1);
  await end(first, 'SIGKILL');
  const files = publisher.asked.filter((path) => path !== '/default/list').length;
  host.start();
  const status = await host.until('ready', ({ toolchains }) => toolchains['default']?.agent === 'ready');
  assert.equal(helper.count('bootstrap.start'), 1, 'it was not started again');
  assert.equal(publisher.asked.filter((path) => path !== '/default/list').length, files, 'no file was fetched again');
  assert.equal(
    status.events.filter((event) => event.name === 'monitor-start').length,
    2,
    'the first one is remembered',
  );
});

test('a failed toolchain is tried again, and at once when its list changes', LIMIT, async () => {
  await using publisher = await new Publisher().listen();
  await using host = new Host({ toolchains: { default: publisher.url('/default/list') } });
  await using helper = new FakeHelper(host.root);
  const agent = await agentPackage(host.path('build'));
  publisher.toolchain('default', { script: 'exit 1\n', agent });
  host.start({ timing: ['retryFirstMs=1500', 'retryMaxMs=60000'] });
  await host.until('failed', ({ toolchains }) => toolchains['default']?.state === 'failed');
  await eventually('a second try', () => helper.count('bootstrap.start') >= 2);
  publisher.toolchain('default', { version: '1.1', script: GOOD, agent });
  const status = await host.until('ready', ({ toolchains }) => toolchains['default']?.agent === 'ready');
  assert.equal(status.toolchains['default']?.['version'], '1.1');
  assert.equal(helper.count('reboot'), 0, 'nothing of it was in use, so there is nothing to reboot for');
});

test(
  'a new image: held while half published, then drained, and one reboot; the budget holds the next',
  LIMIT,
  async () => {
    await using publisher = await new Publisher().listen();
    const options = {
      buildidUrl: publisher.url('/image/buildos-buildid'),
      toolchains: { default: publisher.url('/default/list') },
    };
    await using host = new Host(options);
    await using helper = new FakeHelper(host.root);
    publisher.image('id-a');
    publisher.toolchain('default', { script: GOOD, agent: await agentPackage(host.path('build')) });
    const monitor = host.start();
    await host.until('ready', ({ state, toolchains }) => state === 'ready' && toolchains['default']?.agent === 'ready');

    // The build id is there, the initrd is still the old one.
    helper.tasks = 1;
    publisher.image('id-b', ['buildos-initrd']);
    const held = await host.until('held', ({ state }) => state === 'held');
    assert.match(
      held.status,
      /^Held on image id-a, not following image id-b: the SHA-256 of buildos-initrd as served is/,
    );
    assert.ok(held.events.some((event) => event.name === 'change-seen'));
    await sleep(1500);
    assert.ok(!existsSync(host.path('run/buildos/monitor/drain')));

    publisher.image('id-b');
    await host.until('draining', ({ state }) => state === 'draining');
    assert.deepEqual(JSON.parse(host.read('run/buildos/monitor/drain')), { reason: 'image id-a → id-b' });
    await host.until('waiting', ({ status }) =>
      /Draining for image id-a → id-b: waiting, agent default has 1 task/.test(status),
    );
    helper.undelivered = 1;
    helper.tasks = 0;
    await host.until('waiting', ({ status }) => status.includes('owes 1 result'));
    assert.equal(helper.count('reboot'), 0);
    helper.undelivered = 0;
    const rebooting = await host.until('rebooting', ({ state }) => state === 'rebooting');
    await eventually('the reboot is asked for', () => helper.count('reboot') === 1);
    assert.ok(rebooting.events.some((event) => event.name === 'reboot'));
    assert.equal(helper.count('agent.stop', 'default'), 1);
    const last = helper.verbs.filter((verb) => verb.verb === 'agent.stop' || verb.verb === 'reboot');
    assert.deepEqual(last.at(-1), { verb: 'reboot', reason: 'image id-a → id-b' });
    await sleep(2000);
    assert.equal(helper.count('reboot'), 1, 'once');
    await end(monitor, 'SIGTERM');
    const saved: unknown = JSON.parse(host.read('state/monitor/reboots.json'));
    assert.partialDeepStrictEqual(saved, { version: 1, reboots: [{ targets: ['image id-b'] }] });

    // The host comes up with the old image again: it holds for ten minutes and builds on.
    host.forget();
    const second = host.start();
    const after = await host.until(
      'held',
      ({ state, toolchains }) => state === 'held' && toolchains['default']?.agent === 'ready',
    );
    assert.match(after.status, /reboot 1 of 3 did not reach image id-b; not before \d{4}-/);
    await sleep(2500);
    assert.equal(helper.count('reboot'), 1);
    assert.ok(!existsSync(host.path('run/buildos/monitor/drain')), 'and its agents take tasks');
    await end(second, 'SIGTERM');

    // A budget that cannot be read is no licence to reboot.
    for (const spoil of [
      (): void => writeFileSync(host.path('state/monitor/reboots.json'), '{"version":1,"rebo'),
      (): void => {
        rmSync(host.path('state/monitor'), { recursive: true });
        writeFileSync(host.path('state/monitor'), 'not a folder: as unwritable as a full disk\n');
      },
    ]) {
      spoil();
      host.forget();
      const third = host.start();
      const status = await host.until('held', ({ state }) => state === 'held');
      assert.ok(
        status.problems.some((problem) => /reboot budget: Cannot (read|save)/.test(problem)),
        status.problems.join('\n'),
      );
      await host.until('held', ({ status }) => /this boot did not see the change happen/.test(status));
      await sleep(1500);
      assert.equal(helper.count('reboot'), 1);
      await end(third, 'SIGTERM');
    }
  },
);

test('a changed toolchain in use drains and reboots; what is in use is not touched before', LIMIT, async () => {
  await using publisher = await new Publisher().listen();
  await using host = new Host({ toolchains: { default: publisher.url('/default/list') } });
  await using helper = new FakeHelper(host.root);
  const agent = await agentPackage(host.path('build'));
  publisher.toolchain('default', { script: GOOD, agent });
  const first = host.start();
  await host.until('ready', ({ toolchains }) => toolchains['default']?.agent === 'ready');
  helper.tasks = 1;
  await end(first, 'SIGKILL');
  publisher.toolchain('default', { version: '2.0', script: `${GOOD}echo two\n`, agent });
  host.start();
  const status = await host.until(
    'draining',
    ({ state, toolchains }) => state === 'draining' && toolchains['default']?.agent === 'ready',
  );
  assert.equal(status.toolchains['default']?.['version'], '1.0');
  assert.equal(helper.count('bootstrap.start'), 1);
  helper.tasks = 0;
  await eventually('the reboot is asked for', () => helper.count('reboot') === 1);
});

test('the bundle runs like the sources, and wrong usage says what is right', LIMIT, async () => {
  await using publisher = await new Publisher().listen();
  await using host = new Host({ toolchains: { default: publisher.url('/default/list') } });
  await using helper = new FakeHelper(host.root);
  publisher.toolchain('default', { script: GOOD, agent: await agentPackage(host.path('build')) });
  const program = host.path('monitor.mjs');
  const esbuild = join(TOP, 'node_modules/.bin/esbuild');
  const words = [
    'monitor/main.ts',
    '--bundle',
    '--platform=node',
    '--format=esm',
    `--outfile=${program}`,
    '--log-level=error',
  ];
  const bundler = spawn(esbuild, words, { cwd: TOP, stdio: 'inherit' });
  assert.deepEqual(await once(bundler, 'exit'), [0, null]);
  host.start({ program });
  await host.until('ready', ({ toolchains }) => toolchains['default']?.agent === 'ready');
  assert.equal(helper.count('bootstrap.start'), 1);

  const wrong = spawn(process.execPath, [program, '--listen', 'nowhere'], { stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  wrong.stderr.on('data', (chunk: Buffer) => (said += chunk.toString()));
  assert.deepEqual(await once(wrong, 'close'), [64, null]);
  assert.match(said, /--listen is ADDRESS:PORT, not nowhere/);
});

test('fetch: every kind of bad server ends in a clear error within its bound, and leaves no file', LIMIT, async () => {
  await using publisher = await new Publisher().listen();
  const folder = mkdtempSync(join(tmpdir(), 'monitor-fetch-'));
  try {
    publisher.files.set('/good', 'good');
    publisher.files.set('/large', 'x'.repeat(100));
    publisher.files.set('/latin1', Buffer.from([0xe4, 0xf6, 0xfc]));
    const limits = { ...TEXT_LIMITS, maxBytes: 50, idleMs: 300, totalMs: 2000, tries: 2, pauseMs: 10 };
    assert.equal(await fetchText(publisher.url('/good'), limits), 'good');
    assert.equal(await fetchDigest(publisher.url('/good'), limits), sha256('good'));
    const cases: readonly (readonly [string, RegExp, number])[] = [
      [publisher.url('/large'), /larger than 50 bytes/, 1],
      [publisher.url('/missing'), /the server answers 404 Not Found/, 1],
      [publisher.url('/latin1'), /not UTF-8/, 1],
      [publisher.url('/silence'), /nothing came for 300 ms \(after 1 bytes\)/, 2],
      [publisher.url('/cut'), /terminated|other side closed|aborted/, 2],
      ['http://127.0.0.1:1/x', /ECONNREFUSED|bad port/, 0],
      ['ftp://127.0.0.1/x', /not a URL of http, https or tftp/, 0],
      ['nonsense', /not a URL of http, https or tftp/, 0],
    ];
    for (const [url, message, tries] of cases) {
      publisher.asked.length = 0;
      await assert.rejects(
        fetchText(url, limits),
        (error) => error instanceof FetchError && message.test(error.message),
      );
      assert.equal(publisher.asked.length, tries, url);
    }
    // The same over TFTP, from our own server.
    writeFileSync(join(folder, 'a file'), 'over TFTP');
    await using server = await serveFolder({ folder, address: '127.0.0.1', port: 0 });
    const tftp = (name: string): string => `tftp://127.0.0.1:${server.port}/${name}`;
    assert.equal(await fetchText(tftp('a%20file;mode=octet'), limits), 'over TFTP');
    assert.equal(await fetchDigest(tftp('a%20file'), limits), sha256('over TFTP'));
    await assert.rejects(fetchText(tftp('a%20file'), { ...limits, maxBytes: 3 }), FetchError);
    await assert.rejects(
      fetchText(tftp('missing'), limits),
      (error) => error instanceof FetchError && /not found/i.test(error.message),
    );

    const file = join(folder, 'deep/file');
    const wrong = fetchToFile(publisher.url('/good'), { file, sha256: sha256('bad') }, limits);
    await assert.rejects(wrong, /its SHA-256 is/);
    assert.deepEqual(readdirSync(dirname(file)), []);
    writeFileSync(file, 'old');
    await assert.rejects(fetchToFile(publisher.url('/cut'), { file, sha256: sha256('good') }, limits), FetchError);
    assert.equal(readFileSync(file, 'utf8'), 'old', 'a failed fetch leaves the old file');
    await fetchToFile(publisher.url('/good'), { file, sha256: sha256('good') }, limits);
    assert.equal(readFileSync(file, 'utf8'), 'good');
    chmodSync(file, 0o644);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
