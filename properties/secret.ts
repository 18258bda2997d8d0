/**
 * Secrets: bytes that print as `[secret]` wherever a value may end up, and the mask that takes them out of texts that
 * others wrote: the stderr of a program, the old content of a file.
 */
import { inspect } from 'node:util';

const SHOWN = '[secret]';

/** Bytes that must not be seen. Only {@link Secret.reveal} gives them out, for a file or the stdin of a program. */
export class Secret {
  readonly #bytes: Uint8Array;

  constructor(content: string | Uint8Array) {
    this.#bytes = Buffer.from(content);
  }

  /** The bytes themselves. Never put them into an argument, a variable, a message or a definition. */
  reveal(): Uint8Array {
    return Buffer.from(this.#bytes);
  }

  toString(): string {
    return SHOWN;
  }

  toJSON(): string {
    return SHOWN;
  }

  [Symbol.toPrimitive](): string {
    return SHOWN;
  }
}

// As a member it would need a name that the compiler can read without knowing node:util.
Object.defineProperty(Secret.prototype, inspect.custom, { value: (): string => SHOWN });

/** Shorter ones would be found everywhere by chance. */
const SHORTEST = 4;
/** Lines of a longer secret are masked one by one too: a program may show one of them. */
const SHORTEST_LINE = 8;

/** Knows the secrets that were given out, and takes them out of texts. */
export class SecretMask {
  readonly #texts = new Set<string>();

  add(secret: Secret): void {
    const bytes = Buffer.from(secret.reveal());
    const text = bytes.toString('utf8').trim();
    const lines = text.split('\n').map((line) => line.trim());
    const shapes = [text, ...lines.filter((line) => line.length >= SHORTEST_LINE)];
    for (const shape of [
      ...shapes,
      bytes.toString('base64'),
      bytes.toString('hex'),
      JSON.stringify(text).slice(1, -1),
    ]) {
      if (shape.length >= SHORTEST) this.#texts.add(shape);
    }
  }

  /** The text with every secret replaced by `[secret]`. */
  hide(text: string): string {
    let hidden = text;
    // The longest first: a line of a secret must not break up the whole.
    for (const shape of [...this.#texts].sort((a, b) => b.length - a.length)) hidden = hidden.replaceAll(shape, SHOWN);
    return hidden;
  }

  /** Whether any of the secrets is in a text. */
  isIn(text: string): boolean {
    return [...this.#texts].some((shape) => text.includes(shape));
  }
}
