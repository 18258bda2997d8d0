/** The client, against our server and against fakes with the habits of others, on loopback. */
import assert from 'node:assert/strict';
import { type RemoteInfo, type Socket, createSocket } from 'node:dgram';
import {
  chmodSync,
  mkdirSync,
  mkdtempDisposableSync,
  readFileSync,
  readdirSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { networkInterfaces, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { test as nodeTest } from 'node:test';

import { get, getStream, getToFile, put } from './client.ts';
import { TransferError } from './error.ts';
import { serveMachine, serveWritableFolder } from './instance.ts';
import { type Packet, decodePacket, encodeAck, encodeData, encodeError, encodeOack } from './packet.ts';
import { serveFolder } from './server.ts';

const HOST = '127.0.0.1';

const test = (name: string, run: (dir: string) => Promise<void>): void =>
  void nodeTest(name, { timeout: 20_000 }, async () => {
    using dir = mkdtempDisposableSync(join(tmpdir(), 'tftp-client-'));
    await run(dir.path);
  });

/** Answers of a fake server; `send` takes the place of the transfer's port. */
type Answer = (packet: Packet, send: (bytes: Uint8Array) => void, from: RemoteInfo) => void;

/** A fake server: requests come to its port, and it answers from a second one. */
function startFake(answer: Answer): AsyncDisposable & { readonly port: number; readonly transferSocket: Socket } {
  const listening = createSocket('udp4');
  const transferSocket = createSocket('udp4');
  const { port } = listening.bindSync({ address: HOST });
  transferSocket.bindSync({ address: HOST });
  for (const socket of [listening, transferSocket]) {
    socket.on('message', (bytes, from) => {
      answer(decodePacket(bytes), (reply) => transferSocket.send(reply, from.port, from.address), from);
    });
  }
  return {
    port,
    transferSocket,
    async [Symbol.asyncDispose]() {
      for (const socket of [listening, transferSocket])
        await new Promise<void>((resolve) => socket.close(() => resolve()));
    },
  };
}

test('gets what is there, in memory and into a file, with progress and a report', async (dir) => {
  const content = Buffer.from(Array.from({ length: 100_000 }, (_, index) => index & 0xff));
  writeFileSync(join(dir, 'file'), content);
  await using server = await serveFolder({ folder: dir, address: HOST, port: 0 });
  const at = { host: HOST, port: server.port, name: 'file' };
  const seen: number[] = [];
  const got = await get({
    ...at,
    onProgress: ({ bytes, totalBytes }) => {
      assert.equal(totalBytes, 100_000);
      seen.push(bytes);
    },
  });
  assert.ok(content.equals(got));
  assert.ok(seen.length > 1 && seen.at(-1) === 100_000);
  const report = await getToFile({ ...at, file: join(dir, 'copy'), blksize: 1000, windowsize: 4 });
  assert.deepEqual(report.granted, { blksize: 1000, windowsize: 4, tsize: 100_000 });
  assert.deepEqual([report.bytes, report.blocks], [100_000, 101]);
  assert.ok(content.equals(readFileSync(join(dir, 'copy'))));
});

test('puts bytes, text and files; netascii both ways', async (dir) => {
  const root = join(dir, 'root');
  mkdirSync(root);
  writeFileSync(join(dir, 'local'), 'from a file');
  await using server = await serveWritableFolder({ folder: root, address: HOST, port: 0, maxBytes: 1000 });
  const at = { host: HOST, port: server.port };
  await put({ ...at, name: 'bytes', content: Uint8Array.of(1, 2, 3) });
  await put({ ...at, name: 'text', content: 'größer' });
  await put({ ...at, name: 'file', content: { file: join(dir, 'local') } });
  await put({ ...at, name: 'lines', content: 'a\nb\rc\n', mode: 'netascii' });
  assert.deepEqual([...readFileSync(join(root, 'bytes'))], [1, 2, 3]);
  assert.equal(readFileSync(join(root, 'text'), 'utf8'), 'größer');
  assert.equal(readFileSync(join(root, 'file'), 'utf8'), 'from a file');
  assert.equal(readFileSync(join(root, 'lines'), 'utf8'), 'a\nb\rc\n');
  assert.equal(Buffer.from(await get({ ...at, name: 'lines', mode: 'netascii' })).toString(), 'a\nb\rc\n');
  assert.equal(Buffer.from(await get({ ...at, name: 'lines' })).toString(), 'a\nb\rc\n');
});

test('what a server refuses is a TransferError with its words, a code and a hint; no file is left', async (dir) => {
  await using server = await serveFolder({ folder: dir, address: HOST, port: 0 });
  const at = { host: HOST, port: server.port, name: 'nothing' };
  await assert.rejects(getToFile({ ...at, file: join(dir, 'copy') }), (error: unknown) => {
    assert.ok(error instanceof TransferError);
    assert.equal(
      error.message,
      `Cannot get "nothing" from ${HOST} port ${server.port}: the server refused: ERROR 1, file not found`,
    );
    assert.deepEqual([error.code, error.from, error.direction], [1, 'peer', 'read']);
    assert.match(error.hint ?? '', /relative to the server/);
    return true;
  });
  assert.deepEqual(readdirSync(dir), []);
});

test('a server that is not there is given up after the patience asked for', async () => {
  const startedMs = performance.now();
  await using fake = startFake(() => {});
  await assert.rejects(get({ host: HOST, port: fake.port, name: 'x', timeoutMs: 400 }), {
    name: 'TransferError',
    message: /no answer after [2-4] tries in \d\.\d s/,
    hint: /firewall/,
  });
  // Unasked for, it is 30 s.
  assert.ok(performance.now() - startedMs < 10_000);
});

/** Waits until it is so; for ever, if it never is: the test's own deadline ends that. */
async function until(isSo: () => boolean): Promise<void> {
  while (!isSo()) await sleep(5);
}

/** A UDP port that was free a moment ago. */
async function findClosedPort(): Promise<number> {
  const socket = createSocket('udp4');
  const { port } = socket.bindSync({ address: HOST });
  await new Promise<void>((resolve) => socket.close(() => resolve()));
  return port;
}

test('a closed port is told at once, and so is an address without a way', async () => {
  const startedMs = performance.now();
  const port = await findClosedPort();
  await assert.rejects(get({ host: HOST, port, name: 'x' }), {
    name: 'TransferError',
    message: `Cannot get "x" from ${HOST} port ${port}: nobody listens there (ICMP port unreachable)`,
    kind: 'unanswered',
    hint: /server running/,
  });
  await assert.rejects(get({ host: '255.255.255.255', port, name: 'x' }), { kind: 'unanswered' });
  assert.ok(performance.now() - startedMs < 10_000);
});

test('is begun again when nobody answers, as often as asked; not after a refusal', async (dir) => {
  const port = await findClosedPort();
  const errors: string[] = [];
  using servers = new DisposableStack();
  setTimeout(() => {
    void serveFolder({ folder: dir, address: HOST, port }).then((server) => servers.defer(() => void server.close()));
  }, 300);
  writeFileSync(join(dir, 'file'), 'late');
  const at = { host: HOST, port, retries: 3, onRetry: (error: TransferError) => errors.push(error.kind) };
  assert.equal(Buffer.from(await get({ ...at, name: 'file' })).toString(), 'late');
  await assert.rejects(get({ ...at, name: 'nothing' }), { kind: 'refused' });
  assert.deepEqual(errors, ['unanswered']);
});

test('what a server says is quoted', async () => {
  await using fake = startFake((packet, send) => {
    if (packet.kind === 'request') send(encodeError(7, 'no\u001b[2J\u009b1m\nway'));
  });
  await assert.rejects(get({ host: HOST, port: fake.port, name: 'a\u001bb' }), {
    message:
      /^Cannot get "a\\u001bb" .*: the server refused: ERROR 7 \(no such user\), "no\\u001b\[2J\\u009b1m\\nway"$/,
  });
});

test('a stream comes while the file is on its way, and may be left early', async (dir) => {
  const content = Buffer.from(Array.from({ length: 3_000_000 }, (_, index) => (index * 7) & 0xff));
  writeFileSync(join(dir, 'file'), content);
  const results: string[] = [];
  await using server = await serveFolder({
    folder: dir,
    address: HOST,
    port: 0,
    onTransfer: (event) => results.push(event.error ?? event.result),
  });
  const at = { host: HOST, port: server.port, name: 'file' };
  const chunks: Uint8Array[] = [];
  for await (const chunk of getStream(at)) {
    // A slow reader does not slow the transfer down.
    if (chunks.length === 0) await sleep(200);
    chunks.push(chunk);
  }
  assert.ok(Buffer.concat(chunks).equals(content));
  await until(() => results.length === 1);
  assert.deepEqual(results, ['done']);
  for await (const chunk of getStream({ ...at, windowsize: 1, blksize: 512 })) {
    assert.ok(chunk.length > 0);
    break;
  }
  await until(() => results.length === 2);
  assert.deepEqual(results, ['done', 'the client ended it: ERROR 0 (not defined), "the client has stopped"']);
  await assert.rejects(async () => {
    for await (const chunk of getStream({ ...at, name: 'nothing' })) void chunk;
  }, /file not found/);
});

test('a stream is put once its end is there', async (dir) => {
  await using server = await serveWritableFolder({ folder: dir, address: HOST, port: 0, maxBytes: 1_000_000 });
  async function* lines(): AsyncGenerator<Uint8Array> {
    for (let index = 0; index < 1000; index += 1) {
      if (index % 100 === 0) await sleep(1);
      yield Buffer.from(`line ${index}\n`);
    }
  }
  const report = await put({ host: HOST, port: server.port, name: 'x', content: lines() });
  const expected = Array.from({ length: 1000 }, (_, index) => `line ${index}\n`).join('');
  assert.equal(readFileSync(join(dir, 'x'), 'utf8'), expected);
  assert.deepEqual([report.bytes, report.address], [expected.length, HOST]);
  async function* broken(): AsyncGenerator<Uint8Array> {
    yield Buffer.from('x');
    throw new Error('the pipe burst');
  }
  const bad = put({ host: HOST, port: server.port, name: 'y', content: broken() });
  await assert.rejects(bad, { kind: 'local', message: /cannot read the stream: the pipe burst/ });
});

test('a file that is replaced keeps its mode; what a killed download left is removed', async (dir) => {
  const root = join(dir, 'root');
  mkdirSync(root);
  writeFileSync(join(root, 'file'), 'new');
  writeFileSync(join(dir, 'copy'), 'old');
  chmodSync(join(dir, 'copy'), 0o640);
  const long = 'n'.repeat(255);
  // Process ids end far below.
  const left = '.copy.2147483647-0123456789ab.part';
  const fresh = '.copy.2147483647-ba9876543210.part';
  const living = `.copy.${process.pid}-0123456789ab.part`;
  for (const name of [left, fresh, living]) writeFileSync(join(dir, name), 'half');
  const longAgo = new Date(Date.now() - 90_000);
  for (const name of [left, living]) utimesSync(join(dir, name), longAgo, longAgo);
  await using server = await serveFolder({ folder: root, address: HOST, port: 0 });
  const at = { host: HOST, port: server.port, name: 'file' };
  await getToFile({ ...at, file: join(dir, 'copy') });
  await getToFile({ ...at, file: join(dir, long) });
  assert.deepEqual(readdirSync(dir).sort(), [fresh, living, 'copy', long, 'root'].sort());
  assert.equal(statSync(join(dir, 'copy')).mode & 0o777, 0o640);
  assert.equal(readFileSync(join(dir, 'copy'), 'utf8'), 'new');
});

test('a file that cannot fit is refused before it fills the disk', async (dir) => {
  await using fake = startFake((packet, send) => {
    if (packet.kind === 'request') send(encodeOack([['tsize', String(10 ** 15 - 1)]]));
    if (packet.kind === 'ack') send(encodeData((packet.block + 1) & 0xffff, Buffer.alloc(512)));
  });
  await assert.rejects(getToFile({ host: HOST, port: fake.port, name: 'x', file: join(dir, 'copy') }), {
    kind: 'local',
    code: 3,
    message: /999999999999999 bytes do not fit: .* has \d+ left/,
  });
  assert.deepEqual(readdirSync(dir), []);
});

test('the option timeout is asked for', async (dir) => {
  writeFileSync(join(dir, 'file'), 'x');
  await using server = await serveFolder({ folder: dir, address: HOST, port: 0 });
  const at = { host: HOST, port: server.port, name: 'file', file: join(dir, 'copy') };
  assert.equal((await getToFile({ ...at, repeatSeconds: 7 })).granted.timeout, 7);
  await assert.rejects(getToFile({ ...at, repeatSeconds: 256 }), RangeError);
});

test('the next address of a host is asked when nobody listens at the first, or it is silent', async (dir) => {
  writeFileSync(join(dir, 'file'), 'x');
  await using server = await serveFolder({ folder: dir, address: '127.0.0.2', port: 0 });
  const { port } = server;
  const at = { host: 'several', port, lookup: async () => [HOST, '127.0.0.2'] };
  const report = await getToFile({ ...at, name: 'file', file: join(dir, 'copy') });
  assert.equal(report.address, '127.0.0.2');
  await assert.rejects(get({ ...at, name: 'nothing' }), {
    message: `Cannot get "nothing" from several (127.0.0.2) port ${port}: the server refused: ERROR 1, file not found; before that ${HOST}: nobody listens there (ICMP port unreachable)`,
  });
  const silent = createSocket('udp4');
  silent.bindSync({ address: HOST, port });
  const startedMs = performance.now();
  await get({ ...at, name: 'file', timeoutMs: 400 });
  silent.close();
  assert.ok(Math.abs(performance.now() - startedMs - 400) < 200);
});

test('a host name that is not known is said', async () => {
  await assert.rejects(get({ host: 'nothing.invalid', name: 'x' }), {
    name: 'TransferError',
    message: /host name is not known/,
  });
});

test('wrong arguments are RangeErrors', async () => {
  const at = { host: HOST, name: 'x' };
  const wrong = [
    { port: 0 },
    { blksize: 7 },
    { blksize: 65465 },
    { windowsize: 0 },
    { timeoutMs: 0 },
    { name: '' },
    { name: 'a\0b' },
  ];
  for (const options of wrong) await assert.rejects(get({ ...at, ...options }), RangeError, JSON.stringify(options));
  await assert.rejects(put({ ...at, content: '', offset: -1 }), RangeError);
});

test('a signal ends a transfer with its reason; the server is told, and no file is left', async (dir) => {
  const errors: Packet[] = [];
  await using fake = startFake((packet, send) => {
    if (packet.kind === 'request') send(encodeOack([['blksize', '1468']]));
    if (packet.kind === 'error') errors.push(packet);
  });
  const controller = new AbortController();
  const running = getToFile({
    host: HOST,
    port: fake.port,
    name: 'x',
    file: join(dir, 'copy'),
    signal: controller.signal,
  });
  setTimeout(() => controller.abort(new Error('enough')), 50);
  await assert.rejects(running, /enough/);
  await until(() => errors.length > 0);
  assert.deepEqual(errors, [{ kind: 'error', code: 0, message: 'the client has stopped' }]);
  assert.deepEqual(readdirSync(dir), []);
  await assert.rejects(get({ host: HOST, name: 'x', signal: controller.signal }), /enough/);
});

test('a server without options is understood', async () => {
  await using fake = startFake((packet, send) => {
    if (packet.kind === 'request') send(encodeData(1, Buffer.alloc(512, 'a')));
    if (packet.kind === 'ack' && packet.block === 1) send(encodeData(2, Buffer.from('end')));
  });
  assert.equal((await get({ host: HOST, port: fake.port, name: 'x' })).length, 515);
});

test('a server that refuses options is asked again without', async () => {
  const asked: number[] = [];
  await using fake = startFake((packet, send) => {
    if (packet.kind !== 'request') return;
    asked.push(packet.options.length);
    send(packet.options.length > 0 ? encodeError(8, 'no options') : encodeData(1, Buffer.from('plain')));
  });
  assert.equal(Buffer.from(await get({ host: HOST, port: fake.port, name: 'x' })).toString(), 'plain');
  assert.deepEqual(asked, [3, 0]);
});

test('an OACK with what was not asked, or more, is refused with ERROR 8', async () => {
  for (const option of [['timeout', '3'] as const, ['blksize', '9000'] as const]) {
    const errors: Packet[] = [];
    await using fake = startFake((packet, send) => {
      if (packet.kind === 'request') send(encodeOack([option]));
      if (packet.kind === 'error') errors.push(packet);
    });
    await assert.rejects(get({ host: HOST, port: fake.port, name: 'x' }), {
      name: 'TransferError',
      code: 8,
      from: 'here',
    });
    await until(() => errors.length > 0);
    assert.equal(errors[0]?.kind === 'error' ? errors[0].code : undefined, 8);
  }
});

test('a foreign TID gets ERROR 5 and disturbs nothing; its ERROR is not answered', async () => {
  const stranger = createSocket('udp4');
  stranger.bindSync({ address: HOST });
  const told: Packet[] = [];
  stranger.on('message', (bytes) => told.push(decodePacket(bytes)));
  await using fake = startFake((packet, send, from) => {
    if (packet.kind === 'request') send(encodeData(1, Buffer.alloc(512, 'a')));
    if (packet.kind === 'ack' && packet.block === 1) {
      stranger.send(encodeData(2, Buffer.from('evil')), from.port, HOST);
      stranger.send(encodeError(0, 'evil'), from.port, HOST);
      setTimeout(() => send(encodeData(2, Buffer.from('good'))), 30);
    }
  });
  const got = Buffer.from(await get({ host: HOST, port: fake.port, name: 'x' })).toString();
  stranger.close();
  assert.ok(got.endsWith('good'));
  assert.deepEqual(told, [{ kind: 'error', code: 5, message: 'unknown TID' }]);
});

test('the last ACK is repeated for a server that missed it', async () => {
  let acks = 0;
  await using fake = startFake((packet, send) => {
    if (packet.kind === 'request') send(encodeData(1, Buffer.from('end')));
    if (packet.kind === 'ack' && (acks += 1) === 1) setTimeout(() => send(encodeData(1, Buffer.from('end'))), 30);
  });
  await get({ host: HOST, port: fake.port, name: 'x' });
  await until(() => acks === 2);
});

test('fewer bytes than the server announced are no success', async () => {
  await using fake = startFake((packet, send) => {
    if (packet.kind === 'request') send(encodeOack([['tsize', '100']]));
    if (packet.kind === 'ack' && packet.block === 0) send(encodeData(1, Buffer.from('short')));
  });
  await assert.rejects(get({ host: HOST, port: fake.port, name: 'x' }), /only 5 of the 100 bytes announced/);
});

test('more bytes than allowed are refused, before they come when the server says how many', async (dir) => {
  writeFileSync(join(dir, 'file'), 'x'.repeat(5000));
  await using server = await serveFolder({ folder: dir, address: HOST, port: 0 });
  const at = { host: HOST, port: server.port, name: 'file', maxBytes: 4999 };
  await assert.rejects(get(at), /5000 bytes are more than the 4999 allowed/);
  await assert.rejects(getToFile({ ...at, file: join(dir, 'copy') }), { code: 3 });
  assert.deepEqual(readdirSync(dir), ['file']);
});

test('an offset is not given up: a server that does not grant it is not written to', async (dir) => {
  await using server = await serveMachine({
    folder: dir,
    address: HOST,
    peer: HOST,
    writable: { whole: { maxBytes: 100, rule: 'replace' }, log: { maxBytes: 100, rule: 'append' } },
  });
  const at = { host: HOST, port: server.port };
  await assert.rejects(put({ ...at, name: 'whole', content: 'x', offset: 5 }), /offset=5 was not granted/);
  await put({ ...at, name: 'log', content: 'one', offset: 0 });
  await put({ ...at, name: 'log', content: 'two', offset: 3 });
  assert.equal(readFileSync(join(dir, 'log'), 'utf8'), 'onetwo');
  await using fake = startFake((packet, send) => {
    if (packet.kind === 'request') send(encodeAck(0));
  });
  await assert.rejects(put({ host: HOST, port: fake.port, name: 'log', content: 'x', offset: 5 }), /was not granted/);
});

test('only regular files are sent and replaced here', async (dir) => {
  symlinkSync('/dev/null', join(dir, 'link'));
  const at = { host: HOST, port: 9, name: 'x' };
  await assert.rejects(getToFile({ ...at, file: join(dir, 'link') }), /not a regular file/);
  await assert.rejects(getToFile({ ...at, file: dir }), /not a regular file/);
  await assert.rejects(put({ ...at, content: { file: '/dev/null' } }), /not a regular file/);
  await assert.rejects(put({ ...at, content: { file: join(dir, 'nothing') } }), /ENOENT/);
});

const hasIpv6 = Object.values(networkInterfaces()).some((list) => list?.some(({ address }) => address === '::1'));

nodeTest('IPv6 works', { timeout: 20_000, skip: hasIpv6 ? false : 'needs IPv6 on loopback' }, async () => {
  using dir = mkdtempDisposableSync(join(tmpdir(), 'tftp-client-'));
  writeFileSync(join(dir.path, 'file'), 'six');
  await using server = await serveFolder({ folder: dir.path, address: '::1', port: 0 });
  const got = await get({ host: '0:0:0:0:0:0:0:1', port: server.port, name: 'file' });
  assert.equal(Buffer.from(got).toString(), 'six');
});
