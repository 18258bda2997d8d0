/** How much the server takes on at once, and from whom. */
import assert from 'node:assert/strict';
import { truncateSync } from 'node:fs';
import { join } from 'node:path';
import { serveMachine } from './instance.ts';
import { encodeAck, encodeData } from './packet.ts';
import { serveFolder } from './server.ts';
import type { TransferEvent } from './transfer-event.ts';
import { Probe, instanceOf, makeFolder, onLoopback, until, onEachDriver as test } from './_probe.ts';

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

test('an upload that only waits to repeat its last ACK holds no place of its peer', async (driver) => {
  using folder = makeFolder();
  await using server = await serveMachine({
    ...instanceOf(driver, folder),
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
  // A word now and then, not for each.
  assert.ok(events.every((event) => !/ 0 were ignored/.test(event.error ?? '')));
  await readAs('127.0.0.2');
});
