/**
 * How an image is packed: what packs tighter is on the host sooner, and takes longer to read. Which is quicker in all depends
 * on the wire that hosts boot over, so that is what one says (`image build --wire`, `image.bootsOver`).
 *
 * ```
 *   cost of a byte = packed size / what the wire carries + instructions to unpack it / what a host executes
 * ```
 *
 * For every byte of the root and of Node, as it is before packing. Measured: docs/decisions/016.
 */
import type { Compression } from '../host/squashfs.ts';
import type { Wire } from '../properties/image.ts';

/** How the two large parts of an image are packed. */
export interface Encoding {
  readonly root: Compression;
  readonly node: Compression;
}

/** A way to pack, as it was measured for one part. */
interface Candidate {
  readonly compression: Compression;
  /** Packed size by size. */
  readonly ratio: number;
  /** Instructions to multi-user by size, above those of lz4: of what a boot reads, and that is not all. */
  readonly instructions: number;
}

/** Both take all the CPU that they can use: half a minute for the root, whenever packages change. */
const CANDIDATES: Readonly<Record<keyof Encoding, readonly [Candidate, Candidate]>> = {
  root: [
    { compression: 'lz4hc', ratio: 0.45, instructions: 0 },
    { compression: 'zstd-19', ratio: 0.3, instructions: 14.7 },
  ],
  node: [
    { compression: 'lz4hc', ratio: 0.43, instructions: 0 },
    { compression: 'zstd-19', ratio: 0.29, instructions: 7 },
  ],
};

/**
 * When nobody says what the wire is: packed at once. Only lz4 is quicker to pack (0.3 s of CPU instead of 0.6 for 94 MB), and
 * a third larger. Node is packed once and kept, so it may take its time.
 */
const UNKNOWN: Encoding = { root: 'zstd-3', node: 'lz4hc' };

const BITS_PER_SECOND: Readonly<Record<Wire, number>> = { '100M': 100e6, '1G': 1e9, '10G': 10e9 };

/** Of what a wire can, Ethernet, IP and TCP leave this much. */
const GOODPUT = 0.94;

/** A core of a host, in a second: 3 GHz and some, not quite two at a time. */
const INSTRUCTIONS_PER_SECOND = 5e9;

/** Chooses what a host is up the soonest with. */
export function chooseEncoding(wire: Wire | undefined): Encoding {
  if (wire === undefined) return UNKNOWN;
  return { root: rank('root', wire)[0].compression, node: rank('node', wire)[0].compression };
}

/** What was chosen and why, a line for each part. */
export function describeEncoding(wire: Wire | undefined): string[] {
  if (wire === undefined) {
    return [`Root packed with ${UNKNOWN.root}, Node with ${UNKNOWN.node}: for no wire in particular (--wire)`];
  }
  return (['root', 'node'] as const).map((part) => {
    const [best, other] = rank(part, wire);
    const name = part === 'root' ? 'Root' : 'Node';
    const cost = (each: Ranked): string => `${(each.seconds * 1e11).toFixed(0)} ms`;
    return (
      `${name} packed with ${best.compression}: 100 MB of it over ${wire}, and to read, take a host ${cost(best)}; ` +
      `with ${other.compression} ${cost(other)}`
    );
  });
}

interface Ranked extends Candidate {
  /** That a byte costs. */
  readonly seconds: number;
}

/** The better one first. */
function rank(part: keyof Encoding, wire: Wire): readonly [Ranked, Ranked] {
  const [a, b] = [ranked(CANDIDATES[part][0], wire), ranked(CANDIDATES[part][1], wire)];
  return b.seconds < a.seconds ? [b, a] : [a, b];
}

function ranked(candidate: Candidate, wire: Wire): Ranked {
  const onWire = (candidate.ratio * 8) / (BITS_PER_SECOND[wire] * GOODPUT);
  return { ...candidate, seconds: onWire + candidate.instructions / INSTRUCTIONS_PER_SECOND };
}
