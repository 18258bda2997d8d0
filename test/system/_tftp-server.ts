/** Servers of ours for tests: every driver, with the events they tell. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { DriverName } from '../../tftp/driver.ts';
import { type Writable, serveMachine } from '../../tftp/instance.ts';
import type { ServeOptions, TftpServer } from '../../tftp/serve-options.ts';
import { serveFolder } from '../../tftp/server.ts';
import type { TransferEvent } from '../../tftp/transfer-event.ts';
import { Peer } from './_tftp-misbehave.ts';

/** An address of its own: nobody else's server is in the way. */
export const HOST = '127.0.0.9';

/** A folder, and a server of ours that shows it. */
export class Served implements AsyncDisposable {
  readonly folder: string;
  readonly events: readonly TransferEvent[];
  readonly written: readonly string[];
  readonly errors: readonly Error[];
  readonly server: TftpServer;
  readonly #top: string;

  private constructor(top: string, server: TftpServer, seen: Pick<Served, 'events' | 'written' | 'errors'>) {
    this.#top = top;
    this.folder = join(top, 'root');
    this.server = server;
    ({ events: this.events, written: this.written, errors: this.errors } = seen);
  }

  /**
   * @param files - put into the folder first
   * @param writable - with it, the server of a machine; without, a read-only one
   */
  static async start(
    driver: DriverName,
    files: Readonly<Record<string, string | Uint8Array>> = {},
    writable?: Readonly<Record<string, Writable>>,
    options: Partial<ServeOptions> & { readonly peer?: string } = {},
  ): Promise<Served> {
    const top = mkdtempSync(join(tmpdir(), 'tftp-served-'));
    const folder = join(top, 'root');
    mkdirSync(folder);
    for (const [name, content] of Object.entries(files)) writeFileSync(join(folder, name), content);
    const [events, written, errors]: [TransferEvent[], string[], Error[]] = [[], [], []];
    const common = {
      folder,
      address: HOST,
      port: 0,
      driver,
      onTransfer: (event: TransferEvent) => void events.push(event),
      onError: (error: Error) => void errors.push(error),
      ...options,
    };
    const onWritten = (name: string, bytes: number): unknown => written.push(`${name} ${bytes}`);
    const server = await (writable === undefined
      ? serveFolder(common)
      : serveMachine({ ...common, address: HOST, peer: options.peer ?? HOST, writable, onWritten }));
    return new Served(top, server, { events, written, errors });
  }

  path(name: string): string {
    return join(this.folder, name);
  }

  /** A client of it, from the same address. */
  peer(from: string = HOST, fromPort = 0): Peer {
    return new Peer({ host: this.server.address, port: this.server.port, from, fromPort });
  }

  /** The event number `count`, once it has been told. */
  async event(count = 1, withinMs = 3000): Promise<TransferEvent> {
    const endMs = performance.now() + withinMs;
    for (;;) {
      const event = this.events[count - 1];
      if (event !== undefined) return event;
      if (performance.now() > endMs) throw new Error(`no event ${count} in ${withinMs} ms`);
      await sleep(5);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.server.close();
    rmSync(this.#top, { recursive: true, force: true });
  }
}

/** Bytes that differ from block to block, so that a block in a wrong place shows. */
export function pattern(size: number): Buffer {
  const bytes = Buffer.alloc(size);
  for (let at = 0; at + 4 <= size; at += 4) bytes.writeUInt32LE((Math.imul(at, 2_654_435_761) ^ at) >>> 0, at);
  for (let at = size - (size % 4); at < size; at += 1) bytes[at] = at & 0xff;
  return bytes;
}

/** Replacing rule with room for all that tests write. */
export const REPLACE: Writable = { maxBytes: 64 * 1024 * 1024, rule: 'replace' };
