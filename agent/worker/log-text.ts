/**
 * Logs as text that a manifest can carry: graphic characters, tab and newline only (the manifest syntax allows no others),
 * and of a bounded size.
 */

import { cleanText } from '../../manifests/manifest.ts';

/** How much of one operation's log goes into the result: the beginning and the end of a longer one. */
export const OPERATION_LOG_BYTES: number = 2 * 1024 * 1024;

/** Keeps the first and the last part of a stream of bytes in bounded memory. */
export class HeadTail {
  readonly #limit: number;
  #head: Uint8Array[] = [];
  #headBytes = 0;
  #tail: Uint8Array[] = [];
  #tailBytes = 0;
  #dropped = 0;

  /** @param limitBytes - how much is kept, half of it from the beginning */
  constructor(limitBytes: number) {
    this.#limit = Math.floor(limitBytes / 2);
  }

  /** Takes the next bytes; they are copied. */
  add(chunk: Uint8Array): void {
    const room = Math.max(0, this.#limit - this.#headBytes);
    const first = chunk.slice(0, room);
    if (first.length > 0) this.#head.push(first);
    this.#headBytes += first.length;
    const rest = chunk.slice(room);
    if (rest.length === 0) return;
    this.#tail.push(rest);
    this.#tailBytes += rest.length;
    let oldest = this.#tail[0];
    while (oldest !== undefined && this.#tailBytes - oldest.length >= this.#limit) {
      this.#tail.shift();
      this.#tailBytes -= oldest.length;
      this.#dropped += oldest.length;
      oldest = this.#tail[0];
    }
  }

  /** The text kept, cleaned, with a line in the middle that says how much is missing. */
  text(): string {
    const head = Buffer.concat(this.#head);
    const tail = Buffer.concat(this.#tail);
    if (this.#dropped === 0) return cleanLog(Buffer.concat([head, tail]));
    return `${cleanLog(head)}\n[... ${this.#dropped} bytes left out here; the live log has them ...]\n${cleanLog(tail)}`;
  }
}

/**
 * Makes log text of what a program printed: no terminal sequences, what a manifest cannot hold replaced; CR LF and a lone CR become newlines, so that progress bars can be read.
 */
export function cleanLog(bytes: Uint8Array): string {
  const text = new TextDecoder().decode(bytes);
  // ECMA-48: CSI sequences, OSC strings up to BEL or ST, and the two-character ones.
  // oxlint-disable-next-line no-control-regex -- control characters are the subject
  const plain = text.replaceAll(/\u001B(?:\[[0-?]*[ -/]*[@-~]|\][^\u0007\u001B]*(?:\u0007|\u001B\\)|[@-Z\\^_])/gu, '');
  return cleanText(plain.replaceAll(/\r+\n?/gu, '\n'));
}
