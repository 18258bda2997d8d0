/**
 * What an agent and its caller say to each other, over one pair of pipes; many calls at once.
 *
 *     4 bytes          1 byte   4 bytes   the rest
 *    +----------------+--------+---------+------------------+
 *    | length of rest | kind   | call id | payload          |    integers big-endian
 *    +----------------+--------+---------+------------------+
 */

/** Kinds of frames, by direction. Payloads are JSON unless it says bytes. */
export const FRAME = {
  /** To the agent: begins a call. */
  request: 1,
  /** To the agent: bytes of its input. */
  input: 2,
  /** To the agent: the input ends. */
  inputEnd: 3,
  /** To the agent: end the call early. */
  abort: 4,
  /** From the agent, call 0, once: which bundle it is. */
  hello: 5,
  /** From the agent: bytes. */
  stdout: 6,
  stderr: 7,
  /** From the agent: so many bytes of the input were taken. */
  taken: 8,
  /** From the agent: the call ended; its result. */
  done: 9,
  /** From the agent: the call failed. */
  failed: 10,
} as const;

/** One frame. */
export interface Frame {
  readonly kind: number;
  readonly call: number;
  readonly payload: Buffer;
}

const HEADER_BYTES = 9;
/** No frame is longer; who sends more sends several. */
const MAX_FRAME_BYTES = 16 * 1024 * 1024;
/** Bytes are sent in pieces of this size. */
const PIECE_BYTES = 64 * 1024;
/** So much input may be on its way before the agent says that it took some. */
export const WINDOW_BYTES: number = 1024 * 1024;

/** Encodes a frame with bytes. */
export function encodeFrame(kind: number, call: number, payload: Uint8Array): Buffer {
  const frame = Buffer.allocUnsafe(HEADER_BYTES + payload.length);
  frame.writeUInt32BE(5 + payload.length, 0);
  frame.writeUInt8(kind, 4);
  frame.writeUInt32BE(call, 5);
  frame.set(payload, HEADER_BYTES);
  return frame;
}

/** Encodes a frame with a JSON payload. */
export function encodeJson(kind: number, call: number, value: unknown): Buffer {
  return encodeFrame(kind, call, Buffer.from(JSON.stringify(value)));
}

/** Cuts a stream of bytes into frames. */
export class FrameDecoder {
  #rest: Buffer = Buffer.alloc(0);
  #parts: Buffer[] = [];
  #have = 0;

  /**
   * Takes a chunk; gives the frames that it completes.
   *
   * @throws {RangeError} when the bytes are no frames
   */
  push(chunk: Uint8Array): Frame[] {
    this.#parts.push(Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength));
    this.#have += chunk.length;
    const frames: Frame[] = [];
    if (this.#rest.length >= 4 && this.#have + this.#rest.length < 4 + this.#rest.readUInt32BE(0)) return frames;
    let bytes = Buffer.concat([this.#rest, ...this.#parts]);
    this.#parts = [];
    this.#have = 0;
    while (bytes.length >= HEADER_BYTES) {
      const length = bytes.readUInt32BE(0);
      if (length < 5 || length > MAX_FRAME_BYTES) {
        const start = bytes.subarray(0, 200).toString('utf8');
        throw new RangeError(`These bytes are no frame of an agent: ${JSON.stringify(start)}`);
      }
      if (bytes.length < 4 + length) break;
      const payload = bytes.subarray(HEADER_BYTES, 4 + length);
      frames.push({ kind: bytes.readUInt8(4), call: bytes.readUInt32BE(5), payload });
      bytes = bytes.subarray(4 + length);
    }
    this.#rest = bytes;
    return frames;
  }
}

/** Cuts bytes into pieces for frames. */
export function* pieces(bytes: Uint8Array): Generator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += PIECE_BYTES) yield bytes.subarray(at, at + PIECE_BYTES);
}
