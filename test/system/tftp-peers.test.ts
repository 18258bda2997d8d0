/**
 * Our TFTP server with the clients that people have (curl, tftp-hpa, atftp, busybox, npm `tftp`), and our client with the
 * servers of dnsmasq and npm `tftp`. On loopback; only dnsmasq needs root, for it knows no port but 69.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { type Socket, createSocket } from 'node:dgram';
import { mkdirSync, mkdtempDisposableSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { test as nodeTest } from 'node:test';

import { get, getToFile, put } from '../../tftp/client.ts';
import { serveMachine, serveWritableFolder } from '../../tftp/instance.ts';
import type { DriverName } from '../../tftp/driver.ts';
import { DRIVERS } from '../../tftp/drivers.ts';
import type { TftpServer } from '../../tftp/serve-options.ts';
import { serveFolder } from '../../tftp/server.ts';
import type { TransferEvent } from '../../tftp/transfer-event.ts';
import { findFreePort, findProgram, gives, hashOf, runIn, startServer, succeed } from './_tftp-programs.ts';

const HOST = '127.0.0.1';
const TOP = join(import.meta.dirname, '..', '..');

/** Sizes around the borders of blocks of 512 and 1428, and one of many blocks. */
const SIZES = [0, 1, 511, 512, 513, 1024, 1428, 2856, 65_464, 3_000_001] as const;

/** A test that needs programs; without them it is skipped with the reason. Once with each driver of our server. */
function test(
  name: string,
  programs: readonly string[],
  run: (dir: string, driver: DriverName) => Promise<void>,
  drivers: readonly DriverName[] = DRIVERS,
): void {
  const missing = programs.filter((program) => findProgram(program) === undefined);
  const skip = missing.length > 0 ? `needs ${missing.join(', ')}` : false;
  for (const driver of drivers) {
    const title = drivers.length > 1 ? `${name} (${driver})` : name;
    nodeTest(title, { timeout: 60_000, skip }, async () => {
      using dir = mkdtempDisposableSync(join(tmpdir(), 'tftp-peers-'));
      await run(dir.path, driver);
    });
  }
}

/** Two folders: `root` is served and has a file of each size, `work` is the client's. */
function makeFolders(dir: string): { readonly root: string; readonly work: string } {
  const [root, work] = [join(dir, 'root'), join(dir, 'work')];
  mkdirSync(root);
  mkdirSync(work);
  for (const size of SIZES) writeFileSync(join(root, `f${size}`), randomBytes(size));
  writeFileSync(join(root, 'text'), 'one\ntwo\rthree\n'.repeat(300));
  return { root, work };
}

interface Served {
  readonly server: TftpServer;
  readonly port: string;
  readonly events: readonly TransferEvent[];
}

async function serveReads(root: string, driver: DriverName, address = HOST): Promise<Served & AsyncDisposable> {
  const events: TransferEvent[] = [];
  const server = await serveFolder({
    folder: root,
    address,
    port: 0,
    driver,
    onTransfer: (event) => events.push(event),
  });
  return { server, port: String(server.port), events, [Symbol.asyncDispose]: () => server.close() };
}

async function serveWrites(root: string, driver: DriverName, address = HOST): Promise<Served & AsyncDisposable> {
  const events: TransferEvent[] = [];
  const onTransfer = (event: TransferEvent): unknown => events.push(event);
  const server = await serveWritableFolder({
    folder: root,
    address,
    port: 0,
    driver,
    maxBytes: 10_000_000,
    onTransfer,
  });
  return { server, port: String(server.port), events, [Symbol.asyncDispose]: () => server.close() };
}

/** Gets or puts every file with a client, compares them, and looks at what the server saw. */
async function checkAll(
  direction: 'reads' | 'writes',
  driver: DriverName,
  dir: string,
  argvOf: (name: string, port: string) => readonly string[],
): Promise<readonly TransferEvent[]> {
  const { root, work } = makeFolders(dir);
  const isRead = direction === 'reads';
  await using served = await (isRead ? serveReads(root, driver) : serveWrites(work, driver));
  for (const size of SIZES) {
    const name = `f${size}`;
    const output = await succeed(isRead ? work : root, argvOf(name, served.port));
    assert.equal(hashOf(join(work, name)), hashOf(join(root, name)), output);
  }
  await sleep(50);
  assert.deepEqual(
    served.events.filter((event) => event.result !== 'done'),
    [],
  );
  assert.equal(served.events.length, SIZES.length);
  return served.events;
}

test('curl gets every size', ['curl'], async (dir, driver) => {
  const events = await checkAll('reads', driver, dir, (name, port) => [
    'curl',
    '-sS',
    '-o',
    name,
    `tftp://${HOST}:${port}/${name}`,
  ]);
  assert.ok(events.every((event) => event.granted.blksize === 512 && (event.granted.tsize ?? 0) === event.bytes));
});

test('curl gets with a large blksize, and without options', ['curl'], async (dir, driver) => {
  const { root, work } = makeFolders(dir);
  await using served = await serveReads(root, driver);
  const url = `tftp://${HOST}:${served.port}/f3000001`;
  await succeed(work, ['curl', '-sS', '--tftp-blksize', '65464', '-o', 'large', url]);
  await succeed(work, ['curl', '-sS', '--tftp-no-options', '-o', 'plain', url]);
  assert.equal(hashOf(join(work, 'large')), hashOf(join(root, 'f3000001')));
  assert.equal(hashOf(join(work, 'plain')), hashOf(join(root, 'f3000001')));
  await sleep(50);
  assert.deepEqual(
    served.events.map((event) => event.granted.blksize),
    [65464, undefined],
  );
});

test('curl puts every size', ['curl'], async (dir, driver) => {
  await checkAll('writes', driver, dir, (name, port) => ['curl', '-sS', '-T', name, `tftp://${HOST}:${port}/${name}`]);
});

test('curl is told clearly: missing file, way out, no writing', ['curl'], async (dir, driver) => {
  const { root, work } = makeFolders(dir);
  await using served = await serveReads(root, driver);
  const url = `tftp://${HOST}:${served.port}`;
  // 68, 69: exit codes of curl(1) for "file not found" and "permission problem".
  assert.equal((await runIn(work, ['curl', '-sS', `${url}/nothing`])).status, 68);
  assert.equal((await runIn(work, ['curl', '-sS', '--path-as-is', `${url}/../work`])).status, 69);
  assert.equal((await runIn(root, ['curl', '-sS', '-T', 'f1', `${url}/f1`])).status, 69);
});

test('curl reads a log while it grows, and sees it as it was when it asked', ['curl'], async (dir, driver) => {
  const { root, work } = makeFolders(dir);
  const log = join(root, 'log');
  writeFileSync(log, '');
  await using served = await serveReads(root, driver);
  let sizeBefore = 0;
  for (let round = 1; round <= 5; round += 1) {
    writeFileSync(log, `line ${round}\n`.repeat(round * 200));
    await succeed(work, ['curl', '-sS', '-o', 'log', `tftp://${HOST}:${served.port}/log`]);
    const got = readFileSync(join(work, 'log'), 'utf8');
    assert.ok(got.length > sizeBefore && got === readFileSync(log, 'utf8'));
    sizeBefore = got.length;
  }
});

test('tftp-hpa gets and puts every size, and text as netascii', ['tftp'], async (dir, driver) => {
  mkdirSync(join(dir, 'gets'));
  mkdirSync(join(dir, 'puts'));
  const argvOf = (verb: string) => (name: string, port: string) => [
    'tftp',
    '-m',
    'binary',
    HOST,
    port,
    '-c',
    verb,
    name,
  ];
  await checkAll('reads', driver, join(dir, 'gets'), argvOf('get'));
  await checkAll('writes', driver, join(dir, 'puts'), argvOf('put'));
  const { root, work } = { root: join(dir, 'gets', 'root'), work: join(dir, 'gets', 'work') };
  await using reads = await serveReads(root, driver);
  await succeed(work, ['tftp', '-m', 'ascii', HOST, reads.port, '-c', 'get', 'text']);
  assert.equal(readFileSync(join(work, 'text'), 'utf8'), readFileSync(join(root, 'text'), 'utf8'));
  await using writes = await serveWrites(work, driver);
  await succeed(root, ['tftp', '-m', 'ascii', HOST, writes.port, '-c', 'put', 'text', 'text2']);
  assert.equal(readFileSync(join(work, 'text2'), 'utf8'), readFileSync(join(root, 'text'), 'utf8'));
});

test('atftp gets every size, with options and without', ['atftp'], async (dir, driver) => {
  mkdirSync(join(dir, 'options'));
  mkdirSync(join(dir, 'plain'));
  const options = [
    '--option',
    'blksize 1428',
    '--option',
    'tsize 0',
    '--option',
    'timeout 3',
    '--option',
    'windowsize 8',
  ];
  const events = await checkAll('reads', driver, join(dir, 'options'), (name, port) => [
    'atftp',
    ...options,
    '-g',
    '-r',
    name,
    '-l',
    name,
    HOST,
    port,
  ]);
  assert.ok(
    events.every(({ granted }) => granted.windowsize === 8 && granted.blksize === 1428 && granted.timeout === 3),
  );
  await checkAll('reads', driver, join(dir, 'plain'), (name, port) => [
    'atftp',
    '-g',
    '-r',
    name,
    '-l',
    name,
    HOST,
    port,
  ]);
});

test('atftp puts every size, with a window and without options', ['atftp'], async (dir, driver) => {
  mkdirSync(join(dir, 'options'));
  mkdirSync(join(dir, 'plain'));
  const options = ['--option', 'blksize 1428', '--option', 'windowsize 8'];
  await checkAll('writes', driver, join(dir, 'options'), (name, port) => [
    'atftp',
    ...options,
    '-p',
    '-r',
    name,
    '-l',
    name,
    HOST,
    port,
  ]);
  await checkAll('writes', driver, join(dir, 'plain'), (name, port) => [
    'atftp',
    '-p',
    '-r',
    name,
    '-l',
    name,
    HOST,
    port,
  ]);
});

test('busybox tftp gets and puts every size', ['busybox'], async (dir, driver) => {
  mkdirSync(join(dir, 'gets'));
  mkdirSync(join(dir, 'puts'));
  const argvOf = (flag: string) => (name: string, port: string) => [
    'busybox',
    'tftp',
    flag,
    '-b',
    '1428',
    '-r',
    name,
    '-l',
    name,
    HOST,
    port,
  ];
  await checkAll('reads', driver, join(dir, 'gets'), argvOf('-g'));
  await checkAll('writes', driver, join(dir, 'puts'), argvOf('-p'));
});

/** Each program's way to get or put `name`, at `::1`. */
const IPV6_CLIENTS: Readonly<Record<string, (verb: 'get' | 'put', name: string, port: string) => string>> = {
  curl: (verb, name, port) => `curl -sS ${verb === 'get' ? '-o' : '-T'} ${name} tftp://[::1]:${port}/${name}`,
  'tftp-hpa': (verb, name, port) => `tftp -6 -m binary ::1 ${port} -c ${verb} ${name}`,
  atftp: (verb, name, port) => `atftp ${verb === 'get' ? '-g' : '-p'} -r ${name} -l ${name} ::1 ${port}`,
  busybox: (verb, name, port) =>
    `busybox tftp -b 1428 ${verb === 'get' ? '-g' : '-p'} -r ${name} -l ${name} ::1 ${port}`,
};

test('over IPv6: curl, tftp-hpa, atftp, busybox', ['curl', 'tftp', 'atftp', 'busybox'], async (dir, driver) => {
  for (const [client, lineOf] of Object.entries(IPV6_CLIENTS)) {
    mkdirSync(join(dir, client));
    const { root, work } = makeFolders(join(dir, client));
    const back = join(dir, client, 'back');
    mkdirSync(back);
    await using reads = await serveReads(root, driver, '::1');
    await using writes = await serveWrites(back, driver, '::1');
    for (const name of ['f0', 'f512', 'f65464']) {
      await succeed(work, lineOf('get', name, reads.port).split(' '));
      assert.equal(hashOf(join(work, name)), hashOf(join(root, name)), `${client} ${name}`);
      await succeed(work, lineOf('put', name, writes.port).split(' '));
      assert.equal(hashOf(join(back, name)), hashOf(join(root, name)), `${client} ${name}`);
    }
    await sleep(50);
    const events = [...reads.events, ...writes.events];
    assert.deepEqual([events.length, events.filter((event) => event.peer !== '::1')], [6, []], client);
  }
});

test('npm tftp gets and puts, with a window', [], async (dir, driver) => {
  const { root, work } = makeFolders(dir);
  await using served = await serveWrites(root, driver);
  const script = `
    const client = require(process.argv[1]).createClient({ host: '${HOST}', port: ${served.port}, blockSize: 1468, windowSize: 4 });
    client.get('f3000001', process.argv[2], (error) => {
      if (error) throw error;
      client.put(process.argv[2], 'back', (error) => { if (error) throw error; });
    });`;
  const file = join(work, 'f3000001');
  await succeed(work, [process.execPath, '-e', script, join(TOP, 'node_modules', 'tftp'), file]);
  assert.equal(hashOf(file), hashOf(join(root, 'f3000001')));
  assert.equal(hashOf(join(root, 'back')), hashOf(file));
});

test('a machine of ours, read and written by curl: task, result once, log in chunks', ['curl'], async (dir, driver) => {
  const { root, work } = makeFolders(dir);
  const written: string[] = [];
  await using server = await serveMachine({
    folder: root,
    address: HOST,
    driver,
    peer: HOST,
    writable: { 'result.manifest': { maxBytes: 1000, rule: 'once' }, log: { maxBytes: 10_000, rule: 'append' } },
    onWritten: (name) => written.push(name),
  });
  const url = `tftp://${HOST}:${server.port}`;
  writeFileSync(join(work, 'result'), 'status: success\n');
  await succeed(work, ['curl', '-sS', '-T', 'result', `${url}/result.manifest`]);
  assert.notEqual((await runIn(work, ['curl', '-sS', '-T', 'result', `${url}/result.manifest`])).status, 0);
  for (let offset = 0; offset < 5000; offset += 1000) {
    await put({ host: HOST, port: server.port, name: 'log', content: 'l'.repeat(1000), offset });
  }
  await succeed(work, ['curl', '-sS', '-o', 'log', `${url}/log`]);
  assert.equal(readFileSync(join(work, 'log'), 'utf8'), 'l'.repeat(5000));
  assert.deepEqual(written, ['result.manifest', 'log', 'log', 'log', 'log', 'log']);
});

test('40 MB go through without options, past block 65535, and with a window', ['curl'], async (dir, driver) => {
  const content = randomBytes(40_000_000);
  writeFileSync(join(dir, 'big'), content);
  await using served = await serveReads(dir, driver);
  await succeed(dir, ['curl', '-sS', '--tftp-no-options', '-o', 'plain', `tftp://${HOST}:${served.port}/big`]);
  assert.equal(hashOf(join(dir, 'plain')), hashOf(join(dir, 'big')));
  const report = await getToFile({
    host: HOST,
    port: served.server.port,
    name: 'big',
    file: join(dir, 'window'),
    blksize: 512,
  });
  assert.equal(hashOf(join(dir, 'window')), hashOf(join(dir, 'big')));
  assert.equal(report.blocks, 78_126);
});

nodeTest(
  'our client gets from dnsmasq, over IPv4 and IPv6: every size, with and without options, text, and a missing file',
  {
    timeout: 60_000,
    skip:
      process.getuid?.() !== 0
        ? 'needs root for port 69'
        : findProgram('dnsmasq') === undefined
          ? 'needs dnsmasq'
          : false,
  },
  async () => {
    using dir = mkdtempDisposableSync('/tmp/tftp-dnsmasq-');
    const { root, work } = makeFolders(dir.path);
    // An address of its own keeps away from other servers on this host.
    const hosts = ['127.0.0.3', '::1'] as const;
    const argv = [
      'dnsmasq',
      '--keep-in-foreground',
      '--conf-file=/dev/null',
      '--port=0',
      '--user=root',
      '--log-facility=-',
    ];
    const listen = [
      '--enable-tftp',
      `--tftp-root=${root}`,
      ...hosts.map((host) => `--listen-address=${host}`),
      '--bind-interfaces',
      '--pid-file=',
    ];
    await using _server = await startServer([...argv, ...listen], () => gives(hosts[0], 69, 'f1'));
    for (const host of hosts) {
      for (const options of [{}, { blksize: 512, windowsize: 1 }, { blksize: 65464 }] as const) {
        for (const size of SIZES) {
          const file = join(work, 'file');
          const report = await getToFile({ host, name: `f${size}`, file, ...options });
          assert.equal(hashOf(file), hashOf(join(root, `f${size}`)), JSON.stringify({ host, size, report }));
          assert.equal(report.granted.tsize, size);
        }
      }
      assert.ok((await get({ host, name: 'text', mode: 'netascii' })).length > 0);
      await assert.rejects(get({ host, name: 'nothing' }), { name: 'TransferError', code: 1 });
      await assert.rejects(put({ host, name: 'f1', content: 'x' }), { name: 'TransferError', from: 'peer' });
    }
  },
);

test(
  'our client gets from and puts to the server of npm tftp',
  [],
  async (dir) => {
    const { root, work } = makeFolders(dir);
    const port = await findFreePort();
    const script = `
    const server = require(process.argv[1]).createServer({ host: '${HOST}', port: ${port}, root: process.argv[2] });
    server.on('request', (request) => request.on('error', () => {}));
    server.listen();`;
    const argv = [process.execPath, '-e', script, join(TOP, 'node_modules', 'tftp'), root];
    await using _server = await startServer(argv, () => gives(HOST, port, 'f1'));
    for (const size of SIZES) {
      const file = join(work, 'file');
      await getToFile({ host: HOST, port, name: `f${size}`, file });
      assert.equal(hashOf(file), hashOf(join(root, `f${size}`)), String(size));
      await put({ host: HOST, port, name: `up${size}`, content: { file } });
      // It sends its last ACK before the file is complete.
      await sleep(50);
      assert.equal(hashOf(join(root, `up${size}`)), hashOf(file), String(size));
    }
    await assert.rejects(get({ host: HOST, port, name: 'nothing' }), { name: 'TransferError', from: 'peer' });
  },
  ['dgram'],
);

test(
  'a bound socket is taken over as a descriptor, as from systemd',
  ['curl'],
  async (dir) => {
    const { root, work } = makeFolders(dir);
    const socket = createSocket('udp4');
    const { port } = socket.bindSync({ address: HOST });
    const fd = descriptorOf(socket);
    const script = `
    import { serveFolder } from ${JSON.stringify(join(TOP, 'tftp', 'server.ts'))};
    await serveFolder({ folder: process.argv[1], fd: 3 });
    console.log('up');`;
    const args = ['--input-type=module-typescript', '-e', script, root];
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit', fd] });
    // The child has it; here it would take requests away.
    socket.close();
    const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()));
    try {
      await Promise.race([new Promise((resolve) => child.stdio[1]?.once('data', resolve)), exited]);
      assert.equal(child.exitCode, null);
      await succeed(work, ['curl', '-sS', '-o', 'f513', `tftp://${HOST}:${port}/f513`]);
      assert.equal(hashOf(join(work, 'f513')), hashOf(join(root, 'f513')));
    } finally {
      child.kill('SIGTERM');
      await exited;
    }
  },
  ['dgram'],
);

/** The descriptor of a socket, which Node keeps to itself: the one number `fd` in its hidden state. */
function descriptorOf(socket: Socket): number {
  const hidden = Object.getOwnPropertySymbols(socket).map((symbol): unknown => Reflect.get(socket, symbol));
  const descriptors = hidden.map((value): unknown => {
    const handle: unknown = typeof value === 'object' && value !== null ? Reflect.get(value, 'handle') : undefined;
    return typeof handle === 'object' && handle !== null ? Reflect.get(handle, 'fd') : undefined;
  });
  const found = descriptors.find((fd) => typeof fd === 'number' && fd > 2);
  assert.ok(typeof found === 'number', 'this Node hides the descriptor of a socket elsewhere');
  return found;
}
