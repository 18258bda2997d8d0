/** The reference driver: `node:dgram`, and nothing else. A send costs 3 µs, most of them the kernel's. */
import { type Socket, createSocket } from 'node:dgram';
import { isIPv6 } from 'node:net';

import { DataWindow } from './data-window.ts';
import type { ConnectTo, Driver, ListenAt, ListenHandler, ListenSocket, PeerHandler, PeerSocket } from './driver.ts';
import { Vigil } from './driver-vigil.ts';
import type { Source } from './source.ts';

/** Room for requests that wait. */
const LISTEN_BUFFER_BYTES = 1024 * 1024;

export const dgramDriver: Driver = {
  name: 'dgram',
  listen: listenDgram,
  connect(to, handler) {
    return new DgramPeerSocket(connectDgram(to), handler);
  },
};

/** A listening socket of `node:dgram`, which serves all drivers: requests are few beside the packets of transfers. */
export async function listenDgram(at: ListenAt, handler: ListenHandler): Promise<ListenSocket> {
  const socket = 'fd' in at ? await adopt(at.fd) : bind(at);
  try {
    // Many hosts boot at once after a power cut; the kernel gives what its limit allows.
    socket.setRecvBufferSize(LISTEN_BUFFER_BYTES);
  } catch {
    // The default will do: clients ask again.
  }
  socket.on('error', (error) => handler.onError(error));
  socket.on('message', (bytes, from) => handler.onDatagram(bytes, from.address, from.port));
  const { address, port } = socket.address();
  return {
    address,
    port,
    close: () => new Promise((resolve) => void socket.close(() => resolve())),
  };
}

function bind(at: Exclude<ListenAt, { readonly fd: number }>): Socket {
  const { address, port, ipv6Only = false } = at;
  const socket = createSocket(isIPv6(address) ? { type: 'udp6', ipv6Only } : { type: 'udp4' });
  try {
    socket.bindSync({ address, port });
    return socket;
  } catch (error) {
    socket.close();
    throw error;
  }
}

function adopt(fd: number): Promise<Socket> {
  // The type says how `send` resolves names, and this socket sends nothing.
  const socket = createSocket('udp4');
  return new Promise((resolve, reject) => {
    socket.once('error', reject);
    try {
      socket.bind({ fd }, () => {
        socket.off('error', reject);
        resolve(socket);
      });
    } catch (error) {
      socket.close();
      reject(error instanceof Error ? error : new Error(String(error)));
    }
  });
}

/** A socket for one peer. */
export function connectDgram(to: ConnectTo): Socket {
  const socket = createSocket(isIPv6(to.address) ? 'udp6' : 'udp4');
  try {
    socket.bindSync(to.local === undefined ? {} : { address: to.local });
    socket.connectSync(to.port, to.address);
    return socket;
  } catch (error) {
    socket.close();
    throw error;
  }
}

/** Shared by all transfers of this driver. */
const shared = new DataWindow();
const vigil = new Vigil();
let isWaiting = false;

/** Keeps the loop from going to sleep: with something immediate to do it looks at the sockets again at once. */
function stayAwake(): void {
  if (!vigil.begin() || isWaiting) return;
  isWaiting = true;
  const look = (): void => {
    isWaiting = vigil.keep(performance.now());
    if (isWaiting) setImmediate(look);
  };
  setImmediate(look);
}

class DgramPeerSocket implements PeerSocket {
  readonly #socket: Socket;

  constructor(socket: Socket, handler: PeerHandler) {
    this.#socket = socket;
    socket.on('message', (bytes) => {
      vigil.end();
      handler.onDatagram(bytes);
    });
    socket.on('error', (error) => handler.onError(error));
  }

  send(bytes: Uint8Array): void {
    this.#socket.send(bytes);
    stayAwake();
  }

  sendData(source: Source, first: number, count: number, blksize: number): void {
    if (count === 1) stayAwake();
    sendInParts(shared, source, { first, count, blksize }, () => {
      for (const packet of shared.packets) this.#socket.send(packet);
      // What the kernel did not take at once waits in the queue, and must not change.
      if (this.#socket.getSendQueueCount() > 0) shared.renew();
    });
  }

  close(): void {
    // Datagrams that wait in the queue of a closed socket would be dropped; they leave within one turn of the loop.
    if (this.#socket.getSendQueueCount() === 0) this.#socket.close();
    else setImmediate(() => this.#socket.close());
  }
}

/** Reads the blocks of a window, in parts where it is long, and sends each part. */
export function sendInParts(
  window: DataWindow,
  source: Source,
  blocks: { readonly first: number; readonly count: number; readonly blksize: number },
  send: (bytes: number) => void,
): void {
  const { first, count, blksize } = blocks;
  const most = DataWindow.blocksMax(blksize);
  for (let done = 0; done < count; done += most) {
    send(window.fill(source, first + done, Math.min(most, count - done), blksize));
  }
}
