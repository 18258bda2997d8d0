/** Where the server listens, and how it ends. */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { get } from './client.ts';
import { serveMachine } from './instance.ts';
import { serveFolder } from './server.ts';
import { HOST, Probe, makeFolder, onLoopback, until, onEachDriver as test } from './_probe.ts';

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
  using folder = makeFolder({ file: 'x'.repeat(600) });
  const controller = new AbortController();
  await using server = await serveFolder({ driver, ...onLoopback, folder: folder.path, signal: controller.signal });
  await using probe = Probe.open();
  probe.read(server.port, 'file');
  await probe.expectData(1);
  controller.abort(new Error('enough'));
  assert.equal(await probe.expectError(0), 'the server stops');
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
