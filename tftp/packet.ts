/**
 * TFTP packets: bytes to values and back (RFC 1350 §5, RFC 2347).
 *
 *   RRQ 1, WRQ 2   | opcode | name | 0 | mode | 0 | option | 0 | value | 0 | …
 *   DATA 3         | opcode | block | 0 to blksize bytes |
 *   ACK 4          | opcode | block |
 *   ERROR 5        | opcode | code | message | 0 |
 *   OACK 6         | opcode | option | 0 | value | 0 | …
 *
 * Opcode, block and code are unsigned 16-bit, big-endian. Decoding is total: what no packet looks like becomes
 * the value `malformed`, for a datagram from the network is not an exception.
 */

/** Opcodes (RFC 1350 §5; OACK: RFC 2347). */
export const OPCODE = { rrq: 1, wrq: 2, data: 3, ack: 4, error: 5, oack: 6 } as const;

/** Error codes (RFC 1350 appendix; 8: RFC 2347). */
export const ERROR_CODE = {
  notDefined: 0,
  notFound: 1,
  accessViolation: 2,
  diskFull: 3,
  illegalOperation: 4,
  unknownTid: 5,
  alreadyExists: 6,
  noSuchUser: 7,
  optionsRefused: 8,
} as const;

/** Longest error message that is sent, in bytes: every peer has room for a block of 512. */
const ERROR_MESSAGE_MAX_BYTES = 400;

/** Most options that are read from one packet; the rest is left out. */
const OPTIONS_MAX = 32;

/** An option as it stands in a packet: spelling and value are the sender's. */
export type OptionPair = readonly [name: string, value: string];

/** How bytes travel (RFC 1350 §1). `mail` is obsolete and refused (RFC 1123 §4.2). */
export type Mode = 'octet' | 'netascii' | 'mail';

export interface RequestPacket {
  readonly kind: 'request';
  readonly direction: 'read' | 'write';
  readonly name: string;
  /** in lower case; `undefined` when it is none of the three */
  readonly mode: Mode | undefined;
  readonly options: readonly OptionPair[];
}

export interface DataPacket {
  readonly kind: 'data';
  /** 0 to 65535 */
  readonly block: number;
  /** a view into the datagram, not a copy */
  readonly data: Uint8Array;
}

export interface AckPacket {
  readonly kind: 'ack';
  /** 0 to 65535 */
  readonly block: number;
}

export interface ErrorPacket {
  readonly kind: 'error';
  /** 0 to 65535; 0 to 8 have a meaning */
  readonly code: number;
  readonly message: string;
}

export interface OackPacket {
  readonly kind: 'oack';
  readonly options: readonly OptionPair[];
}

/** A datagram that is no packet. */
export interface MalformedPacket {
  readonly kind: 'malformed';
  /** what is wrong, as a clause: `no NUL after the mode` */
  readonly reason: string;
}

export type Packet = RequestPacket | DataPacket | AckPacket | ErrorPacket | OackPacket | MalformedPacket;

const strictUtf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const lenientUtf8 = new TextDecoder('utf-8', { ignoreBOM: true });
const utf8 = new TextEncoder();

/**
 * Decodes a datagram. Never throws: anything that is not a packet becomes `malformed` with its reason.
 *
 * Lenient where known peers need it: an ERROR without its final NUL; options cut short or padded with zeros after
 * the last complete pair; one byte 0xFF at the end of a name (firmware that copies DHCP option 67 with its end mark).
 */
export function decodePacket(bytes: Uint8Array): Packet {
  if (bytes.length < 4) return malformed(`${bytes.length} bytes, fewer than 4`);
  const opcode = readUint16(bytes, 0);
  switch (opcode) {
    case OPCODE.rrq:
      return decodeRequest(bytes, 'read');
    case OPCODE.wrq:
      return decodeRequest(bytes, 'write');
    case OPCODE.data:
      return { kind: 'data', block: readUint16(bytes, 2), data: bytes.subarray(4) };
    case OPCODE.ack:
      return { kind: 'ack', block: readUint16(bytes, 2) };
    case OPCODE.error: {
      const end = bytes.indexOf(0, 4);
      const message = lenientUtf8.decode(bytes.subarray(4, end === -1 ? bytes.length : end));
      return { kind: 'error', code: readUint16(bytes, 2), message };
    }
    case OPCODE.oack:
      return { kind: 'oack', options: decodeOptions(bytes, 2) };
    default:
      return malformed(`opcode ${opcode}, not 1 to 6`);
  }
}

/**
 * Encodes an RRQ or WRQ (RFC 1350 figure 5-1, RFC 2347).
 *
 * @throws {RangeError} when the name is empty, or a text holds a NUL
 */
export function encodeRequest(request: {
  readonly direction: 'read' | 'write';
  readonly name: string;
  readonly mode: Mode;
  readonly options: readonly OptionPair[];
}): Uint8Array {
  if (request.name === '') throw new RangeError('the name of a request is empty');
  const opcode = request.direction === 'read' ? OPCODE.rrq : OPCODE.wrq;
  return encodeTexts(opcode, [request.name, request.mode, ...request.options.flat()]);
}

/**
 * Encodes a DATA packet (RFC 1350 figure 5-2).
 *
 * @param block - block number, 0 to 65535; after 65535 comes 0 (custom; the RFC is silent)
 * @param data - 0 to blksize bytes; fewer than blksize ends the transfer (§6)
 * @returns 4 + data.length bytes
 * @throws {RangeError} when block is not an unsigned 16-bit integer
 */
export function encodeData(block: number, data: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(4 + data.length);
  writeDataHeader(bytes, block);
  bytes.set(data, 4);
  return bytes;
}

/**
 * Writes the 4 bytes before the data of a DATA packet in place, so that a file can be read straight behind it.
 *
 * @throws {RangeError} when block is not an unsigned 16-bit integer
 */
export function writeDataHeader(bytes: Uint8Array, block: number): void {
  writeUint16(bytes, 0, OPCODE.data);
  writeUint16(bytes, 2, block);
}

/**
 * Encodes an ACK packet (RFC 1350 figure 5-3): 4 bytes.
 *
 * @throws {RangeError} when block is not an unsigned 16-bit integer
 */
export function encodeAck(block: number): Uint8Array {
  const bytes = new Uint8Array(4);
  writeUint16(bytes, 0, OPCODE.ack);
  writeUint16(bytes, 2, block);
  return bytes;
}

/**
 * Encodes an ERROR packet (RFC 1350 figure 5-4): the message ends with a NUL; a long one is cut, and a NUL inside
 * becomes a space.
 *
 * @throws {RangeError} when code is not an unsigned 16-bit integer
 */
export function encodeError(code: number, message: string): Uint8Array {
  const text = utf8.encode(message.replaceAll('\0', ' '));
  let length = Math.min(text.length, ERROR_MESSAGE_MAX_BYTES);
  // Not in the middle of a character: 10xxxxxx continues one.
  while (length > 0 && length < text.length && ((text[length] ?? 0) & 0xc0) === 0x80) length -= 1;
  const bytes = new Uint8Array(4 + length + 1);
  writeUint16(bytes, 0, OPCODE.error);
  writeUint16(bytes, 2, code);
  bytes.set(text.subarray(0, length), 4);
  return bytes;
}

/**
 * Encodes an OACK packet (RFC 2347).
 *
 * @throws {RangeError} when a text holds a NUL
 */
export function encodeOack(options: readonly OptionPair[]): Uint8Array {
  return encodeTexts(OPCODE.oack, options.flat());
}

function decodeRequest(bytes: Uint8Array, direction: 'read' | 'write'): Packet {
  const nameEnd = bytes.indexOf(0, 2);
  if (nameEnd === -1) return malformed('no NUL after the name');
  const modeEnd = bytes.indexOf(0, nameEnd + 1);
  if (modeEnd === -1) return malformed('no NUL after the mode');
  const trimmedEnd = bytes[nameEnd - 1] === 0xff ? nameEnd - 1 : nameEnd;
  if (trimmedEnd <= 2) return malformed('an empty name');
  let name: string;
  try {
    name = strictUtf8.decode(bytes.subarray(2, trimmedEnd));
  } catch {
    return malformed('a name that is not UTF-8');
  }
  const mode = lenientUtf8.decode(bytes.subarray(nameEnd + 1, modeEnd)).toLowerCase();
  return {
    kind: 'request',
    direction,
    name,
    mode: mode === 'octet' || mode === 'netascii' || mode === 'mail' ? mode : undefined,
    options: decodeOptions(bytes, modeEnd + 1),
  };
}

function decodeOptions(bytes: Uint8Array, start: number): readonly OptionPair[] {
  const pairs: OptionPair[] = [];
  let at = start;
  while (at < bytes.length && pairs.length < OPTIONS_MAX) {
    const nameEnd = bytes.indexOf(0, at);
    if (nameEnd <= at) break;
    const valueEnd = bytes.indexOf(0, nameEnd + 1);
    if (valueEnd === -1) break;
    pairs.push([
      lenientUtf8.decode(bytes.subarray(at, nameEnd)),
      lenientUtf8.decode(bytes.subarray(nameEnd + 1, valueEnd)),
    ]);
    at = valueEnd + 1;
  }
  return pairs;
}

function encodeTexts(opcode: number, texts: readonly string[]): Uint8Array {
  for (const text of texts) {
    if (text.includes('\0')) throw new RangeError(`${JSON.stringify(text)} holds a NUL, which ends a text in TFTP`);
  }
  const body = utf8.encode(texts.map((text) => `${text}\0`).join(''));
  const bytes = new Uint8Array(2 + body.length);
  writeUint16(bytes, 0, opcode);
  bytes.set(body, 2);
  return bytes;
}

function malformed(reason: string): MalformedPacket {
  return { kind: 'malformed', reason };
}

function readUint16(bytes: Uint8Array, at: number): number {
  return ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0);
}

function writeUint16(bytes: Uint8Array, at: number, value: number): void {
  if (!Number.isInteger(value) || value < 0 || value > 0xffff) {
    throw new RangeError(`${value} is not an unsigned 16-bit integer`);
  }
  bytes[at] = value >> 8;
  bytes[at + 1] = value & 0xff;
}
