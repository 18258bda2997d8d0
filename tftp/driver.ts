/**
 * How datagrams leave and arrive: the sockets of a server behind one interface.
 *
 *   driver-dgram.ts   node:dgram; the reference, always there
 *   driver-gso.ts     the accelerator: system calls through node:ffi, a window in one call
 *
 * `drivers.ts` chooses. A driver knows neither protocol nor files: it sends and hears datagrams, and of DATA it knows just
 * the header, because a window is read from the source straight behind its headers.
 */
import type { Source } from './source.ts';

export type DriverName = 'dgram' | 'gso';

/** Makes sockets. */
export interface Driver {
  readonly name: DriverName;
  /**
   * A socket for requests.
   *
   * @throws a system error when the address or port cannot be had
   */
  listen(at: ListenAt, handler: ListenHandler): Promise<ListenSocket>;
  /**
   * A socket for one transfer: its port is fresh and random (the TID, RFC 1350 §4), and it hears this peer only.
   *
   * @throws a system error when there is no route, address or descriptor
   */
  connect(to: ConnectTo, handler: PeerHandler): PeerSocket;
}

/** Where to listen: an address and port, or a socket that is bound already (systemd's). */
export type ListenAt =
  | {
      readonly address: string;
      readonly port: number;
      /** `::` leaves IPv4 to another socket */
      readonly ipv6Only?: boolean | undefined;
    }
  /** the descriptor is taken over */
  | { readonly fd: number };

/** Takes what comes to a listening socket. */
export interface ListenHandler {
  /** `bytes` may be kept */
  onDatagram(bytes: Uint8Array, address: string, port: number): void;
  onError(error: Error): void;
}

export interface ListenSocket {
  readonly address: string;
  readonly port: number;
  close(): Promise<void>;
}

/** The two ends of a transfer. */
export interface ConnectTo {
  /** numeric IP address to send from; `undefined`: the one that the routes give */
  readonly local: string | undefined;
  readonly address: string;
  readonly port: number;
  /** what arrives are DATA packets of this many bytes at most, so many in a burst; absent: small ones */
  readonly burst?: { readonly packets: number; readonly packetBytes: number } | undefined;
}

/** Takes what comes to the socket of a transfer. */
export interface PeerHandler {
  /** `bytes` are valid during the call only: the next datagram may come into the same memory */
  onDatagram(bytes: Uint8Array): void;
  /** of the socket; what could not be sent counts as lost and is not told */
  onError(error: Error): void;
}

/** A way to the peer. Never throws for a datagram that cannot be sent: it is lost, as they are. */
export interface Wire {
  /** `bytes` must not change after the call */
  send(bytes: Uint8Array): void;
  /**
   * Sends the DATA packets of the blocks first … first + count - 1 (absolute, from 1), read from the source.
   *
   * @throws {RefusedError} when the source has not got them any more
   */
  sendData(source: Source, first: number, count: number, blksize: number): void;
}

export interface PeerSocket extends Wire {
  /** What was sent still leaves. */
  close(): void;
}
