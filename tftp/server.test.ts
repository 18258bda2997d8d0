/** The server, asked packet by packet as a client would, on loopback. */
import assert from 'node:assert/strict';
import { type RemoteInfo, type Socket, createSocket } from 'node:dgram';
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  mkdtempDisposableSync,
  readFileSync,
  readdirSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { test as nodeTest } from 'node:test';

import { get } from './client.ts';
import type { DriverName } from './driver.ts';
import { DRIVERS } from './drivers.ts';
import { serveMachine } from './instance.ts';
import {
  type OptionPair,
  type Packet,
  decodePacket,
  encodeAck,
  encodeData,
  encodeError,
  encodeRequest,
} from './packet.ts';
import { serve, serveFolder } from './server.ts';
import type { TransferEvent } from './transfer-event.ts';

const HOST = '127.0.0.1';

/** With each driver that works here. */
const test = (name: string, run: (driver: DriverName) => Promise<void>): void => {
  for (const driver of DRIVERS) void nodeTest(`${driver}: ${name}`, { timeout: 20_000 }, () => run(driver));
};

/** What came, and from which port. */
interface Received {
  readonly packet: Packet;
  readonly port: number;
}

/** A socket that sends what it is told and keeps what comes. */
class Probe implements AsyncDisposable {
  readonly #socket: Socket;
  readonly #inbox: Received[] = [];
  #wake: (() => void) | undefined;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('message', (bytes: Uint8Array, from: RemoteInfo) => {
      this.#inbox.push({ packet: decodePacket(Uint8Array.from(bytes)), port: from.port });
      this.#wake?.();
    });
  }

  static open(address: string = HOST): Probe {
    const socket = createSocket('udp4');
    socket.bindSync({ address });
    return new Probe(socket);
  }

  send(port: number, bytes: Uint8Array): void {
    this.#socket.send(bytes, port, HOST);
  }

  read(
    port: number,
    name: string,
    options: readonly OptionPair[] = [],
    mode: 'octet' | 'netascii' | 'mail' = 'octet',
  ): void {
    this.send(port, encodeRequest({ direction: 'read', name, mode, options }));
  }

  write(port: number, name: string, options: readonly OptionPair[] = [], mode: 'octet' | 'netascii' = 'octet'): void {
    this.send(port, encodeRequest({ direction: 'write', name, mode, options }));
  }

  /** The next packet; fails when none comes. */
  async next(withinMs = 3000): Promise<Received> {
    const received = await this.maybe(withinMs);
    assert.ok(received, `nothing came within ${withinMs} ms`);
    return received;
  }

  /** The next packet, if one comes. */
  async maybe(withinMs: number): Promise<Received | undefined> {
    const endMs = performance.now() + withinMs;
    while (this.#inbox.length === 0 && performance.now() < endMs) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#wake = resolve;
      const timer = setTimeout(resolve, Math.max(1, endMs - performance.now()));
      await promise;
      clearTimeout(timer);
    }
    return this.#inbox.shift();
  }

  async expectError(code: number): Promise<string> {
    const { packet } = await this.next();
    assert.equal(packet.kind, 'error', JSON.stringify(packet));
    assert.equal(packet.kind === 'error' ? packet.code : undefined, code, JSON.stringify(packet));
    return packet.kind === 'error' ? packet.message : '';
  }

  /** DATA with this block number; gives its bytes and the port. */
  async expectData(block: number): Promise<{ readonly text: string; readonly port: number }> {
    const { packet, port } = await this.next();
    assert.ok(packet.kind === 'data', JSON.stringify(packet));
    assert.equal(packet.block, block);
    return { text: Buffer.from(packet.data).toString('latin1'), port };
  }

  async expectAck(block: number): Promise<number> {
    const { packet, port } = await this.next();
    assert.deepEqual(packet, { kind: 'ack', block });
    return port;
  }

  async expectSilence(forMs: number): Promise<void> {
    const received = await this.maybe(forMs);
    assert.equal(received, undefined, JSON.stringify(received));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await new Promise<void>((resolve) => this.#socket.close(() => resolve()));
  }
}

function makeFolder(files: Readonly<Record<string, string>> = {}): Disposable & { readonly path: string } {
  const dir = mkdtempDisposableSync(join(tmpdir(), 'tftp-server-'));
  for (const [name, content] of Object.entries(files)) writeFileSync(join(dir.path, name), content);
  return { path: dir.path, [Symbol.dispose]: () => dir.remove() };
}

const onLoopback = { address: HOST, port: 0 } as const;
const until = async (isTrue: () => boolean): Promise<void> => {
  for (let tries = 0; !isTrue(); tries += 1) {
    assert.ok(tries < 1000, 'it does not become true');
    await sleep(10);
  }
};

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

test('more transfers than allowed are ignored, but silent strangers make room', async (driver) => {
  using folder = makeFolder({ file: 'x'.repeat(600) });
  const events: TransferEvent[] = [];
  await using server = await serveFolder({
    driver,
    ...onLoopback,
    folder: folder.path,
    transfersMax: 2,
    onTransfer: (event) => events.push(event),
  });
  await using first = Probe.open();
  await using second = Probe.open();
  await using third = Probe.open();
  await using fourth = Probe.open();
  first.read(server.port, 'file');
  first.send((await first.expectData(1)).port, encodeAck(1));
  await first.expectData(2);
  second.read(server.port, 'file');
  const { port } = await second.expectData(1);
  // The second has not answered, so it goes: its address may be forged.
  third.read(server.port, 'file');
  third.send((await third.expectData(1)).port, encodeAck(1));
  await third.expectData(2);
  await second.expectError(0);
  second.send(port, encodeAck(1));
  await second.expectSilence(50);
  fourth.read(server.port, 'file');
  await fourth.expectSilence(100);
  assert.match(events.at(-1)?.error ?? '', /too many transfers/);
  assert.equal(server.transfers, 2);
});

test('more transfers of one peer than allowed are ignored', async (driver) => {
  using folder = makeFolder({ file: 'x'.repeat(600) });
  await using server = await serveFolder({ driver, ...onLoopback, folder: folder.path, transfersPerPeerMax: 1 });
  await using first = Probe.open();
  await using second = Probe.open();
  await using other = Probe.open('127.0.0.2');
  first.read(server.port, 'file');
  await first.expectData(1);
  second.read(server.port, 'file');
  await second.expectSilence(100);
  other.read(server.port, 'file');
  await other.expectData(1);
});

test("long texts whose size is being found take nobody's place, and few are read at once", async (driver) => {
  using folder = makeFolder({ file: 'x', text: '' });
  truncateSync(join(folder.path, 'text'), 16 * 1024 * 1024);
  const events: TransferEvent[] = [];
  await using server = await serveFolder({
    driver,
    ...onLoopback,
    folder: folder.path,
    transfersMax: 2,
    onTransfer: (event) => events.push(event),
  });
  await using probes = new AsyncDisposableStack();
  for (let index = 0; index < 10; index += 1) probes.use(Probe.open()).read(server.port, 'text', [], 'netascii');
  const other = probes.use(Probe.open());
  other.read(server.port, 'file');
  assert.equal((await other.expectData(1)).text, 'x');
  assert.equal(events.filter((event) => /too many long texts/.test(event.error ?? '')).length, 6);
});

test('closing the server ends its transfers with ERROR 0', async (driver) => {
  using folder = makeFolder({ file: 'x'.repeat(600) });
  const server = await serveFolder({ driver, ...onLoopback, folder: folder.path });
  await using probe = Probe.open();
  probe.read(server.port, 'file');
  await probe.expectData(1);
  await server.close();
  assert.equal(await probe.expectError(0), 'the server stops');
});

test('a signal closes the server, and one that is aborted starts none', async (driver) => {
  using folder = makeFolder({ file: 'x' });
  const controller = new AbortController();
  const server = await serveFolder({ driver, ...onLoopback, folder: folder.path, signal: controller.signal });
  controller.abort(new Error('enough'));
  await server.close();
  await assert.rejects(
    serveFolder({ driver, ...onLoopback, folder: folder.path, signal: controller.signal }),
    /enough/,
  );
});

test('a signal while the server begins to listen starts none', async (driver) => {
  using folder = makeFolder({ file: 'x' });
  const controller = new AbortController();
  const starting = serveFolder({ driver, ...onLoopback, folder: folder.path, signal: controller.signal });
  controller.abort(new Error('enough'));
  await assert.rejects(
    starting.then((server) => server.close()),
    /enough/,
  );
});

test('a port that is taken is a ListenError with a hint', async (driver) => {
  using folder = makeFolder();
  await using server = await serveFolder({ driver, ...onLoopback, folder: folder.path });
  await assert.rejects(serveFolder({ driver, address: HOST, port: server.port, folder: folder.path }), {
    name: 'ListenError',
    hint: /ss -ulpn/,
  });
});

test('an upload is in place before its last ACK, which is repeated for a repeated last DATA', async (driver) => {
  using folder = makeFolder({ result: 'old' });
  const written: [string, number][] = [];
  await using server = await serveMachine({
    driver,
    folder: folder.path,
    address: HOST,
    peer: HOST,
    writable: { result: { maxBytes: 1000, rule: 'replace' } },
    onWritten: (name, bytes) => written.push([name, bytes]),
  });
  await using probe = Probe.open();
  probe.write(server.port, '/result');
  const port = await probe.expectAck(0);
  probe.send(port, encodeData(1, Buffer.alloc(512, 'n')));
  await probe.expectAck(1);
  assert.equal(readFileSync(join(folder.path, 'result'), 'utf8'), 'old');
  probe.send(port, encodeData(2, Buffer.from('end')));
  await probe.expectAck(2);
  assert.equal(readFileSync(join(folder.path, 'result'), 'utf8'), `${'n'.repeat(512)}end`);
  assert.deepEqual(written, [['result', 515]]);
  probe.send(port, encodeData(2, Buffer.from('end')));
  await probe.expectAck(2);
  assert.deepEqual(readdirSync(folder.path), ['result']);
});

test('an upload that ends early leaves everything as it was', async (driver) => {
  using folder = makeFolder({ result: 'old' });
  await using server = await serveMachine({
    driver,
    folder: folder.path,
    address: HOST,
    peer: HOST,
    writable: { result: { maxBytes: 1000, rule: 'replace' } },
  });
  await using probe = Probe.open();
  probe.write(server.port, 'result');
  const port = await probe.expectAck(0);
  probe.send(port, encodeData(1, Buffer.alloc(512, 'n')));
  await probe.expectAck(1);
  assert.equal(readdirSync(folder.path).length, 2);
  probe.read(server.port, `${readdirSync(folder.path).find((name) => name.startsWith('.'))}`);
  // No ERROR 0 for the upload: it would be taken for the answer to this request.
  await probe.expectError(1);
  await until(() => server.transfers === 0);
  assert.deepEqual(readdirSync(folder.path), ['result']);
  assert.equal(readFileSync(join(folder.path, 'result'), 'utf8'), 'old');
});

test('a temporary file that cannot be removed is told, and the server goes on', async (driver) => {
  using folder = makeFolder({ file: 'x' });
  const errors: Error[] = [];
  const writable = { up: { maxBytes: 1000, rule: 'replace' } } as const;
  const onError = (error: Error): void => void errors.push(error);
  await using server = await serveMachine({
    driver,
    folder: folder.path,
    address: HOST,
    peer: HOST,
    writable,
    onError,
  });
  await using probe = Probe.open();
  probe.write(server.port, 'up');
  const port = await probe.expectAck(0);
  const [temporary = ''] = readdirSync(folder.path).filter((name) => name.endsWith('.part'));
  unlinkSync(join(folder.path, temporary));
  mkdirSync(join(folder.path, temporary));
  probe.send(port, encodeError(0, 'enough'));
  await until(() => errors.length > 0);
  assert.match(errors[0]?.message ?? '', /EISDIR/);
  assert.equal(server.transfers, 0);
  probe.read(server.port, 'file');
  assert.equal((await probe.expectData(1)).text, 'x');
});

test('names, rules and quotas of an instance', async (driver) => {
  using folder = makeFolder({ task: 'task', result: 'there', '.log.0123456789ab.part': 'left over' });
  await using server = await serveMachine({
    driver,
    folder: folder.path,
    address: HOST,
    peer: HOST,
    writable: { result: { maxBytes: 1000, rule: 'once' }, upload: { maxBytes: 600, rule: 'replace' } },
  });
  assert.equal(existsSync(join(folder.path, '.log.0123456789ab.part')), false);
  await using probe = Probe.open();
  probe.write(server.port, 'task');
  assert.equal(await probe.expectError(2), 'this name cannot be written');
  probe.write(server.port, 'constructor');
  await probe.expectError(2);
  probe.write(server.port, 'result');
  await probe.expectError(6);
  probe.write(server.port, 'upload', [['tsize', '601']]);
  await probe.expectError(3);
  probe.write(server.port, 'upload');
  const port = await probe.expectAck(0);
  probe.send(port, encodeData(1, Buffer.alloc(512)));
  await probe.expectAck(1);
  probe.send(port, encodeData(2, Buffer.alloc(512)));
  await probe.expectError(3);
  assert.deepEqual(readdirSync(folder.path).sort(), ['result', 'task']);
});

test('an upload with fewer bytes than announced is refused', async (driver) => {
  using folder = makeFolder();
  await using server = await serveMachine({
    driver,
    folder: folder.path,
    address: HOST,
    peer: HOST,
    writable: { upload: { maxBytes: 1000, rule: 'once' } },
  });
  await using probe = Probe.open();
  probe.write(server.port, 'upload', [['tsize', '10']]);
  const { packet, port } = await probe.next();
  assert.deepEqual(packet, { kind: 'oack', options: [['tsize', '10']] });
  probe.send(port, encodeData(1, Buffer.from('short')));
  assert.match(await probe.expectError(0), /only 5 of the 10 bytes/);
  assert.deepEqual(readdirSync(folder.path), []);
});

test('append: the offset says where, a chunk is seen whole or not at all, and a repeat changes nothing', async (driver) => {
  using folder = makeFolder();
  await using server = await serveMachine({
    driver,
    folder: folder.path,
    address: HOST,
    peer: HOST,
    writable: { log: { maxBytes: 12, rule: 'append' } },
  });
  const log = join(folder.path, 'log');
  await using probe = Probe.open();
  const append = async (offset: number, text: string): Promise<void> => {
    probe.write(server.port, 'log', [['offset', String(offset)]]);
    const { packet, port } = await probe.next();
    assert.deepEqual(packet, { kind: 'oack', options: [['offset', String(offset)]] });
    probe.send(port, encodeData(1, Buffer.from(text)));
    await probe.expectAck(1);
  };
  await append(0, 'hello ');
  await append(6, 'world');
  await append(6, 'world');
  assert.equal(readFileSync(log, 'utf8'), 'hello world');
  probe.write(server.port, 'log', [['offset', '12']]);
  assert.match(await probe.expectError(0), /the size is 11/);
  probe.write(server.port, 'log', [['offset', '13']]);
  await probe.expectError(3);
  probe.write(server.port, 'log');
  assert.match(await probe.expectError(6), /its size is 11/);
  probe.write(server.port, 'log', [['offset', '11']]);
  const { port } = await probe.next();
  probe.send(port, encodeData(1, Buffer.from('too long')));
  await probe.expectError(3);
  assert.equal(readFileSync(log, 'utf8'), 'hello world');
});

test('a newer upload of a name takes the place of an older one that stands still', async (driver) => {
  using folder = makeFolder();
  await using server = await serveMachine({
    driver,
    folder: folder.path,
    address: HOST,
    peer: HOST,
    writable: { upload: { maxBytes: 1000, rule: 'replace' } },
  });
  await using old = Probe.open();
  await using fresh = Probe.open();
  old.write(server.port, 'upload');
  const oldPort = await old.expectAck(0);
  fresh.write(server.port, 'upload');
  const port = await fresh.expectAck(0);
  old.send(oldPort, encodeData(1, Buffer.from('old')));
  assert.match(await old.expectError(0), /newer upload/);
  fresh.send(port, encodeData(1, Buffer.from('fresh')));
  await fresh.expectAck(1);
  assert.equal(readFileSync(join(folder.path, 'upload'), 'utf8'), 'fresh');
});

test('an instance answers its peer only', async (driver) => {
  using folder = makeFolder({ task: 'task' });
  await using server = await serveMachine({
    driver,
    folder: folder.path,
    address: HOST,
    peer: '127.0.0.2',
    writable: {},
  });
  await using stranger = Probe.open();
  await using peer = Probe.open('127.0.0.2');
  stranger.read(server.port, 'task');
  await stranger.expectSilence(100);
  peer.read(server.port, 'task');
  assert.equal((await peer.expectData(1)).text, 'task');
});

test('writable names must be names that can be asked for', async (driver) => {
  using folder = makeFolder();
  for (const name of ['../x', '.hidden', 'a//b', '']) {
    const options = {
      driver,
      folder: folder.path,
      address: HOST,
      peer: HOST,
      writable: { [name]: { maxBytes: 1, rule: 'once' } },
    } as const;
    await assert.rejects(async () => serveMachine(options), RangeError, name);
  }
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

test('several addresses, IPv4 and IPv6: each answers from the address asked, at the same port', async (driver) => {
  using folder = makeFolder({ file: 'abc' });
  const addresses = [HOST, '127.0.0.3', '::1'];
  await using server = await serveFolder({ driver, addresses, port: 0, folder: folder.path });
  assert.deepEqual(
    server.sockets.map((socket) => [socket.address, socket.port]),
    addresses.map((address) => [address, server.port]),
  );
  for (const address of addresses) {
    const bytes = await get({ host: address, port: server.port, name: 'file' });
    assert.equal(Buffer.from(bytes).toString(), 'abc', address);
  }
});

test('0.0.0.0 and :: stand beside each other', async (driver) => {
  using folder = makeFolder({ file: 'abc' });
  await using server = await serveFolder({ driver, addresses: ['0.0.0.0', '::'], port: 0, folder: folder.path });
  for (const host of [HOST, '::1']) assert.equal((await get({ host, port: server.port, name: 'file' })).length, 3);
});

test('when one address cannot be had, none is kept', async (driver) => {
  using folder = makeFolder();
  const addresses = [HOST, '192.0.2.77'];
  const { port } = await usingPort(folder.path);
  await assert.rejects(serveFolder({ driver, addresses, port, folder: folder.path }), /192\.0\.2\.77 port/);
  await using server = await serveFolder({ driver, address: HOST, port, folder: folder.path });
  assert.equal(server.port, port);
});

/** A port that is free. */
async function usingPort(folder: string): Promise<{ readonly port: number }> {
  await using server = await serveFolder({ ...onLoopback, folder });
  return { port: server.port };
}

test('an upload that only waits to repeat its last ACK holds no place of its peer', async (driver) => {
  using folder = makeFolder();
  await using server = await serveMachine({
    driver,
    folder: folder.path,
    address: HOST,
    peer: HOST,
    transfersMax: 2,
    transfersPerPeerMax: 1,
    writable: { upload: { maxBytes: 1000, rule: 'replace' } },
  });
  await using probes = new AsyncDisposableStack();
  for (let index = 0; index < 6; index += 1) {
    const probe = probes.use(Probe.open());
    probe.write(server.port, 'upload');
    const port = await probe.expectAck(0);
    probe.send(port, encodeData(1, Buffer.from(`upload ${index}`)));
    await probe.expectAck(1);
  }
  // As many wait as may run; the oldest have gone.
  assert.ok(server.transfers <= 3, `${server.transfers}`);
});

test('servers that come and go leave no descriptor behind', async (driver) => {
  using folder = makeFolder({ file: 'x'.repeat(600) });
  const options = { driver, folder: folder.path, address: HOST, peer: HOST, writable: {} };
  const descriptors = (): number => readdirSync('/proc/self/fd').length;
  const cycle = async (): Promise<void> => {
    await using server = await serveMachine(options);
    await using probe = Probe.open();
    probe.read(server.port, 'file');
    await probe.expectData(1);
  };
  await cycle();
  const before = descriptors();
  for (let index = 0; index < 50; index += 1) await cycle();
  await until(() => descriptors() <= before);
});

test('while requests pour in that are never followed up, who has read before is served; strangers in part', async (driver) => {
  using folder = makeFolder({ file: 'x'.repeat(100) });
  const events: TransferEvent[] = [];
  const onTransfer = (event: TransferEvent): void => void events.push(event);
  await using server = await serveFolder({ driver, folder: folder.path, ...onLoopback, transfersMax: 300, onTransfer });
  await using probes = new AsyncDisposableStack();
  const readAs = async (address: string): Promise<void> => {
    const probe = probes.use(Probe.open(address));
    probe.read(server.port, 'file');
    const { port } = await probe.expectData(1);
    probe.send(port, encodeAck(1));
  };
  await readAs('127.0.0.2');
  await until(() => events.length === 1);
  for (let index = 0; index < 300; index += 1) probes.use(Probe.open('127.0.0.3')).read(server.port, 'file');
  // On a slow machine the oldest have waited for long before all are there.
  await until(() => server.transfers >= 300 || events.length > 1);
  const stranger = probes.use(Probe.open('127.0.0.4'));
  // More than one in a turn of the loop, so that some come while strangers wait.
  await until(() => {
    for (let index = 0; index < 50; index += 1) stranger.read(server.port, `none ${index}`);
    return events.some((event) => /never followed up; \d+ were ignored/.test(event.error ?? ''));
  });
  assert.match(await stranger.expectError(1), /not found/);
  await readAs('127.0.0.2');
});
