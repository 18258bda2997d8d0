/**
 * Our TFTP server with the clients that people have: curl, tftp-hpa, atftp, busybox, npm `tftp`. On loopback.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { getToFile, put } from '../../tftp/client.ts';
import type { DriverName } from '../../tftp/driver.ts';
import { serveMachine, serveWritableFolder } from '../../tftp/instance.ts';
import type { TftpServer } from '../../tftp/serve-options.ts';
import { serveFolder } from '../../tftp/server.ts';
import type { TransferEvent } from '../../tftp/transfer-event.ts';
import { makeFolders, SIZES, test } from './_tftp-peer.ts';
import { hashOf, runIn, succeed } from './_tftp-programs.ts';

const HOST = '127.0.0.1';

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

/** `-g` or `-p`, of a file by its own name. */
const atftp = (
  verb: '-g' | '-p',
  options: readonly string[] = [],
): ((name: string, port: string) => readonly string[]) => {
  const asked = options.flatMap((option) => ['--option', option]);
  return (name, port) => ['atftp', ...asked, verb, '-r', name, '-l', name, HOST, port];
};

test('atftp gets every size, with options and without', ['atftp'], async (dir, driver) => {
  mkdirSync(join(dir, 'options'));
  mkdirSync(join(dir, 'plain'));
  const options = ['blksize 1428', 'tsize 0', 'timeout 3', 'windowsize 8'];
  const events = await checkAll('reads', driver, join(dir, 'options'), atftp('-g', options));
  assert.ok(
    events.every(({ granted }) => granted.windowsize === 8 && granted.blksize === 1428 && granted.timeout === 3),
  );
  await checkAll('reads', driver, join(dir, 'plain'), atftp('-g'));
});

test('atftp puts every size, with a window and without options', ['atftp'], async (dir, driver) => {
  mkdirSync(join(dir, 'options'));
  mkdirSync(join(dir, 'plain'));
  await checkAll('writes', driver, join(dir, 'options'), atftp('-p', ['blksize 1428', 'windowsize 8']));
  await checkAll('writes', driver, join(dir, 'plain'), atftp('-p'));
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
  await succeed(work, [process.execPath, '-e', script, join(import.meta.dirname, '../../node_modules/tftp'), file]);
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
