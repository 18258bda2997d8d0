/** A line per transfer, for a person: who, what, how it ended and why, what was asked and granted. */
import { printable, quote } from '../tftp/error.ts';
import type { TransferEvent } from '../tftp/transfer-event.ts';
import { formatBytes } from './tftp-progress.ts';

/** A flood of requests must not become a flood of lines: a terminal or journal that is slow would hold up the server. */
const LINES_PER_SECOND = 100;
const BURST_LINES = 500;

/**
 * Says how a transfer went, in one line without anything that could steer a terminal:
 *
 *     192.0.2.7:2070 read "linux": done, 8388608 bytes in 0.31 s, 27.1 MB/s; asked blksize=1468, granted blksize=1468; rtt 0.4 ms
 */
export function describeTransfer(event: TransferEvent): string {
  const { bytes, durationMs } = event;
  const host = event.peer.includes(':') ? `[${event.peer}]` : event.peer;
  const mode = event.mode === 'octet' ? '' : ` as ${printable(event.mode)}`;
  const seconds = `${(durationMs / 1000).toFixed(2)} s`;
  const error = printable(event.error ?? 'no reason known');
  // What the client ended names its code already.
  const code = event.endedBy === 'server' && event.errorCode !== undefined ? ` with ERROR ${event.errorCode}` : '';
  const ending =
    event.result === 'done'
      ? `done, ${bytes} bytes in ${seconds}, ${formatBytes(durationMs > 0 ? (bytes / durationMs) * 1000 : 0)}/s`
      : event.begun
        ? `failed${code} after ${bytes} bytes in ${seconds}: ${error}`
        : `refused${code}: ${error}`;
  const asked = event.options.map(([name, value]) => `${asWord(name)}=${asWord(value)}`).join(' ');
  const granted = Object.entries(event.granted).map(([name, value]) => `${name}=${value}`);
  const options = event.begun ? `, granted ${granted.join(' ') || 'none'}` : '';
  const measured = [
    ...(event.rttMs === undefined ? [] : [`rtt ${event.rttMs.toFixed(1)} ms`]),
    ...(event.repeats === 0 ? [] : [`${event.repeats} packets repeated`]),
  ];
  return [
    `${host}:${event.port} ${event.direction} ${quote(event.name)}${mode}: ${ending}`,
    ...(asked === '' ? [] : [`asked ${asked}${options}`]),
    ...(measured.length === 0 ? [] : [measured.join(', ')]),
  ].join('; ');
}

/** An option as it was sent; in quotes when it is no plain word. */
function asWord(text: string): string {
  return /^[\w.-]{1,40}$/.test(text) ? text : quote(text.slice(0, 40));
}

/** Writes lines, only so many a second; says how many were left out. */
export class LineLimit implements Disposable {
  readonly #write: (line: string) => void;
  readonly #describe: (omitted: number) => string;
  #tokens = BURST_LINES;
  #omitted = 0;
  readonly #timer: NodeJS.Timeout;

  constructor(write: (line: string) => void, describe: (omitted: number) => string) {
    this.#write = write;
    this.#describe = describe;
    this.#timer = setInterval(() => this.#refill(), 1000).unref();
  }

  write(line: () => string): void {
    if (this.#tokens === 0) {
      this.#omitted += 1;
      return;
    }
    this.#tokens -= 1;
    this.#write(line());
  }

  #refill(): void {
    if (this.#omitted > 0) this.#write(this.#describe(this.#omitted));
    this.#omitted = 0;
    this.#tokens = Math.min(BURST_LINES, this.#tokens + LINES_PER_SECOND);
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    this.#refill();
  }
}
