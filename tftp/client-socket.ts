/**
 * The client's socket. A server answers from a port of its choice, so the socket cannot be connected, and a socket that is
 * not connected is not told that nobody listens (ICMP port unreachable). So the request leaves from a second socket at the
 * same port, connected to the server's request port: Linux gives it just the ICMP errors, and the answers of servers that
 * have one port for everything. It is closed after the first answer.
 *
 *                     ┌─ connected to SERVER:69 ──▶ request        ◀── ICMP unreachable
 *   our port, shared ─┤
 *                     └─ not connected          ◀─▶ SERVER:TID, strangers
 */
import { type RemoteInfo, type Socket, createSocket } from 'node:dgram';

import { systemCode } from './error.ts';

/** A window of large blocks arrives in one burst; the kernel gives what its limit allows. */
const SOCKET_BUFFER_BYTES = 1024 * 1024;
/** Another program may take a port between two calls. */
const BIND_TRIES = 5;

/** Where a server is. */
export interface ServerAddress {
  readonly address: string;
  readonly family: number;
  readonly port: number;
}

/** A port of ours that asks a server, and then speaks with its TID. */
export class ClientSocket implements Disposable {
  readonly #server: ServerAddress;
  readonly #main: Socket;
  #request: Socket | undefined;
  #closed = false;

  /**
   * @param on.error - nothing can be sent, or nobody listens there
   * @throws {Error} when no socket can be had
   */
  constructor(
    server: ServerAddress,
    on: { readonly message: (bytes: Uint8Array, from: RemoteInfo) => void; readonly error: (error: Error) => void },
  ) {
    this.#server = server;
    [this.#main, this.#request] = openPair(server);
    for (const socket of [this.#main, this.#request]) {
      socket?.on('message', on.message);
      socket?.on('error', (error) => {
        if (!this.#closed) on.error(error);
      });
    }
  }

  /** Sends to the request port, or to the TID once it is known. */
  send(bytes: Uint8Array, tid: number | undefined): void {
    if (tid === undefined && this.#request !== undefined) this.#request.send(bytes);
    else this.#main.send(bytes, tid ?? this.#server.port, this.#server.address);
  }

  /** Answers a stranger. */
  sendTo(bytes: Uint8Array, to: RemoteInfo): void {
    this.#main.send(bytes, to.port, to.address);
  }

  /** The server has answered: the other socket is done. */
  settle(): void {
    this.#request?.close();
    this.#request = undefined;
  }

  /** Closes when the last packet has left, in the next turn. */
  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    setImmediate(() => {
      this.settle();
      this.#main.close();
    });
  }
}

/** Two sockets at one port that is nobody else's. Where ports cannot be shared: one, which hears of no closed port. */
function openPair(server: ServerAddress): [main: Socket, request: Socket | undefined] {
  const type = server.family === 6 ? 'udp6' : 'udp4';
  const any = server.family === 6 ? '::' : '0.0.0.0';
  const open = (options: { readonly port: number; readonly reusePort: boolean }): Socket => {
    const socket = createSocket({ type, reusePort: options.reusePort });
    try {
      socket.bindSync({ address: any, port: options.port });
      growBuffers(socket);
      return socket;
    } catch (error) {
      socket.close();
      throw error;
    }
  };
  for (let tries = 0; tries < BIND_TRIES; tries += 1) {
    // Two sockets that share ports might both be given one when they ask for any; this one shares with nobody.
    const alone = open({ port: 0, reusePort: false });
    const { port } = alone.address();
    alone.close();
    let main: Socket | undefined;
    let request: Socket | undefined;
    try {
      main = open({ port, reusePort: true });
      request = open({ port, reusePort: true });
      request.connectSync(server.port, server.address);
      return [main, request];
    } catch (error) {
      main?.close();
      request?.close();
      const code = systemCode(error);
      if (code === 'ENETUNREACH' || code === 'EHOSTUNREACH' || code === 'EACCES') throw error;
      if (code !== 'EADDRINUSE') break;
    }
  }
  return [open({ port: 0, reusePort: false }), undefined];
}

function growBuffers(socket: Socket): void {
  try {
    socket.setRecvBufferSize(SOCKET_BUFFER_BYTES);
    socket.setSendBufferSize(SOCKET_BUFFER_BYTES);
  } catch {
    // The default will do: what does not fit is lost, and comes again.
  }
}

/** An address without the interface it is seen from: `fe80::1%eth0` is `fe80::1`. */
export function withoutZone(address: string): string {
  return address.split('%')[0] ?? address;
}
