/** What a server is told, and what it is for who started it. */
import type { DriverName } from './driver.ts';
import type { TransferEvent } from './transfer-event.ts';

/** Where and how a server listens. */
export interface ServeOptions {
  /** numeric IP address; default: all of IPv4 */
  readonly address?: string | undefined;
  /** several of them, IPv4 and IPv6; instead of `address` */
  readonly addresses?: readonly string[] | undefined;
  /** default 69; 0: any that is free, the same for all addresses */
  readonly port?: number | undefined;
  /** a bound UDP socket, from systemd; instead of addresses and port */
  readonly fd?: number | undefined;
  /** several of them; instead of `fd` */
  readonly fds?: readonly number[] | undefined;
  /** how datagrams leave and arrive; default `auto`: `gso` where it works, else `dgram` */
  readonly driver?: DriverName | 'auto' | undefined;
  /** the only client address that is answered; others are ignored */
  readonly peer?: string | undefined;
  /** largest blksize granted, 8 to 65464 */
  readonly blksizeMax?: number | undefined;
  /** largest windowsize granted, 1 to 65535; default 64. Both multiplied are 128 KiB at most */
  readonly windowsizeMax?: number | undefined;
  /** transfers at once; beyond that requests are ignored, and clients ask again */
  readonly transfersMax?: number | undefined;
  /** of one address */
  readonly transfersPerPeerMax?: number | undefined;
  readonly onTransfer?: ((event: TransferEvent) => void) | undefined;
  /** a transfer has begun; `onTransfer` tells its end */
  readonly onBegin?: (() => void) | undefined;
  /** errors of the listening socket and of the machine, not of a client; the server goes on */
  readonly onError?: ((error: Error) => void) | undefined;
  /** closes the server */
  readonly signal?: AbortSignal | undefined;
}

/** A server that listens. */
export interface TftpServer extends AsyncDisposable {
  /** of the first socket */
  readonly address: string;
  readonly port: number;
  /** of all sockets */
  readonly sockets: readonly { readonly address: string; readonly port: number }[];
  readonly driver: DriverName;
  /** transfers that run now, dallying ones among them */
  readonly transfers: number;
  /** Ends all transfers with ERROR 0 and closes the sockets. */
  close(): Promise<void>;
}
