/** Both drivers, and the accelerator when system calls fail. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { join } from 'node:path';
import { test as nodeTest } from 'node:test';
import { promisify } from 'node:util';

import { dgramDriver } from './driver-dgram.ts';
import { createGsoDriver } from './driver-gso.ts';
import { type SystemCalls, ERRNO, openSystemCalls } from './driver-syscalls.ts';
import type { Driver, PeerHandler, PeerSocket } from './driver.ts';
import { MemorySource } from './source.ts';

const HOST = '127.0.0.1';
const test = (name: string, run: () => Promise<void>): void => void nodeTest(name, { timeout: 20_000 }, run);

const calls = findSystemCalls();

function findSystemCalls(): SystemCalls {
  const found = openSystemCalls();
  assert.ok(found, 'no system calls: these tests need node:ffi');
  return found;
}

/** A driver whose system calls are partly others. */
function gsoWith(changed: Partial<SystemCalls>): Driver {
  const driver = createGsoDriver({ ...calls, ...changed });
  assert.ok(driver, 'the kernel does not know UDP_SEGMENT');
  return driver;
}

/** The far end: collects datagrams until there are enough. */
class Far implements AsyncDisposable {
  readonly #socket = createSocket('udp4');
  readonly received: Buffer[] = [];
  /** of whoever sent last */
  peerPort = 0;

  constructor() {
    this.#socket.bindSync({ address: HOST });
    this.#socket.setRecvBufferSize(1024 * 1024);
    this.#socket.on('message', (bytes, from) => {
      this.received.push(bytes);
      this.peerPort = from.port;
    });
  }

  get port(): number {
    return this.#socket.address().port;
  }

  async wait(count: number): Promise<Buffer[]> {
    while (this.received.length < count) {
      await once(this.#socket, 'message', { signal: AbortSignal.timeout(5000) });
    }
    return this.received;
  }

  send(bytes: Uint8Array, port: number): void {
    this.#socket.send(bytes, port, HOST);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await new Promise<void>((resolve) => void this.#socket.close(() => resolve()));
  }
}

const deaf: PeerHandler = { onDatagram: () => {}, onError: () => {} };

function connect(driver: Driver, far: Far, handler: PeerHandler = deaf): PeerSocket & Disposable {
  const socket = driver.connect({ local: HOST, address: HOST, port: far.port }, handler);
  return Object.assign(socket, { [Symbol.dispose]: () => socket.close() });
}

const pattern = Buffer.from(Array.from({ length: 200_000 }, (_, index) => index % 251));

/** Sends a window and checks that it has arrived whole and in order. */
async function checkWindow(driver: Driver, window: { first: number; count: number; blksize: number }): Promise<void> {
  const { first, count, blksize } = window;
  await using far = new Far();
  using socket = connect(driver, far);
  socket.sendData(new MemorySource(pattern), first, count, blksize);
  const packets = await far.wait(count);
  for (const [index, packet] of packets.entries()) {
    const block = first + index;
    assert.deepEqual([packet.readUInt16BE(0), packet.readUInt16BE(2)], [3, block & 0xffff], `packet ${index}`);
    const start = (block - 1) * blksize;
    assert.ok(packet.subarray(4).equals(pattern.subarray(start, start + blksize)), `block ${block}`);
  }
  assert.equal(packets.length, count);
}

const WINDOWS = [
  { first: 1, count: 64, blksize: 1468 },
  { first: 130, count: 7, blksize: 1468 },
  { first: 391, count: 1, blksize: 512 },
  { first: 1, count: 200, blksize: 8 },
  { first: 1, count: 3, blksize: 65_464 },
  { first: 25, count: 1, blksize: 8000 },
] as const;

const gso = gsoWith({});

for (const driver of [dgramDriver, gso]) {
  for (const window of WINDOWS) {
    test(`${driver.name}: ${window.count} blocks of ${window.blksize} arrive as they are`, () =>
      checkWindow(driver, window));
  }

  test(`${driver.name}: the last block is short, and after a multiple of blksize empty`, async () => {
    await using far = new Far();
    using socket = connect(driver, far);
    socket.sendData(new MemorySource(Buffer.alloc(1030, 'x')), 1, 3, 512);
    socket.sendData(new MemorySource(Buffer.alloc(1024, 'x')), 3, 1, 512);
    const lengths = (await far.wait(4)).map((packet) => packet.length);
    assert.deepEqual(lengths, [516, 516, 10, 4]);
  });

  test(`${driver.name}: a burst is heard whole and in order, a foreign port not at all`, async () => {
    await using far = new Far();
    await using stranger = new Far();
    const heard: number[] = [];
    const { promise, resolve } = Promise.withResolvers<void>();
    const handler: PeerHandler = {
      onDatagram(bytes) {
        heard.push(bytes[0] ?? -1);
        if (heard.length === 100) resolve();
      },
      onError: () => {},
    };
    const burst = { packets: 16, packetBytes: 1472 };
    const socket = driver.connect({ local: HOST, address: HOST, port: far.port, burst }, handler);
    try {
      socket.send(Buffer.from('hello'));
      await far.wait(1);
      const port = far.peerPort;
      stranger.send(Buffer.from([200]), port);
      for (let index = 0; index < 100; index += 1) far.send(Buffer.from([index]), port);
      await promise;
      assert.deepEqual(
        heard,
        Array.from({ length: 100 }, (_, index) => index),
      );
    } finally {
      socket.close();
    }
  });

  test(`${driver.name}: a closed port is told, an address that is not here throws`, async () => {
    const { promise, resolve } = Promise.withResolvers<Error>();
    const far = new Far();
    const { port } = far;
    await far[Symbol.asyncDispose]();
    const socket = driver.connect({ local: HOST, address: HOST, port }, { onDatagram: () => {}, onError: resolve });
    socket.send(Buffer.from('x'));
    const error = await promise;
    socket.close();
    assert.match(error.message, /ECONNREFUSED/);
    assert.throws(() => driver.connect({ local: '192.0.2.77', address: HOST, port }, deaf), /EADDRNOTAVAIL/);
  });

  test(`${driver.name}: IPv6`, async () => {
    const { promise, resolve } = Promise.withResolvers<Buffer>();
    const far = createSocket('udp6', (bytes) => resolve(bytes));
    far.bindSync({ address: '::1' });
    const socket = driver.connect({ local: '::1', address: '::1', port: far.address().port }, deaf);
    socket.send(Buffer.from('six'));
    assert.equal((await promise).toString(), 'six');
    socket.close();
    far.close();
  });
}

for (const [name, errno] of Object.entries(ERRNO)) {
  test(`gso: a window whose sending fails with ${name} goes packet by packet, and nothing is lost`, async () => {
    let failures = 0;
    // Windows cannot be cut; single packets pass.
    const driver = gsoWith({
      sendmmsg() {
        failures += 1;
        return -errno;
      },
    });
    await checkWindow(driver, { first: 1, count: 64, blksize: 1468 });
    assert.ok(failures > 0, 'it was not tried');
  });

  test(`gso: ${name} in the middle of a window loses and doubles nothing`, async () => {
    let isFirst = true;
    const driver = gsoWith({
      sendmmsg(fd, messages, _count, flags) {
        if (!isFirst) return -errno;
        isFirst = false;
        return calls.sendmmsg(fd, messages, 1, flags);
      },
    });
    await checkWindow(driver, { first: 1, count: 64, blksize: 1468 });
  });
}

test('gso: after EINVAL a transfer tries no second window in one piece; another transfer does', async () => {
  const counts: number[] = [];
  const driver = gsoWith({
    sendmmsg(fd, messages, count, flags) {
      counts.push(count);
      return counts.length === 1 ? -ERRNO.EINVAL : calls.sendmmsg(fd, messages, count, flags);
    },
  });
  await using far = new Far();
  const source = new MemorySource(pattern);
  using socket = connect(driver, far);
  socket.sendData(source, 1, 16, 1468);
  await far.wait(16);
  socket.sendData(source, 17, 16, 1468);
  using other = connect(driver, far);
  other.sendData(source, 33, 16, 1468);
  await far.wait(48);
  assert.deepEqual(counts, [1, 16, 1]);
});

test('gso: where its sockets cannot be made, node:dgram makes them', async () => {
  let sockets = 0;
  // The first socket is the one that looks for UDP_SEGMENT.
  const socket: SystemCalls['socket'] = (...args) => (sockets++ === 0 ? calls.socket(...args) : -24);
  await checkWindow(gsoWith({ socket }), { first: 1, count: 20, blksize: 1468 });
  await checkWindow(gsoWith({ bind: () => -ERRNO.EINVAL }), { first: 1, count: 20, blksize: 1468 });
  assert.equal(sockets, 2);
});

test('gso: what has come to other sockets is heard in the turn of the first, and each hears its own', async () => {
  const waits: number[] = [];
  const driver = gsoWith({
    epollWait(...args) {
      const count = calls.epollWait(...args);
      waits.push(count);
      return count;
    },
  });
  await using far = new Far();
  const heard = [0, 0, 0].map((): number[] => []);
  const { promise, resolve } = Promise.withResolvers<void>();
  const sockets: PeerSocket[] = heard.map((own) =>
    driver.connect(
      { local: HOST, address: HOST, port: far.port, burst: { packets: 16, packetBytes: 516 } },
      {
        onDatagram(bytes) {
          own.push(bytes[0] ?? -1);
          if (heard.flat().length === 60) resolve();
        },
        onError: () => {},
      },
    ),
  );
  try {
    const ports: number[] = [];
    for (const [index, socket] of sockets.entries()) {
      socket.send(Buffer.from('hello'));
      await far.wait(index + 1);
      ports.push(far.peerPort);
    }
    for (let index = 0; index < 60; index += 1) far.send(Buffer.from([index]), ports[index % 3] ?? 0);
    await promise;
    for (const [index, own] of heard.entries()) {
      assert.deepEqual(
        own,
        Array.from({ length: 20 }, (_, at) => index + 3 * at),
      );
    }
    assert.ok(waits.some((count) => count > 0));
  } finally {
    for (const socket of sockets) socket.close();
  }
});

test('gso: a closed port that the turn finds is told, too', async () => {
  await using far = new Far();
  const { promise, resolve } = Promise.withResolvers<Error>();
  const driver = gsoWith({ recvmmsg: () => -ERRNO.ECONNREFUSED });
  using socket = connect(driver, far, { onDatagram: () => {}, onError: resolve });
  socket.send(Buffer.from('hello'));
  await far.wait(1);
  for (let index = 0; index < 8; index += 1) far.send(Buffer.from('x'), far.peerPort);
  assert.match((await promise).message, /ECONNREFUSED/);
});

test('gso: a socket that is closed while others are heard is not heard any more', async () => {
  await using far = new Far();
  const { promise, resolve } = Promise.withResolvers<void>();
  let heard = 0;
  const sockets: PeerSocket[] = [];
  const handler: PeerHandler = {
    onDatagram() {
      heard += 1;
      for (const socket of sockets.splice(0)) socket.close();
      setTimeout(resolve, 20);
    },
    onError: () => {},
  };
  const ports: number[] = [];
  for (let index = 0; index < 8; index += 1) {
    const socket = gso.connect({ local: HOST, address: HOST, port: far.port }, handler);
    sockets.push(socket);
    socket.send(Buffer.from('hello'));
    await far.wait(index + 1);
    ports.push(far.peerPort);
  }
  for (const port of ports) far.send(Buffer.from('x'), port);
  await promise;
  assert.equal(heard, 1);
});

test('gso: a receive that fails is no more than nothing received', async () => {
  const driver = gsoWith({ recvmmsg: () => -ERRNO.EIO });
  await using far = new Far();
  const { promise, resolve } = Promise.withResolvers<void>();
  let heard = 0;
  const handler: PeerHandler = { onDatagram: () => void ((heard += 1) === 20 && resolve()), onError: () => {} };
  const burst = { packets: 16, packetBytes: 516 };
  const socket = driver.connect({ local: HOST, address: HOST, port: far.port, burst }, handler);
  socket.send(Buffer.from('hello'));
  await far.wait(1);
  for (let index = 0; index < 20; index += 1) far.send(Buffer.from('x'), far.peerPort);
  await promise;
  socket.close();
});

test('gso: a kernel without UDP_SEGMENT has no such driver', async () => {
  assert.equal(createGsoDriver({ ...calls, setsockopt: () => -92 }), undefined);
  assert.equal(createGsoDriver({ ...calls, socket: () => -1 }), undefined);
});

const SERVE = `
  import { serveFolder } from ${JSON.stringify(join(import.meta.dirname, 'server.ts'))};
  import { get } from ${JSON.stringify(join(import.meta.dirname, 'client.ts'))};
  const server = await serveFolder({ folder: ${JSON.stringify(import.meta.dirname)}, address: '127.0.0.1', port: 0 });
  const bytes = await get({ host: '127.0.0.1', port: server.port, name: 'packet.ts' });
  console.log(server.driver, bytes.length > 5000);
  await server.close();
`;

for (const [flag, driver] of [
  ['--no-experimental-ffi', 'dgram'],
  ['--permission --allow-fs-read=* --allow-net --disable-warning=ExperimentalWarning', 'dgram'],
  ['--no-warnings', 'gso'],
] as const) {
  test(`node ${flag}: the driver is ${driver}, without a word`, async () => {
    const flags = [...flag.split(' '), '--input-type=module-typescript', '--eval', SERVE];
    const { stdout, stderr } = await promisify(execFile)(process.execPath, flags, { timeout: 15_000 });
    assert.equal(stdout.trim(), `${driver} true`);
    assert.equal(stderr, '');
  });
}
