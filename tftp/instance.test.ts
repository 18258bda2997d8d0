/** Uploads: a machine's own server, its rules and quotas. */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, readdirSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { serveMachine } from './instance.ts';
import { encodeData, encodeError } from './packet.ts';
import { HOST, Probe, instanceOf, makeFolder, until, onEachDriver as test } from './_probe.ts';

test('an upload is in place before its last ACK, which is repeated for a repeated last DATA', async (driver) => {
  using folder = makeFolder({ result: 'old' });
  const written: [string, number][] = [];
  await using server = await serveMachine({
    ...instanceOf(driver, folder),
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
  // A client asks again after a while.
  await sleep(200);
  probe.send(port, encodeData(2, Buffer.from('end')));
  await probe.expectAck(2);
  assert.deepEqual(readdirSync(folder.path), ['result']);
});

test('an upload that ends early leaves everything as it was', async (driver) => {
  using folder = makeFolder({ result: 'old' });
  await using server = await serveMachine({
    ...instanceOf(driver, folder),
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
    ...instanceOf(driver, folder),
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
    ...instanceOf(driver, folder),
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
    ...instanceOf(driver, folder),
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
    ...instanceOf(driver, folder),
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
  // One byte is left: two are refused before they come, if they are announced.
  probe.write(server.port, 'log', [
    ['offset', '11'],
    ['tsize', '2'],
  ]);
  await probe.expectError(3);
  probe.write(server.port, 'log', [['offset', '11']]);
  const { port } = await probe.next();
  probe.send(port, encodeData(1, Buffer.from('too long')));
  await probe.expectError(3);
  assert.equal(readFileSync(log, 'utf8'), 'hello world');
});

test('a newer upload of a name takes the place of an older one that stands still', async (driver) => {
  using folder = makeFolder();
  await using server = await serveMachine({
    ...instanceOf(driver, folder),
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
