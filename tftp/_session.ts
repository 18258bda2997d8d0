/**
 * A whole transfer between our two ends over a link on which chosen things go wrong, and what must hold all the same. The
 * plan is a plain value: printed, it is what one needs to run it again, and it shrinks by leaving faults out.
 */
import assert from 'node:assert/strict';

import { type Arrival, type LinkOutcome, type Wire, runLink } from './_link.ts';
import type { Options } from './options.ts';
import { OPCODE, encodeAck, encodeData, encodeError, encodeOack } from './packet.ts';

/** What happens to one packet. */
export type Fault =
  | 'pass'
  | 'lose'
  | 'double'
  /** arrives so many ms after those sent with it */
  | { readonly late: number }
  /** only so many bytes arrive */
  | { readonly cut: number }
  /** arrives, and behind it something that the other end never sent */
  | { readonly stray: Stray };

export type Stray =
  | 'garbage'
  | 'short'
  | 'error'
  | 'unasked-oack'
  | 'old-ack'
  | 'future-ack'
  | 'old-data'
  | 'future-data'
  | 'oversized-data'
  | 'request';

export const STRAYS: readonly Stray[] = [
  'garbage',
  'short',
  'error',
  'unasked-oack',
  'old-ack',
  'future-ack',
  'old-data',
  'future-data',
  'oversized-data',
  'request',
];

export interface SessionPlan {
  readonly direction: 'read' | 'write';
  readonly size: number;
  readonly asked: Options;
  readonly delayMs: number;
  /** of the n-th packet that either end sends; the rest passes */
  readonly faults: readonly Fault[];
}

/** Sessions are of windows up to this. */
const SESSION_WINDOWSIZE_MAX = 32;
/** Farther from the true block number than any window of a session, and than any file of one is long. */
const FAR = 20_000;
const DATA_HEADER_BYTES = 4;

/**
 * Runs the plan, and checks: what arrives is whole, or the transfer has failed with a reason; both ends come to an end; packets
 * and time are bounded.
 *
 * @throws {AssertionError} when it does not hold
 */
export function checkSession(plan: SessionPlan): LinkOutcome {
  const { direction, size, asked } = plan;
  const tsize = asked.tsize === undefined || direction === 'read' ? asked.tsize : size;
  const outcome = runLink({
    direction,
    size,
    asked: { ...asked, ...(tsize !== undefined && { tsize }) },
    wire: createFaultyWire(plan),
    windowsizeMax: SESSION_WINDOWSIZE_MAX,
  });
  const { client, server } = outcome;
  const [sender, receiver] = direction === 'read' ? [server, client] : [client, server];
  // A DATA cut short is the last one, for all that the protocol knows, unless the size was told.
  const isCut = plan.faults.some((fault) => typeof fault === 'object' && 'cut' in fault);
  const canTell = !isCut || receiver.granted.tsize !== undefined;
  if (receiver.phase === 'done' && canTell)
    assert.ok(outcome.isWhole, 'the receiver is content, and the file is not whole');
  if (sender.phase === 'done' && canTell)
    assert.ok(outcome.isWhole, 'the sender is content, and the file is not whole');
  for (const end of [client, server]) {
    assert.ok(end.phase === 'done' || end.phase === 'failed', `the ${end.name} is still in ${end.phase}`);
    assert.equal(end.phase === 'failed', (end.failure?.message ?? '') !== '' || end.failure !== undefined);
  }
  if (plan.faults.every((fault) => fault === 'pass' || fault === 'double')) {
    assert.ok(outcome.isWhole, 'nothing was lost, and the file is not whole');
  }
  // A request cut short may have lost its options.
  const blocks = Math.floor(size / Math.min(asked.blksize ?? 512, 512)) + 1;
  const window = asked.windowsize ?? 1;
  const bound = 60 + 4 * blocks + plan.faults.length * (3 * window + 4);
  assert.ok(outcome.packetsSent <= bound, `${outcome.packetsSent} packets, more than ${bound}`);
  // Each end gives up 30 s after the last progress, and each fault can delay one.
  const boundMs = 60_000 + blocks * 4 * plan.delayMs + plan.faults.length * 2000;
  assert.ok(outcome.timeMs <= boundMs, `${outcome.timeMs} ms, more than ${boundMs}`);
  return outcome;
}

function createFaultyWire(plan: SessionPlan): Wire {
  let count = 0;
  return (bytes) => {
    const fault = plan.faults[count] ?? 'pass';
    count += 1;
    const arrival: Arrival = { afterMs: plan.delayMs, bytes };
    if (fault === 'pass') return [arrival];
    if (fault === 'lose') return [];
    if (fault === 'double') return [arrival, arrival];
    if ('late' in fault) return [{ afterMs: plan.delayMs + fault.late, bytes }];
    if ('cut' in fault) {
      // An OACK cut behind an option is another OACK, and the ends would disagree: that is for the checksum of UDP.
      const length = bytes[1] === OPCODE.oack ? Math.min(fault.cut, 3) : fault.cut;
      return [{ afterMs: plan.delayMs, bytes: bytes.subarray(0, length) }];
    }
    return [arrival, { afterMs: plan.delayMs, bytes: createStray(fault.stray, bytes, plan) }];
  };
}

/** Something that was never sent; it names blocks far from the truth, for a forged true one is the truth to the protocol. */
function createStray(stray: Stray, bytes: Uint8Array, plan: SessionPlan): Uint8Array {
  const block = ((bytes[2] ?? 0) << 8) | (bytes[3] ?? 0);
  const data = new Uint8Array(plan.asked.blksize ?? 512).fill(0xee);
  switch (stray) {
    case 'garbage':
      return bytes.map((byte, index) => (index === 1 ? 7 + (byte & 0x7f) : byte ^ 0x5a));
    case 'short':
      return bytes.subarray(0, block % DATA_HEADER_BYTES);
    case 'error':
      return encodeError(block % 9, 'stray');
    case 'unasked-oack':
      return encodeOack([['unasked', '1']]);
    case 'old-ack':
      return encodeAck((block - FAR) & 0xffff);
    case 'future-ack':
      return encodeAck((block + FAR) & 0xffff);
    case 'old-data':
      return encodeData((block - FAR) & 0xffff, data);
    case 'future-data':
      return encodeData((block + FAR) & 0xffff, data);
    case 'oversized-data':
      return encodeData((block + 1) & 0xffff, new Uint8Array(data.length + 1));
    case 'request':
    default:
      return Uint8Array.of(0, 1, 120, 0, 111, 99, 116, 101, 116, 0);
  }
}
