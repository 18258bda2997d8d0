/**
 * TFTP options: what was asked, what is granted, and whether an OACK keeps to it (RFC 2347, 2348, 2349, 7440).
 *
 * | option       | values     | granted                                                       |
 * |--------------|------------|---------------------------------------------------------------|
 * | `blksize`    | 8 … 65464  | as asked or lower (RFC 2348)                                  |
 * | `timeout`    | 1 … 255 s  | exactly as asked (RFC 2349)                                   |
 * | `tsize`      | 0 …        | a read: the size in bytes; a write: as asked (RFC 2349)       |
 * | `windowsize` | 1 … 65535  | as asked or lower (RFC 7440)                                  |
 * | `offset`     | 0 …        | private: a write that begins at this byte of the file, or not |
 *
 * What is unknown, invalid or not wanted is left out; an OACK without options is never sent.
 */
import type { OptionPair } from './packet.ts';

/** Without the option (RFC 1350 §2). */
export const DEFAULT_BLKSIZE = 512;
/** RFC 2348. */
export const BLKSIZE_MIN = 8;
/** RFC 2348: 65535 less the headers of IP (20), UDP (8), TFTP (4), rounded by its authors. */
export const BLKSIZE_MAX = 65464;
/** Without the option: lock-step (RFC 7440 §3). */
export const DEFAULT_WINDOWSIZE = 1;
/** RFC 7440. */
export const WINDOWSIZE_MAX = 65535;

/** Options as numbers; a missing one was not asked, not granted or not valid. */
export interface Options {
  /** bytes in a DATA packet */
  readonly blksize?: number;
  /** seconds before a packet is repeated */
  readonly timeout?: number;
  /** bytes of the whole transfer */
  readonly tsize?: number;
  /** DATA packets that are sent before an ACK is awaited */
  readonly windowsize?: number;
  /** private: where in the file a write begins, in bytes */
  readonly offset?: number;
}

/** Private limits of the side that grants. */
export interface GrantLimits {
  readonly blksizeMax: number;
  readonly windowsizeMax: number;
  /** blksize × windowsize stays within this, for it is held in memory and arrives in one burst */
  readonly windowBytesMax: number;
  /** answer to `tsize`: the size of the file for a read, `echo` for a write, nothing when it is not known */
  readonly tsize: number | 'echo' | undefined;
  /** whether `offset` is granted */
  readonly offset: boolean;
}

/** An OACK that cannot be accepted; the answer is ERROR 8 with this message. */
export interface RefusedOack {
  readonly refused: string;
}

const RANGES: Readonly<Record<keyof Options, readonly [min: number, max: number]>> = {
  blksize: [BLKSIZE_MIN, BLKSIZE_MAX],
  timeout: [1, 255],
  tsize: [0, Number.MAX_SAFE_INTEGER],
  windowsize: [1, WINDOWSIZE_MAX],
  offset: [0, Number.MAX_SAFE_INTEGER],
};

/** Reads the options of a request: names in any case, the first of a repeated one, the invalid and unknown left out. */
export function parseOptions(pairs: readonly OptionPair[]): Options {
  const found: Partial<Record<keyof Options, number>> = {};
  for (const [spelling, text] of pairs) {
    const name = findName(spelling);
    if (name === undefined || found[name] !== undefined) continue;
    const value = parseValue(name, text);
    if (value !== undefined) found[name] = value;
  }
  return found;
}

/** Writes options as pairs, in a fixed order. */
export function formatOptions(options: Options): readonly OptionPair[] {
  return Object.entries(options).map(([name, value]) => [name, String(value)] as const);
}

/**
 * Decides what is granted of a request.
 *
 * @returns the values in force, and the pairs of the OACK in the client's order and spelling; no pairs: send no OACK
 */
export function grantOptions(
  pairs: readonly OptionPair[],
  limits: GrantLimits,
): { readonly granted: Options; readonly oack: readonly OptionPair[] } {
  const asked = parseOptions(pairs);
  const blksize = asked.blksize === undefined ? undefined : Math.min(asked.blksize, limits.blksizeMax);
  const windowBlocksMax = Math.max(1, Math.floor(limits.windowBytesMax / (blksize ?? DEFAULT_BLKSIZE)));
  const tsize = limits.tsize === 'echo' ? asked.tsize : limits.tsize;
  const granted: Options = {
    ...(blksize !== undefined && { blksize }),
    ...(asked.timeout !== undefined && { timeout: asked.timeout }),
    ...(asked.tsize !== undefined && tsize !== undefined && { tsize }),
    ...(asked.windowsize !== undefined && {
      windowsize: Math.min(asked.windowsize, limits.windowsizeMax, windowBlocksMax),
    }),
    ...(limits.offset && asked.offset !== undefined && { offset: asked.offset }),
  };
  const oack: OptionPair[] = [];
  const answered = new Set<string>();
  for (const [spelling] of pairs) {
    const name = findName(spelling);
    const value = name === undefined ? undefined : granted[name];
    if (name === undefined || value === undefined || answered.has(name)) continue;
    answered.add(name);
    oack.push([spelling, String(value)]);
  }
  return { granted, oack };
}

/**
 * Checks an OACK against what was asked: nothing else, nothing more, nothing invalid (RFC 2347, 2348, 2349, 7440).
 *
 * @param pairs - of the OACK; none when the server passed the options over
 */
export function checkOack(pairs: readonly OptionPair[], asked: Options): Options | RefusedOack {
  const granted: Partial<Record<keyof Options, number>> = {};
  for (const [spelling, text] of pairs) {
    const name = findName(spelling);
    const wanted = name === undefined ? undefined : asked[name];
    if (name === undefined || wanted === undefined) return { refused: `option ${quote(spelling)} was not asked` };
    const value = parseValue(name, text);
    if (value === undefined) return { refused: `option ${name} has the value ${quote(text)}` };
    if ((name === 'blksize' || name === 'windowsize') && value > wanted) {
      return { refused: `option ${name} is ${value}, more than the ${wanted} asked` };
    }
    if ((name === 'timeout' || name === 'offset') && value !== wanted) {
      return { refused: `option ${name} is ${value}, not the ${wanted} asked` };
    }
    granted[name] = value;
  }
  // The others are a lesser service when they are left out; a write to another place is not.
  if (asked.offset !== undefined && granted.offset === undefined) {
    return { refused: `option offset=${asked.offset} was not granted` };
  }
  return granted;
}

function findName(spelling: string): keyof Options | undefined {
  const name = spelling.toLowerCase();
  return isOptionName(name) ? name : undefined;
}

function isOptionName(name: string): name is keyof Options {
  return Object.hasOwn(RANGES, name);
}

/** Decimal digits within the range of the option, else nothing. 15 digits are below 2^53. */
function parseValue(name: keyof Options, text: string): number | undefined {
  if (!/^[0-9]{1,15}$/.test(text)) return undefined;
  const value = Number(text);
  const [min, max] = RANGES[name];
  return value >= min && value <= max ? value : undefined;
}

function quote(text: string): string {
  return JSON.stringify(text.slice(0, 40));
}
