/**
 * A server on each address of the machine, with a socket of its own: answers then come from the address that was asked, and
 * broadcasts are not heard (RFC 1123 §4.2.3.5). Addresses come and go; they are looked at every few seconds.
 */
import { networkInterfaces } from 'node:os';

import { systemCode } from '../tftp/error.ts';
import type { TftpServer } from '../tftp/serve-options.ts';

const LOOK_EVERY_MS = 5000;
/** An IPv6 address that is being checked for a duplicate cannot be bound yet (RFC 4862 §5.4); the next look finds it. */
const NOT_YET = 'EADDRNOTAVAIL';

/** How to listen on an address. */
export type Listen = (address: string, port: number) => Promise<TftpServer>;

/** What becomes of addresses, for a log. */
export interface AddressEvents {
  /** served from now on */
  readonly onOpen: (server: TftpServer) => void;
  /** gone from the machine */
  readonly onGone: (server: TftpServer) => void;
  /** cannot be served; told once, until it is gone */
  readonly onFailed: (address: string, error: Error) => void;
}

/** The machine's addresses; link-local ones with their interface. Empty where interfaces cannot be listed. */
export function findAddresses(): readonly string[] {
  try {
    return Object.entries(networkInterfaces()).flatMap(([name, list = []]) =>
      list.map(({ address, scopeid }) => (scopeid === undefined || scopeid === 0 ? address : `${address}%${name}`)),
    );
  } catch {
    return [];
  }
}

/** Servers on all addresses of the machine. */
export class AddressServers implements AsyncDisposable {
  readonly #listen: Listen;
  readonly #find: () => readonly string[];
  readonly #events: AddressEvents;
  readonly #servers = new Map<string, TftpServer>();
  readonly #failed = new Set<string>();
  #port: number;
  #timer: NodeJS.Timeout | undefined;
  #looking: Promise<void> = Promise.resolve();

  private constructor(options: {
    readonly listen: Listen;
    readonly port: number;
    readonly find: () => readonly string[];
    readonly events: AddressEvents;
  }) {
    this.#listen = options.listen;
    this.#find = options.find;
    this.#events = options.events;
    this.#port = options.port;
  }

  /**
   * Listens on all there are.
   *
   * @param options.port - 0: a free one, the same for all
   * @param options.find - default: the addresses of the interfaces
   * @throws {ListenError} when not a single one can be served
   */
  static async open(options: {
    readonly listen: Listen;
    readonly port: number;
    readonly events: AddressEvents;
    readonly find?: () => readonly string[];
    readonly everyMs?: number;
  }): Promise<AddressServers> {
    const servers = new AddressServers({ find: findAddresses, ...options });
    const failures = await servers.#look();
    // Where nothing works it is for one reason, which is told once.
    if (servers.#servers.size === 0) throw failures.values().next().value ?? new Error('This machine has no address');
    servers.#tell(failures);
    servers.#timer = setInterval(() => {
      servers.#looking = servers.#lookAfter(servers.#looking);
    }, options.everyMs ?? LOOK_EVERY_MS).unref();
    return servers;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    await this.#looking;
    await Promise.all([...this.#servers.values()].map((server) => server.close()));
  }

  async #lookAfter(earlier: Promise<void>): Promise<void> {
    await earlier;
    this.#tell(await this.#look());
  }

  #tell(failures: ReadonlyMap<string, Error>): void {
    for (const [address, error] of failures) this.#events.onFailed(address, error);
  }

  /** @returns what cannot be served, by address */
  async #look(): Promise<ReadonlyMap<string, Error>> {
    const found = new Set(this.#find());
    const failures = new Map<string, Error>();
    for (const [address, server] of this.#servers) {
      if (found.has(address)) continue;
      this.#servers.delete(address);
      await server.close();
      this.#events.onGone(server);
    }
    for (const address of this.#failed) if (!found.has(address)) this.#failed.delete(address);
    for (const address of found) {
      if (this.#servers.has(address) || this.#failed.has(address)) continue;
      try {
        const server = await this.#listen(address, this.#port);
        this.#port = server.port;
        this.#servers.set(address, server);
        this.#events.onOpen(server);
      } catch (caught) {
        const error = caught instanceof Error ? caught : new Error(String(caught));
        if (systemCode(error.cause) === NOT_YET) continue;
        failures.set(address, error);
        this.#failed.add(address);
      }
    }
    return failures;
  }
}
