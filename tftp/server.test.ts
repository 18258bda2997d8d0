/** The server, asked packet by packet as a client would, on loopback: what it answers to reads and to what is no request. */
import assert from 'node:assert/strict';
import { appendFileSync, readdirSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type OptionPair, encodeAck, encodeData, encodeError } from './packet.ts';
import { serve, serveFolder } from './server.ts';
import type { TransferEvent } from './transfer-event.ts';
import { HOST, Probe, makeFolder, onLoopback, until, onEachDriver as test } from './_probe.ts';

test('a file of a multiple of 512 bytes ends with an empty block, from a port of its own', async (driver) => {
  using folder = makeFolder({ file: 'x'.repeat(1024) });
  const events: TransferEvent[] = [];
  await using server = await serveFolder({
    driver,
    ...onLoopback,
    folder: folder.path,
    onTransfer: (event) => events.push(event),
  });
  await using probe = Probe.open();
  probe.read(server.port, 'file');
  const first = await probe.expectData(1);
  assert.notEqual(first.port, server.port);
  probe.send(first.port, encodeAck(1));
  assert.equal((await probe.expectData(2)).text.length, 512);
  probe.send(first.port, encodeAck(2));
  assert.equal((await probe.expectData(3)).text, '');
  probe.send(first.port, encodeAck(3));
  await until(() => events.length === 1);
  const [event] = events;
  assert.deepEqual(
    { ...event, port: 0, repeats: 0, rttMs: 0, durationMs: 0 },
    {
      peer: HOST,
      port: 0,
      direction: 'read',
      name: 'file',
      mode: 'octet',
      asked: {},
      options: [],
      granted: {},
      bytes: 1024,
      blocks: 3,
      repeats: 0,
      rttMs: 0,
      durationMs: 0,
      result: 'done',
      begun: true,
    },
  );
  assert.equal(server.transfers, 0);
});

test('errors: missing file 1, way out 2, write 2, mail 4, unknown mode 4, half a request 4', async (driver) => {
  using folder = makeFolder();
  const events: TransferEvent[] = [];
  const onTransfer = (event: TransferEvent): unknown => events.push(event);
  await using server = await serveFolder({ driver, ...onLoopback, folder: folder.path, onTransfer });
  await using probe = Probe.open();
  probe.read(server.port, 'nothing');
  await probe.expectError(1);
  probe.read(server.port, '../../etc/passwd');
  await probe.expectError(2);
  probe.write(server.port, 'new');
  assert.equal(await probe.expectError(2), 'nothing can be written here');
  probe.read(server.port, 'file', [], 'mail');
  await probe.expectError(4);
  probe.send(server.port, Buffer.from('\0\x01file\0binary\0'));
  await probe.expectError(4);
  probe.send(server.port, Buffer.from('\0\x01file'));
  await probe.expectError(4);
  assert.deepEqual(readdirSync(folder.path), []);
  assert.deepEqual(
    events.map(({ name, errorCode, begun, endedBy }) => [name, errorCode, begun, endedBy]),
    ['nothing', '../../etc/passwd', 'new', 'file', 'file', ''].map((name, index) => [
      name,
      [1, 2, 2, 4, 4, 4][index],
      false,
      'server',
    ]),
  );
});

test('what is no request gets no answer at the listening port, an ERROR least of all', async (driver) => {
  using folder = makeFolder();
  await using server = await serveFolder({ driver, ...onLoopback, folder: folder.path });
  await using probe = Probe.open();
  for (const bytes of [
    encodeError(4, 'x'),
    encodeAck(1),
    encodeData(1, Buffer.from('x')),
    Buffer.from([]),
    Buffer.from('zzzz'),
  ]) {
    probe.send(server.port, bytes);
  }
  await probe.expectSilence(150);
});

test('ERROR 8 ends a transfer, and the next RRQ from the same port works (size probe of UEFI)', async (driver) => {
  using folder = makeFolder({ 'boot.efi': 'x'.repeat(3000) });
  await using server = await serveFolder({ driver, ...onLoopback, folder: folder.path });
  await using probe = Probe.open();
  const asked: readonly OptionPair[] = [
    ['tsize', '0'],
    ['blksize', '1468'],
  ];
  probe.read(server.port, 'boot.efi', asked);
  const { packet, port } = await probe.next();
  assert.deepEqual(packet, {
    kind: 'oack',
    options: [
      ['tsize', '3000'],
      ['blksize', '1468'],
    ],
  });
  probe.send(port, encodeError(8, 'User aborted the transfer'));
  probe.read(server.port, 'boot.efi', [['blksize', '1468']]);
  const second = await probe.next();
  assert.deepEqual(second.packet, { kind: 'oack', options: [['blksize', '1468']] });
  probe.send(second.port, encodeAck(0));
  assert.equal((await probe.expectData(1)).text.length, 1468);
});

test('options that are not granted leave no trace: no OACK, DATA at once', async (driver) => {
  using folder = makeFolder({ file: 'abc' });
  await using server = await serveFolder({ driver, ...onLoopback, folder: folder.path });
  await using probe = Probe.open();
  probe.read(server.port, 'file', [
    ['multicast', ''],
    ['blksize', '4'],
    ['offset', '1'],
  ]);
  assert.equal((await probe.expectData(1)).text, 'abc');
});

test('the granted timeout is the wait before the first repeat', async (driver) => {
  using folder = makeFolder({ file: 'abc' });
  await using server = await serveFolder({ driver, ...onLoopback, folder: folder.path });
  await using probe = Probe.open();
  const startedMs = performance.now();
  probe.read(server.port, 'file', [['timeout', '2']]);
  assert.equal((await probe.next()).packet.kind, 'oack');
  assert.equal((await probe.next()).packet.kind, 'oack');
  const waitedMs = performance.now() - startedMs;
  // Without it, it is 1 s.
  assert.ok(waitedMs > 1900, `${waitedMs} ms`);
});

test('tsize of an empty file is left out: curl takes 0 for an error', async (driver) => {
  using folder = makeFolder({ log: '' });
  await using server = await serveFolder({ driver, ...onLoopback, folder: folder.path });
  await using probe = Probe.open();
  probe.read(server.port, 'log', [['tsize', '0']]);
  assert.equal((await probe.expectData(1)).text, '');
});

test('a copy of a request starts no second transfer', async (driver) => {
  using folder = makeFolder({ file: 'abc' });
  await using server = await serveFolder({ driver, ...onLoopback, folder: folder.path });
  await using probe = Probe.open();
  probe.read(server.port, 'file');
  probe.read(server.port, 'file');
  const { port } = await probe.expectData(1);
  await probe.expectSilence(150);
  probe.read(server.port, 'file');
  await probe.expectSilence(150);
  assert.equal(server.transfers, 1);
  probe.send(port, encodeAck(1));
  await until(() => server.transfers === 0);
});

test('a stranger neither disturbs a transfer nor reaches the file', async (driver) => {
  using folder = makeFolder({ file: 'x'.repeat(600) });
  await using server = await serveFolder({ driver, ...onLoopback, folder: folder.path });
  await using probe = Probe.open();
  await using stranger = Probe.open();
  probe.read(server.port, 'file');
  const { port } = await probe.expectData(1);
  stranger.send(port, encodeAck(1));
  stranger.send(port, encodeError(0, 'stop'));
  await stranger.expectSilence(100);
  probe.send(port, encodeAck(1));
  assert.equal((await probe.expectData(2)).text.length, 88);
});

test('the size at open is what is served of a file that grows, also by tsize', async (driver) => {
  using folder = makeFolder({ log: 'x'.repeat(600) });
  await using server = await serveFolder({ driver, ...onLoopback, folder: folder.path });
  await using probe = Probe.open();
  probe.read(server.port, 'log', [['tsize', '0']]);
  const { packet, port } = await probe.next();
  assert.deepEqual(packet, { kind: 'oack', options: [['tsize', '600']] });
  appendFileSync(join(folder.path, 'log'), 'y'.repeat(5000));
  probe.send(port, encodeAck(0));
  await probe.expectData(1);
  probe.send(port, encodeAck(1));
  assert.equal((await probe.expectData(2)).text, 'x'.repeat(88));
});

test('a file that shrinks gives an ERROR, never a short success', async (driver) => {
  using folder = makeFolder({ log: 'x'.repeat(2000) });
  const events: TransferEvent[] = [];
  await using server = await serveFolder({
    driver,
    ...onLoopback,
    folder: folder.path,
    onTransfer: (event) => events.push(event),
  });
  await using probe = Probe.open();
  probe.read(server.port, 'log');
  const { port } = await probe.expectData(1);
  truncateSync(join(folder.path, 'log'), 700);
  probe.send(port, encodeAck(1));
  assert.match(await probe.expectError(0), /cut to 700 bytes/);
  assert.equal(events[0]?.result, 'failed');
});

test('netascii: tsize is that of the encoded text, pairs go across blocks, repeats are right', async (driver) => {
  using folder = makeFolder({ text: `${'a'.repeat(511)}\nb\rc` });
  await using server = await serveFolder({ driver, ...onLoopback, folder: folder.path });
  await using probe = Probe.open();
  probe.read(server.port, 'text', [['tsize', '0']], 'netascii');
  const { packet, port } = await probe.next();
  assert.deepEqual(packet, { kind: 'oack', options: [['tsize', '517']] });
  probe.send(port, encodeAck(0));
  assert.equal((await probe.expectData(1)).text, `${'a'.repeat(511)}\r`);
  assert.equal((await probe.expectData(1)).text, `${'a'.repeat(511)}\r`);
  probe.send(port, encodeAck(1));
  assert.equal((await probe.expectData(2)).text, '\nb\r\0c');
});

test('what the access throws is told without its paths, and reported', async (driver) => {
  const events: TransferEvent[] = [];
  const errors: Error[] = [];
  const access = {
    openRead(): number {
      throw Object.assign(new Error('EIO: /secret/path'), { code: 'EIO' });
    },
  };
  const options = {
    ...onLoopback,
    driver,
    onTransfer: (event: TransferEvent) => events.push(event),
    onError: (error: Error) => errors.push(error),
  };
  await using server = await serve(options, access);
  await using probe = Probe.open();
  probe.read(server.port, 'file');
  assert.equal(await probe.expectError(0), 'the server failed');
  await until(() => errors.length === 1);
  assert.equal(events[0]?.error, 'the server failed');
});

test('random datagrams at the server and at a transfer harm nothing', async (driver) => {
  using folder = makeFolder({ file: 'x'.repeat(3000) });
  await using server = await serveFolder({ driver, ...onLoopback, folder: folder.path });
  await using noise = Probe.open();
  let seed = 1;
  const random = (below: number): number => {
    seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
    return (seed >>> 8) % below;
  };
  const datagram = (): Uint8Array =>
    Uint8Array.from({ length: random(40) }, (_, index) => (index === 0 ? 0 : index === 1 ? random(8) : random(256)));
  for (let count = 0; count < 300; count += 1) {
    noise.send(server.port, datagram());
    // Slowly enough for the socket's buffer.
    if (count % 50 === 0) await sleep(5);
  }
  await using probe = Probe.open();
  probe.read(server.port, 'file');
  const { port } = await probe.expectData(1);
  for (let count = 0; count < 100; count += 1) {
    const bytes = datagram();
    // Not an ERROR or a right ACK: those would rightly end or move it.
    if (bytes[1] !== 5 && !(bytes[1] === 4 && bytes[2] === 0 && bytes[3] === 1)) probe.send(port, bytes);
  }
  probe.send(port, encodeAck(1));
  assert.equal((await probe.expectData(2)).text.length, 512);
});
