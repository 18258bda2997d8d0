/**
 * DATA packets of a window, one behind the other in one piece of memory that all transfers share: the file is read
 * straight behind the headers, and the packets leave before the next transfer has its turn.
 *
 *   | 0 3 | block | blksize bytes | 0 3 | block | blksize bytes | … | 0 3 | block | the rest |
 */
import { BLKSIZE_MAX } from './options.ts';
import { OPCODE } from './packet.ts';
import type { Source } from './source.ts';

const DATA_HEADER_BYTES = 4;
/** Blocks that are read at once; longer windows are read in parts. UDP_SEGMENT takes as many (UDP_MAX_SEGMENTS). */
export const WINDOW_PART_BLOCKS = 64;
/** Bytes that are read at once, but always a whole block. */
const WINDOW_PART_BYTES = 128 * 1024;
/** Clients of one room ask for few sizes. */
const LAYOUTS_MAX = 8;

/** Views into the memory for one blksize. */
interface Layout {
  readonly packets: readonly Uint8Array[];
  readonly bodies: readonly Uint8Array[];
}

/** The memory, and the packets that were put into it last. */
export class DataWindow {
  #memory: Buffer<ArrayBuffer> = allocate();
  #view: DataView = new DataView(this.#memory.buffer);
  readonly #layouts = new Map<number, Layout>();
  #packets: readonly Uint8Array[] = [];

  /** All of it, as one piece; it stays at its address until `renew`. */
  get memory(): Uint8Array<ArrayBuffer> {
    return this.#memory;
  }

  /** What `fill` has made. */
  get packets(): readonly Uint8Array[] {
    return this.#packets;
  }

  /** How many blocks of this size fit at once. */
  static blocksMax(blksize: number): number {
    return Math.max(1, Math.min(WINDOW_PART_BLOCKS, Math.floor(WINDOW_PART_BYTES / blksize)));
  }

  /** Takes other memory from now on: a socket has kept the present one until it can send. */
  renew(): void {
    this.#memory = allocate();
    this.#view = new DataView(this.#memory.buffer);
    this.#layouts.clear();
  }

  /**
   * Reads blocks; they stand behind each other from the start of the memory.
   *
   * @param first - absolute number of the first block, from 1
   * @param count - at most `blocksMax(blksize)`
   * @returns bytes in all
   * @throws {RefusedError} when the source has not got them any more
   */
  fill(source: Source, first: number, count: number, blksize: number): number {
    const { packets, bodies } = this.#layoutFor(blksize);
    const offset = (first - 1) * blksize;
    const rest = Math.max(0, Math.min(count * blksize, source.size - offset));
    const lastLength = rest - (count - 1) * blksize;
    const isWhole = lastLength === blksize;
    if (isWhole && count === packets.length) {
      source.read(offset, bodies);
      this.#packets = packets;
    } else {
      const body = bodies[count - 1]?.subarray(0, lastLength);
      const packet = packets[count - 1]?.subarray(0, DATA_HEADER_BYTES + lastLength);
      if (body === undefined || packet === undefined) throw new RangeError(`${count} blocks of ${blksize} do not fit`);
      source.read(offset, [...bodies.slice(0, count - 1), body]);
      this.#packets = [...packets.slice(0, count - 1), packet];
    }
    for (let index = 0; index < count; index += 1) {
      const block = (first + index) & 0xffff;
      this.#view.setUint32(index * (DATA_HEADER_BYTES + blksize), (OPCODE.data << 16) | block);
    }
    return count * DATA_HEADER_BYTES + rest;
  }

  #layoutFor(blksize: number): Layout {
    let layout = this.#layouts.get(blksize);
    if (layout === undefined) {
      if (this.#layouts.size >= LAYOUTS_MAX) this.#layouts.clear();
      layout = lay(this.#memory, blksize);
      this.#layouts.set(blksize, layout);
    }
    return layout;
  }
}

function allocate(): Buffer<ArrayBuffer> {
  // An ArrayBuffer of its own: its address stays the same.
  const bytes = Math.max(WINDOW_PART_BYTES, BLKSIZE_MAX) + WINDOW_PART_BLOCKS * DATA_HEADER_BYTES;
  return Buffer.from(new ArrayBuffer(bytes));
}

function lay(memory: Buffer, blksize: number): Layout {
  const size = DATA_HEADER_BYTES + blksize;
  const packets = Array.from({ length: DataWindow.blocksMax(blksize) }, (_, index) =>
    memory.subarray(index * size, (index + 1) * size),
  );
  return { packets, bodies: packets.map((packet) => packet.subarray(DATA_HEADER_BYTES)) };
}
