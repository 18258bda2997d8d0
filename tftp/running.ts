/** A transfer of a server, with the peer that asked for it. */
import type { PeerHandler } from './driver.ts';
import { systemCode } from './error.ts';
import type { TransferState } from './exchange.ts';
import { ERROR_CODE, encodeError } from './packet.ts';
import type { Transfer } from './transfer.ts';

/** A peer that is gone may have said why. */
const LAST_WORDS_MS = 10;
/** The same request from the same port after so much silence is a new one. */
const RESTART_AFTER_MS = 1000;

/** A peer that asks, and the address that it asked. */
export interface Asker {
  readonly address: string;
  readonly port: number;
  /** `undefined`: not known, for the socket listens to all */
  readonly local: string | undefined;
}

/** What the server needs of a transfer, a read or a write. */
type AnyTransfer = Pick<Transfer<TransferState>, 'receive' | 'stop'>;

/** A transfer with its socket, as the server keeps it. */
export class Running implements PeerHandler {
  /** the peer's address and port, and the address asked */
  readonly key: string;
  readonly peer: string;
  /** the datagram that asked; a copy of it is no new request */
  readonly request: Uint8Array;
  readonly startedMs: number = performance.now();
  /** when the peer last sent something to the transfer; -Infinity: never, so its address may be forged */
  heardAtMs: number = -Infinity;
  /** the outcome is known; a receiver may still dally */
  isSettled: boolean = false;
  transfer: AnyTransfer | undefined;
  readonly #onProven: (running: Running) => void;

  constructor(asker: Asker, request: Uint8Array, onProven: (running: Running) => void) {
    this.key = keyOf(asker);
    this.peer = asker.address;
    this.request = request;
    this.#onProven = onProven;
  }

  onDatagram(bytes: Uint8Array): void {
    if (this.heardAtMs === -Infinity) this.#onProven(this);
    this.heardAtMs = performance.now();
    this.transfer?.receive(bytes);
  }

  onError(error: Error): void {
    // What cannot be sent now counts as lost. A closed port has nobody who would listen to more; but the kernel tells of it
    // before it gives what the peer has said last, and that is worth more.
    if (systemCode(error) !== 'ECONNREFUSED') return;
    setTimeout(() => this.stop(ERROR_CODE.notDefined, 'the peer has closed its port'), LAST_WORDS_MS);
  }

  stop(code: number, message: string): void {
    this.transfer?.stop(code, message);
  }

  /** The client asks anew from the same port. An ERROR from here would be taken for the answer to that. */
  supersede(): void {
    this.transfer?.receive(encodeError(ERROR_CODE.notDefined, 'it asked anew from the same port'));
  }
}

/**
 * Whether a request is a copy of one that is being served: made by the network, or by a client whose first answer is still on
 * its way. A client that has been silent for long means it anew (firmware asks from the same port again).
 */
export function isCopy(old: Running, request: Uint8Array): boolean {
  const isSilent = old.heardAtMs !== -Infinity && performance.now() - old.heardAtMs > RESTART_AFTER_MS;
  return !old.isSettled && !isSilent && Buffer.compare(old.request, request) === 0;
}

export function keyOf(asker: Asker): string {
  return `${asker.address} ${asker.port} ${asker.local ?? ''}`;
}
