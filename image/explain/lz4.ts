/**
 * LZ4 blocks, unpacked: what squashfs holds when it was made with `-comp lz4`. Node has no LZ4 of its own.
 *
 * Specification: `doc/lz4_Block_format.md` of lz4. A block is sequences of literals and a match:
 *
 * ```
 *   token (4 bits: literals, 4 bits: match - 4) · more length · literals · offset (16 bits, little endian) · more length
 * ```
 */

/** The shortest match. */
const MINIMUM_MATCH = 4;

/** A length of 15 in the token goes on in the bytes that follow, as long as they are 255. */
const MORE = 15;

/**
 * Unpacks one block.
 *
 * @param maximum - how many bytes it may unpack to
 * @throws {RangeError} when it is cut short, refers to what is not there, or unpacks to more
 */
export function decodeLz4Block(input: Uint8Array, maximum: number): Uint8Array {
  const output = new Uint8Array(maximum);
  let from = 0;
  let to = 0;
  const byte = (): number => {
    const value = input[from];
    if (value === undefined) throw new RangeError(`Cannot unpack the LZ4 block: it ends after ${from} bytes`);
    from += 1;
    return value;
  };
  const lengthOf = (start: number): number => {
    let length = start;
    if (start !== MORE) return length;
    for (let more = 255; more === 255;) {
      more = byte();
      length += more;
    }
    return length;
  };
  while (from < input.length) {
    const token = byte();
    const literals = lengthOf(token >> 4);
    if (from + literals > input.length) throw new RangeError('Cannot unpack the LZ4 block: literals are cut short');
    if (to + literals > maximum) throw new RangeError(`Cannot unpack the LZ4 block: more than ${maximum} bytes`);
    output.set(input.subarray(from, from + literals), to);
    from += literals;
    to += literals;
    // The last sequence is literals only.
    if (from === input.length) break;
    const offset = byte() | (byte() << 8);
    if (offset === 0 || offset > to) throw new RangeError(`Cannot unpack the LZ4 block: a match ${offset} bytes back`);
    const length = lengthOf(token & 15) + MINIMUM_MATCH;
    if (to + length > maximum) throw new RangeError(`Cannot unpack the LZ4 block: more than ${maximum} bytes`);
    if (offset >= length) {
      output.copyWithin(to, to - offset, to - offset + length);
      to += length;
    } else {
      // The match reaches into what it writes: bytes repeat.
      for (const end = to + length; to < end; to += 1) output[to] = output[to - offset] ?? 0;
    }
  }
  return output.subarray(0, to);
}
