/**
 * A serial console as lines: bytes in, text lines out. Pure but for the decoder's memory.
 *
 * Firmware paints with escape sequences and carriage returns; what is left of them is text that can be searched and printed.
 */

/** A longer line is cut here: binary rubbish has no newlines. */
const MAX_LINE = 16_384;

/** CSI and OSC sequences, two-character escapes, and control characters other than tab. */
export const ESCAPES: RegExp =
  // oxlint-disable-next-line no-control-regex -- control characters are what it is for
  /\u001B\[[0-?]*[ -/]*[@-~]|\u001B\][^\u0007\u001B]*(?:\u0007|\u001B\\)|\u001B[ -/]*[0-~]|[\u0000-\u0008\u000B-\u001F\u007F]/g;

/** Cuts a console's bytes into lines. */
export class ConsoleLines {
  readonly #decoder = new TextDecoder();
  #rest = '';

  /** @returns the lines that are complete now, without escape sequences; empty ones are left out */
  push(chunk: Uint8Array): string[] {
    const pieces = (this.#rest + this.#decoder.decode(chunk, { stream: true })).split(/\r*\n|\r+(?!\n)(?=[^\r])/);
    this.#rest = pieces.pop() ?? '';
    if (this.#rest.length > MAX_LINE) {
      pieces.push(this.#rest);
      this.#rest = '';
    }
    return pieces.map(cleanLine).filter((line) => line !== '');
  }

  /** What has come of the line that is not complete yet: a prompt, perhaps. */
  get unfinished(): string {
    return cleanLine(this.#rest);
  }
}

const cleanLine = (line: string): string => line.replaceAll(ESCAPES, '').trimEnd();
