/**
 * netascii (RFC 764, RFC 1350 §1): text whose line end is CR LF, and whose lone CR is CR NUL. Here a line ends with LF.
 *
 *   here   LF     CR       on the wire   CR LF   CR NUL
 *
 * Encoding needs no memory from chunk to chunk; decoding does, since a pair may stand across the border of two blocks.
 */

const NUL = 0x00;
const LF = 0x0a;
const CR = 0x0d;

/** Encodes a chunk: LF becomes CR LF, CR becomes CR NUL. */
export function encodeNetascii(bytes: Uint8Array): Uint8Array {
  const encoded = new Uint8Array(netasciiLength(bytes));
  let at = 0;
  for (const byte of bytes) {
    if (byte === LF || byte === CR) {
      encoded[at] = CR;
      encoded[at + 1] = byte === LF ? LF : NUL;
      at += 2;
    } else {
      encoded[at] = byte;
      at += 1;
    }
  }
  return encoded;
}

/** How many bytes `encodeNetascii` gives. */
export function netasciiLength(bytes: Uint8Array): number {
  let length = bytes.length;
  for (const byte of bytes) if (byte === LF || byte === CR) length += 1;
  return length;
}

/** A chunk decoded so far; `pendingCr` says that it ended in a CR whose second half is still to come. */
export interface DecodedNetascii {
  readonly bytes: Uint8Array;
  readonly pendingCr: boolean;
}

/**
 * Decodes a chunk. A CR followed by neither LF nor NUL stands for itself (lenient: some clients send raw text).
 *
 * @param pendingCr - what the chunk before left; false at the start
 */
export function decodeNetascii(bytes: Uint8Array, pendingCr: boolean): DecodedNetascii {
  const decoded = new Uint8Array(bytes.length + 1);
  let at = 0;
  let pending = pendingCr;
  for (const byte of bytes) {
    if (pending) {
      pending = false;
      if (byte === LF || byte === NUL) {
        decoded[at] = byte === LF ? LF : CR;
        at += 1;
        continue;
      }
      decoded[at] = CR;
      at += 1;
    }
    if (byte === CR) {
      pending = true;
    } else {
      decoded[at] = byte;
      at += 1;
    }
  }
  return { bytes: decoded.subarray(0, at), pendingCr: pending };
}

/** What is left at the end of a text: a CR that stayed alone. */
export function finishNetascii(pendingCr: boolean): Uint8Array {
  return pendingCr ? Uint8Array.of(CR) : new Uint8Array(0);
}
