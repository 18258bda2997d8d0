/**
 * `buildos tftp` as people run it: the command itself, in a network of its own, as root on port 69; with systemd's socket
 * activation (systemd-socket-activate); and what becomes of bad input. Takes about 20 s.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { createSocket } from 'node:dgram';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempDisposableSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { test as nodeTest } from 'node:test';

const MAIN = join(import.meta.dirname, '..', '..', 'cli', 'main.ts');
const HOST = '127.0.0.1';
const SKIP = process.getuid?.() === 0 ? false : 'needs root';

/** What a command printed, and how it ended. */
interface Ended {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A command that runs; ended when its block ends. */
class Running implements AsyncDisposable {
  stdout = '';
  stderr = '';
  readonly child: ChildProcess;
  readonly ended: Promise<Ended>;

  constructor(argv: readonly string[], options: { readonly cwd?: string; readonly env?: NodeJS.ProcessEnv } = {}) {
    const [program = '', ...args] = argv;
    this.child = spawn(program, args, { ...options, stdio: ['pipe', 'pipe', 'pipe'] });
    this.child.stdout?.setEncoding('utf8').on('data', (text: string) => void (this.stdout += text));
    this.child.stderr?.setEncoding('utf8').on('data', (text: string) => void (this.stderr += text));
    this.ended = new Promise((resolve, reject) => {
      this.child.once('error', reject);
      this.child.once('close', (status) => resolve({ status, stdout: this.stdout, stderr: this.stderr }));
    });
  }

  /** Waits for a line. */
  async expect(pattern: RegExp): Promise<RegExpExecArray> {
    const deadline = performance.now() + 20_000;
    for (;;) {
      const match = pattern.exec(this.stdout) ?? pattern.exec(this.stderr);
      if (match !== null) return match;
      if (performance.now() > deadline || this.child.exitCode !== null) {
        assert.fail(`no ${String(pattern)} in\n${this.stdout}${this.stderr}`);
      }
      await sleep(20);
    }
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<Ended> {
    this.child.kill(signal);
    return await this.ended;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.child.exitCode === null && this.child.signalCode === null) this.child.kill('SIGKILL');
    await this.ended;
  }
}

const tftp = (...args: readonly string[]): readonly string[] => [process.execPath, MAIN, 'tftp', ...args];

/** Runs `buildos tftp …` to its end. */
async function run(
  args: readonly string[],
  options: { readonly cwd?: string; readonly input?: string; readonly inside?: readonly string[] } = {},
): Promise<Ended> {
  await using running = new Running([...(options.inside ?? []), ...tftp(...args)], options);
  running.child.stdin?.end(options.input ?? '');
  return await running.ended;
}

/** A folder that others can reach, with files to serve in `srv` and room in `work`. */
function test(name: string, runTest: (dir: string) => Promise<void>): void {
  nodeTest(name, { timeout: 60_000, skip: SKIP }, async () => {
    using dir = mkdtempDisposableSync(join(tmpdir(), 'tftp-cli-'));
    chmodSync(dir.path, 0o755);
    mkdirSync(join(dir.path, 'srv'));
    mkdirSync(join(dir.path, 'work'));
    writeFileSync(join(dir.path, 'srv', 'file'), CONTENT);
    writeFileSync(join(dir.path, 'srv', 'empty'), '');
    await runTest(dir.path);
  });
}

const CONTENT = randomBytes(300_000);

/** A server on loopback, and its port. */
async function serve(
  dir: string,
  ...flags: readonly string[]
): Promise<{ readonly running: Running; readonly port: string } & AsyncDisposable> {
  const running = new Running(tftp('serve', join(dir, 'srv'), '--address', HOST, '--port', '0', ...flags));
  try {
    const [, port = ''] = await running.expect(/(?:127\.0\.0\.1:|"port":)(\d+)/);
    return { running, port, [Symbol.asyncDispose]: () => running[Symbol.asyncDispose]() };
  } catch (error) {
    await running[Symbol.asyncDispose]();
    throw error;
  }
}

async function succeed(argv: readonly string[]): Promise<void> {
  await using running = new Running(argv);
  const { status, stdout, stderr } = await running.ended;
  assert.equal(status, 0, `${argv.join(' ')}\n${stdout}${stderr}`);
}

/** Two networks with a cable between them: 192.0.2.1 and .3 serve, 192.0.2.2 asks. */
async function openNetwork(): Promise<
  AsyncDisposable & { readonly server: readonly string[]; readonly client: readonly string[]; readonly name: string }
> {
  const [server, client] = [`tftps${process.pid}`, `tftpc${process.pid}`];
  const [here, there] = ['tftp0', 'tftp1'];
  await using stack = new AsyncDisposableStack();
  for (const name of [server, client]) {
    await succeed(['ip', 'netns', 'add', name]);
    stack.defer(() => succeed(['ip', 'netns', 'delete', name]));
    await succeed(['ip', '-n', name, 'link', 'set', 'lo', 'up']);
  }
  await succeed(['ip', '-n', server, 'link', 'add', here, 'type', 'veth', 'peer', 'name', there, 'netns', client]);
  for (const [name, link, address] of [
    [server, here, '192.0.2.1/24'],
    [server, here, '192.0.2.3/24'],
    [client, there, '192.0.2.2/24'],
    [server, here, '2001:db8::1/64'],
    [client, there, '2001:db8::2/64'],
  ] as const) {
    const nodad = address.includes(':') ? ['nodad'] : ['broadcast', '+'];
    await succeed(['ip', '-n', name, 'address', 'add', address, ...nodad, 'dev', link]);
    await succeed(['ip', '-n', name, 'link', 'set', link, 'up']);
  }
  const owned = stack.move();
  const inside = (name: string): readonly string[] => ['nsenter', `--net=/run/netns/${name}`, '--'];
  return {
    server: inside(server),
    client: inside(client),
    name: server,
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** Asks a broadcast address, and prints what answers. */
const ASK_BROADCAST = `
const { createSocket } = require('node:dgram');
const socket = createSocket('udp4');
socket.bind(0, () => {
  socket.setBroadcast(true);
  for (const to of ['192.0.2.255', '255.255.255.255']) socket.send('\\0\\x01file\\0octet\\0', 69, to);
});
socket.on('message', (bytes, from) => console.log('answer', from.address));
setTimeout(() => socket.close(), 400);
`;

test('serves port 69 on every address, as nobody; answers come from the address asked, broadcasts are ignored', async (dir) => {
  await using network = await openNetwork();
  await using server = new Running([...network.server, ...tftp('serve', join(dir, 'srv'), '--stats')]);
  await server.expect(/serving .* on \[2001:db8::1\]:69 /);
  assert.match(server.stdout, /going on as nobody/);
  const status = readFileSync(`/proc/${server.child.pid}/status`, 'utf8');
  assert.match(status, /^Uid:\s+(\d+)\s+\1\s+\1\s+\1$/m);
  assert.doesNotMatch(status, /^[UG]id:.*\b0\b/m);
  for (const address of ['127.0.0.1', '192.0.2.1', '192.0.2.3', '[2001:db8::1]']) {
    assert.match(server.stdout, new RegExp(`serving .*/srv on ${address.replaceAll(/[[\].]/g, '\\$&')}:69 \\(`));
  }
  for (const address of ['192.0.2.1', '192.0.2.3', '2001:db8::1']) {
    // The client takes answers of this address only.
    const got = await run(['get', address, 'file', '-o', join(dir, 'work')], { inside: network.client });
    assert.equal(got.status, 0, got.stderr + server.stderr);
    assert.ok(CONTENT.equals(readFileSync(join(dir, 'work', 'file'))));
    rmSync(join(dir, 'work', 'file'));
  }
  await using asker = new Running([...network.client, process.execPath, '-e', ASK_BROADCAST]);
  assert.deepEqual(await asker.ended, { status: 0, stdout: '', stderr: '' });
  const ended = await server.stop();
  assert.equal(ended.status, 0);
  assert.match(ended.stdout, /reads: 3 done, 0 failed, 0 refused, 900000 bytes/);
  assert.match(ended.stdout, /\nstopped\n$/);
});

test('follows addresses that come and go', async (dir) => {
  await using network = await openNetwork();
  await using server = new Running([...network.server, ...tftp('serve', join(dir, 'srv'))]);
  await server.expect(/serving .* on 192\.0\.2\.3:69 /);
  await succeed(['ip', '-n', network.name, 'address', 'add', '192.0.2.9/24', 'dev', 'tftp0']);
  await succeed(['ip', '-n', network.name, 'address', 'delete', '192.0.2.3/24', 'dev', 'tftp0']);
  await server.expect(/serving .* on 192\.0\.2\.9:69 /);
  await server.expect(/the address 192\.0\.2\.3 is gone/);
  const got = await run(['get', '192.0.2.9', 'file', '-o', '/dev/null'], { inside: network.client });
  assert.equal(got.status, 0, got.stderr);
});

test('a folder that the user cannot read is said at the start, with the folder in the way', async (dir) => {
  mkdirSync(join(dir, 'closed/srv'), { recursive: true });
  chmodSync(join(dir, 'closed'), 0o700);
  const args = ['serve', join(dir, 'closed/srv'), '--address', HOST, '--port', '0'];
  const ended = await run(args);
  assert.equal(ended.status, 1);
  assert.match(ended.stderr, /error: The user nobody cannot read the folder .*closed\/srv\n/);
  assert.match(ended.stderr, /hint: \S+\/closed lets nobody else in/);
  assert.doesNotMatch(ended.stdout, /serving/, 'what is not served is not said to be');
  const writable = await run(['serve', join(dir, 'srv'), '--address', HOST, '--port', '0', '--writable']);
  assert.match(writable.stderr, /cannot read and write the folder/);
  await using asRoot = new Running(tftp(...args, '--user', 'root'));
  await asRoot.expect(/serving/);
  assert.equal((await asRoot.stop('SIGINT')).status, 0);
});

test('what cannot be served is said with a hint', async (dir) => {
  const taken = createSocket('udp4');
  const { port } = taken.bindSync({ address: HOST });
  const folder = join(dir, 'srv');
  const cases: readonly [readonly string[], number, RegExp][] = [
    [[join(dir, 'nothing')], 64, /cannot serve .*nothing: it is not there/],
    [[join(folder, 'file')], 64, /it is not a folder/],
    [[folder, '--address', HOST, '--port', String(port)], 1, /127\.0\.0\.1 port \d+: .*EADDRINUSE[^]*hint: .*ss -ulpn/],
    [[folder, '--address', '198.51.100.1'], 1, /198\.51\.100\.1 port 69: .*EADDRNOTAVAIL[^]*hint: .*ip address/],
    [[folder, '--address', 'localhost'], 64, /must be a numeric IP address/],
    [[folder, '--port', '70000'], 64, /from 0 to 65535/],
    [[folder, '--user', 'nosuchuser'], 1, /There is no user nosuchuser/],
    [[folder, '--metrics', '9069'], 64, /It must be ADDRESS:PORT/],
    [[folder, '--metrics', '198.51.100.1:9069'], 1, /Cannot serve metrics on 198\.51\.100\.1/],
    [
      [folder, '--address', HOST, '--port', '0', '--metrics', '/nothing/x.prom'],
      1,
      /Cannot write metrics to \/nothing/,
    ],
  ];
  const ends = await Promise.all(cases.map(([args]) => run(['serve', ...args])));
  taken.close();
  for (const [index, { status, stderr }] of ends.entries()) {
    const [args, expected, pattern] = cases[index] ?? assert.fail();
    assert.match(stderr, pattern, args.join(' '));
    assert.equal(status, expected, stderr);
  }
});

test('takes the sockets of systemd, IPv4 and IPv6, and tells systemd when it is ready and when it stops', async (dir) => {
  const notifyPath = join(dir, 'notify');
  // What is sent to the socket is printed.
  const listen = ['systemd-socket-activate', '--datagram'];
  await using systemd = new Running([...listen, '-l', notifyPath, 'sh', '-c', 'exec cat <&3']);
  await systemd.expect(/Listening on/);
  chmodSync(notifyPath, 0o777);
  const [one, two] = [await freePort(), await freePort()];
  const sockets = ['-l', `${HOST}:${one}`, '-l', `[::1]:${two}`, '-E', `NOTIFY_SOCKET=${notifyPath}`];
  await using server = new Running([...listen, ...sockets, ...tftp('serve', join(dir, 'srv'))]);
  await server.expect(/Listening on .*::1/);
  // The first datagram starts the server; it waits in the socket meanwhile.
  for (const target of [`${HOST}:${one}`, `[::1]:${two}`]) {
    const got = await run(['get', target, 'file', '-o', '-', '--quiet']);
    assert.equal(got.status, 0, got.stderr + server.stdout + server.stderr);
  }
  await server.expect(/going on as nobody/);
  await systemd.expect(/READY=1\nSTATUS=Serving /);
  assert.equal((await server.stop()).status, 0);
  await systemd.expect(/STOPPING=1/);
});

test('a socket of systemd that is not UDP is refused', async (dir) => {
  const port = await freePort();
  await using server = new Running([
    'systemd-socket-activate',
    '-l',
    `${HOST}:${port}`,
    ...tftp('serve', join(dir, 'srv')),
  ]);
  await server.expect(/Listening on/);
  // Whoever connects starts it.
  const socket = connect(port, HOST).on('error', () => {});
  const { status, stderr } = await server.ended;
  socket.destroy();
  assert.equal(status, 1);
  assert.match(stderr, /descriptor 3 that systemd handed over: it is a TCP socket[^]*hint: write ListenDatagram=69/);
});

test('a line per transfer, counters on SIGUSR1, Prometheus over HTTP and in a file', async (dir) => {
  const file = join(dir, 'work', 'tftp.prom');
  chmodSync(join(dir, 'work'), 0o777);
  await using served = await serve(dir, '--metrics', `${HOST}:0`, '--blksize-max', '1000', '--windowsize-max', '4');
  const { running, port } = served;
  const [, metricsPort = ''] = await running.expect(/metrics on http:\/\/127\.0\.0\.1:(\d+)\/metrics/);
  const at = `${HOST}:${(await running.expect(/serving .* on 127\.0\.0\.1:(\d+)/))[1]}`;
  assert.notEqual(port, '');
  assert.equal((await run(['get', at, 'file', '-o', '-'])).status, 0);
  assert.equal((await run(['get', at, 'no\u001b[2Jthing', '-o', '-'])).status, 2);
  await running.expect(
    /127\.0\.0\.1:\d+ read "file": done, 300000 bytes in \S+ s, \S+ \S+; asked blksize=1468 windowsize=32 tsize=0, granted blksize=1000 tsize=300000 windowsize=4; rtt/,
  );
  await running.expect(/read "no\\u001b\[2Jthing": refused with ERROR 2: .*; asked blksize=1468/);
  running.child.kill('SIGUSR1');
  await running.expect(/reads: 1 done, 0 failed, 1 refused, 300000 bytes/);
  const page = await fetch(`http://${HOST}:${metricsPort}/metrics`);
  assert.equal(page.headers.get('content-type'), 'text/plain; version=0.0.4; charset=utf-8');
  assert.match(await page.text(), /^tftp_requests_total\{direction="read",result="done"\} 1$/m);
  for (const [path, method, status] of [
    ['/', 'GET', 404],
    ['/metrics', 'POST', 405],
    ['/metrics', 'HEAD', 200],
  ] as const) {
    assert.equal((await fetch(`http://${HOST}:${metricsPort}${path}`, { method })).status, status);
  }
  await running.stop();

  await using second = await serve(dir, '--json', '--metrics', file);
  assert.equal((await run(['get', `${HOST}:${second.port}`, 'empty', '-o', '-'])).status, 0);
  const { stdout } = await second.running.stop();
  assert.match(readFileSync(file, 'utf8'), /^tftp_requests_total\{direction="read",result="done"\} 1$/m);
  assert.deepEqual(readdirSync(join(dir, 'work')), ['tftp.prom']);
  const events = stdout
    .trim()
    .split('\n')
    .map((line) => String(Object.entries(JSON.parse(line)).find(([name]) => name === 'event')?.[1]));
  assert.deepEqual(events, ['user', 'listening', 'transfer', 'stopped']);
});

test('get writes files and streams; put reads files and the standard input', async (dir) => {
  chmodSync(join(dir, 'srv'), 0o777);
  await using served = await serve(dir, '--writable', '--max-bytes', '400000');
  const at = `${HOST}:${served.port}`;
  const cwd = join(dir, 'work');
  for (const name of ['a b', 'größe', '100%']) {
    const put = await run(['put', at, '-', name], { input: `it is ${name}\n` });
    assert.equal(put.status, 0, put.stderr);
    assert.equal(readFileSync(join(dir, 'srv', name), 'utf8'), `it is ${name}\n`);
    const got = await run(['get', `tftp://${at}/${encodeURIComponent(name)}`, '-o', '-', '-q']);
    assert.deepEqual(got, { status: 0, stdout: `it is ${name}\n`, stderr: '' });
  }
  const got = await run(['get', at, 'file', '--json', '--windowsize', '8', '--repeat-after', '3'], { cwd });
  assert.match(got.stdout, /"result":"done".*"bytes":300000.*"timeout":3/);
  assert.equal(got.stderr, '');
  assert.ok(CONTENT.equals(readFileSync(join(cwd, 'file'))));
  assert.equal((await run(['get', at, 'empty'], { cwd })).status, 0);
  assert.equal(statSync(join(cwd, 'empty')).size, 0);
  const text = await run(['put', at, 'file', 'copy'], { cwd });
  assert.match(text.stderr, /^file: 300000 bytes in \S+ s, \S+ MB\/s, 127\.0\.0\.1, blksize=1468/);
  assert.ok(CONTENT.equals(readFileSync(join(dir, 'srv', 'copy'))));
  const netascii = await run(['put', at, '-', 'text', '--netascii'], { input: 'a\nb\n' });
  assert.equal(netascii.status, 0, netascii.stderr);
  assert.equal(readFileSync(join(dir, 'srv', 'text'), 'utf8'), 'a\nb\n');
  const full = await run(['put', at, '-', 'large'], { input: 'x'.repeat(400_001) });
  assert.match(full.stderr, /the server refused: ERROR 3 \(disk full\)/);
  assert.equal(full.status, 2);
});

test('each kind of failure has its exit status and its words', async (dir) => {
  await using served = await serve(dir);
  const at = `${HOST}:${served.port}`;
  const work = join(dir, 'work');
  symlinkSync('elsewhere', join(work, 'link'));
  await using garbage = openGarbage();
  const bad = `${HOST}:${garbage.port}`;
  const cases: readonly [readonly string[], number, RegExp][] = [
    [['get', at, 'nothing'], 2, /the server refused: ERROR 1, file not found\nhint: names are relative/],
    [['get', at, '../x'], 2, /refused: ERROR 2 \(access violation\), "a name with/],
    [['put', at, MAIN], 2, /ERROR 2 \(access violation\), "nothing can be written here"/],
    [['get', `${HOST}:${await freePort()}`, 'x'], 3, /nobody listens there \(ICMP port unreachable\)/],
    [['get', bad, 'silent', '--timeout', '1'], 3, /no answer after \d tries in 1\.\d s\n.*firewall/],
    [['get', bad, 'garbage', '--timeout', '1'], 4, /no DATA of block 2 after .*, after 512 bytes/],
    [['get', bad, 'toomuch', '--timeout', '1'], 4, /DATA with 600 bytes, more than the 512 of blksize/],
    [['get', 'nothing.invalid', 'x'], 1, /the host name is not known/],
    [['get', at, 'file', '-o', '/nothing/file'], 1, /cannot write \/nothing\/file: ENOENT/],
    [['get', at, 'file', '-o', 'link'], 1, /cannot write link: it is not a regular file/],
    [['put', at, 'nothing'], 1, /cannot read nothing: ENOENT/],
    [['put', at, work], 1, /it is not a regular file/],
    [['put', at, '-'], 64, /the standard input has no name/],
    [['get', at], 64, /the name of the file is missing/],
    [['get', at, 'x', '--blksize', '7'], 64, /from 8 to 65464/],
    [['get', at, 'file', '-o', '-', '--json'], 64, /cannot both go to the standard output/],
  ];
  const ends = await Promise.all(cases.map(([args]) => run(args, { cwd: work })));
  for (const [index, { status, stderr }] of ends.entries()) {
    const [args, expected, pattern] = cases[index] ?? assert.fail();
    assert.match(stderr, pattern, args.join(' '));
    assert.equal(status, expected, `${args.join(' ')}\n${stderr}`);
  }
  assert.deepEqual(readdirSync(work), ['link']);
});

/** A server that is none: `silent` gets nothing, `garbage` one block and then noise, `toomuch` a block that is too long. */
function openGarbage(): AsyncDisposable & { readonly port: number } {
  const socket = createSocket('udp4');
  const { port } = socket.bindSync({ address: HOST });
  socket.on('message', (bytes, from) => {
    const send = (...parts: readonly (string | Uint8Array)[]): void =>
      socket.send(Buffer.concat(parts.map((part) => Buffer.from(part))), from.port, from.address);
    if (bytes.includes('garbage')) {
      send('\0\x03\0\x01', Buffer.alloc(512));
      for (let length = 0; length < 50; length += 1) send('\xff', randomBytes(length));
      send('\0\x06blksize\x001024\0');
      send('\0\x01x\0octet\0');
    }
    if (bytes.includes('toomuch')) send('\0\x03\0\x01', Buffer.alloc(600));
  });
  return { port, [Symbol.asyncDispose]: () => new Promise((resolve) => socket.close(() => resolve())) };
}

test('Ctrl-C in the middle leaves nothing half done, tells the other side, and ends with 130', async (dir) => {
  const told: string[] = [];
  const socket = createSocket('udp4');
  const { port } = socket.bindSync({ address: HOST });
  socket.on('message', (bytes, from) => {
    if (bytes[1] === 5) told.push(bytes.toString('utf8', 4, bytes.length - 1));
    // One block, and no more.
    if (bytes[1] === 1) socket.send(Buffer.concat([Buffer.from('\0\x03\0\x01'), Buffer.alloc(512)]), from.port, HOST);
  });
  const cwd = join(dir, 'work');
  writeFileSync(join(cwd, 'x'), 'old');
  await using running = new Running(tftp('get', `${HOST}:${port}`, 'x'), { cwd });
  while (readdirSync(cwd).length < 2) await sleep(20);
  const ended = await running.stop('SIGINT');
  await sleep(50);
  socket.close();
  assert.deepEqual([ended.status, told], [130, ['the client has stopped']]);
  assert.match(ended.stderr, /Interrupted by SIGINT/);
  assert.deepEqual(readdirSync(cwd), ['x']);
  assert.equal(readFileSync(join(cwd, 'x'), 'utf8'), 'old');
});

test('a full disk is told; the old file stays', async (dir) => {
  const small = join(dir, 'small');
  mkdirSync(small);
  await succeed(['mount', '-t', 'tmpfs', '-o', 'size=128k', 'tmpfs', small]);
  try {
    await using served = await serve(dir);
    writeFileSync(join(small, 'file'), 'old');
    const announced = await run(['get', `${HOST}:${served.port}`, 'file'], { cwd: small });
    assert.match(announced.stderr, /300000 bytes do not fit: \S+ has \d+ left/);
    // As text the size is not known before.
    const unknown = await run(['get', `${HOST}:${served.port}`, 'file', '--netascii'], { cwd: small });
    assert.match(unknown.stderr, /no space left|do not fit/);
    assert.deepEqual([announced.status, unknown.status], [1, 1]);
    assert.deepEqual(readdirSync(small), ['file']);
    assert.equal(readFileSync(join(small, 'file'), 'utf8'), 'old');
  } finally {
    await succeed(['umount', small]);
  }
});

test('a folder that vanishes is "file not found" with the reason in the log, and may come back', async (dir) => {
  await using served = await serve(dir, '--user', 'root');
  const at = `${HOST}:${served.port}`;
  rmSync(join(dir, 'srv'), { recursive: true });
  assert.equal((await run(['get', at, 'file', '-o', '-'])).status, 2);
  await served.running.expect(/refused with ERROR 1: file not found/);
  mkdirSync(join(dir, 'srv'));
  writeFileSync(join(dir, 'srv', 'file'), 'back');
  assert.equal((await run(['get', at, 'file', '-o', '-', '-q'])).stdout, 'back');
  assert.ok(existsSync(join(dir, 'work')));
});

async function freePort(): Promise<number> {
  const socket = createSocket('udp4');
  const { port } = socket.bindSync({ address: HOST });
  await new Promise<void>((resolve) => socket.close(() => resolve()));
  return port;
}
