/** A client that sends what it is told and keeps what comes, for tests of the server on loopback. */
import assert from 'node:assert/strict';
import { type RemoteInfo, type Socket, createSocket } from 'node:dgram';
import { mkdtempDisposableSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { test } from 'node:test';
import type { DriverName } from './driver.ts';
import { DRIVERS } from './drivers.ts';
import type { MachineOptions } from './instance.ts';
import { type OptionPair, type Packet, decodePacket, encodeRequest } from './packet.ts';

export const HOST = '127.0.0.1';

/** With each driver that works here. */
export const onEachDriver = (name: string, run: (driver: DriverName) => Promise<void>): void => {
  for (const driver of DRIVERS) void test(`${driver}: ${name}`, { timeout: 20_000 }, () => run(driver));
};

/** What came, and from which port. */
export interface Received {
  readonly packet: Packet;
  readonly port: number;
}

/** A socket that sends what it is told and keeps what comes. */
export class Probe implements AsyncDisposable {
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

export function makeFolder(files: Readonly<Record<string, string>> = {}): Disposable & { readonly path: string } {
  const dir = mkdtempDisposableSync(join(tmpdir(), 'tftp-server-'));
  for (const [name, content] of Object.entries(files)) writeFileSync(join(dir.path, name), content);
  return { path: dir.path, [Symbol.dispose]: () => dir.remove() };
}

/** Of a machine's own server: we are its peer. */
export const instanceOf = (
  driver: DriverName,
  folder: { readonly path: string },
): Pick<MachineOptions, 'driver' | 'folder' | 'address' | 'peer'> => ({
  driver,
  folder: folder.path,
  address: HOST,
  peer: HOST,
});

export const onLoopback: { readonly address: string; readonly port: 0 } = { address: HOST, port: 0 };
export const until = async (isTrue: () => boolean): Promise<void> => {
  for (let tries = 0; !isTrue(); tries += 1) {
    assert.ok(tries < 1000, 'it does not become true');
    await sleep(10);
  }
};
