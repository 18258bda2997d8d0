/**
 * The duties of TFTP, clause by clause, of the pure core with a virtual clock. The same clauses against the running server:
 * `test/system/tftp-duties*.test.ts`; what only sockets and files can show (TIDs, names, links, disk) is there alone.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { PLAIN_READER, contentOf, createWire, runLink } from './_link.ts';
import type { Effect, Opening, StepFunction, TransferInput, TransferState } from './exchange.ts';
import { RefusedError } from './error.ts';
import { parseName } from './folder.ts';
import { decodeNetascii, encodeNetascii, finishNetascii } from './netascii.ts';
import { type GrantLimits, type Options, checkOack, formatOptions, grantOptions } from './options.ts';
import { type OptionPair, type Packet, decodePacket, encodeError, encodeRequest } from './packet.ts';
import { type ReceiverState, createReceiver, stepReceiver } from './receiver.ts';
import { type SenderState, createSender, stepSender } from './sender.ts';

const LIMITS: GrantLimits = {
  blksizeMax: 65464,
  windowsizeMax: 64,
  windowBytesMax: 128 * 1024,
  tsize: 1000,
  offset: false,
};
/** A round trip of the scripted peer. */
const RTT_MS = 5;

/** A sender or receiver, and a clock that only the test moves. */
class Bench<State extends TransferState> {
  state: State;
  nowMs = 0;
  readonly #step: StepFunction<State>;

  constructor(state: State, step: StepFunction<State>) {
    this.state = state;
    this.#step = step;
  }

  /** What it does, in words: `DATA 1 2 3`, `ACK 4`, `ERROR 8`. */
  feed(input: TransferInput): string[] {
    const { state, effects } = this.#step(this.state, input);
    this.state = state;
    return effects.map(describeEffect);
  }

  start(): string[] {
    return this.feed({ kind: 'start', nowMs: this.nowMs });
  }

  /** A packet, so much later. */
  take(packet: Packet, afterMs = RTT_MS): string[] {
    return this.feed({ kind: 'packet', packet, nowMs: (this.nowMs += afterMs) });
  }

  ack(block: number, afterMs?: number): string[] {
    return this.take({ kind: 'ack', block }, afterMs);
  }

  data(block: number, length: number, afterMs?: number): string[] {
    return this.take({ kind: 'data', block, data: new Uint8Array(length) }, afterMs);
  }

  /** Waits for what it does next by itself. */
  wait(): string[] {
    this.nowMs = Math.max(this.nowMs, this.state.deadlineMs);
    return this.feed({ kind: 'tick', nowMs: this.nowMs });
  }

  committed(): string[] {
    return this.feed({ kind: 'committed', nowMs: this.nowMs });
  }
}

function describeEffect(effect: Effect): string {
  switch (effect.kind) {
    case 'send-data':
      return `DATA ${Array.from({ length: effect.count }, (_, index) => effect.first + index).join(' ')}`;
    case 'send-ack':
      return `ACK ${effect.block}`;
    case 'send-error':
      return `ERROR ${effect.code}`;
    case 'send-oack':
      return `OACK ${effect.options.map((pair) => pair.join('=')).join(' ')}`;
    case 'deliver':
      return `deliver ${effect.data.length}`;
    case 'send-request':
    case 'commit':
    default:
      return effect.kind;
  }
}

function openingOf(granted: Options): Opening {
  const options = formatOptions(granted);
  return options.length > 0 ? { kind: 'oack', options } : { kind: 'plain' };
}

/** A server's read that has begun: with options, ACK 0 has come. */
function reading(
  size: number,
  granted: Options = {},
): { readonly bench: Bench<SenderState>; readonly first: string[] } {
  const opening = openingOf(granted);
  const bench = new Bench(createSender({ opening, granted, size }), stepSender);
  const started = bench.start();
  return { bench, first: opening.kind === 'plain' ? started : bench.ack(0) };
}

/** A server's write that has begun. */
function writing(granted: Options = {}, bytesMax = 1_000_000): Bench<ReceiverState> {
  const limits = { bytesMax, checkSize: true, dallyMs: 3000 };
  const bench = new Bench(createReceiver({ opening: openingOf(granted), granted, ...limits }), stepReceiver);
  bench.start();
  return bench;
}

/** A client that has asked. */
function asking(asked: Options): Bench<ReceiverState> {
  const opening: Opening = { kind: 'request', asked };
  const limits = { bytesMax: 1_000_000, checkSize: true, dallyMs: 500 };
  const bench = new Bench(createReceiver({ opening, granted: {}, ...limits }), stepReceiver);
  assert.deepEqual(bench.start(), ['send-request']);
  return bench;
}

const error = (code: number): Packet => ({ kind: 'error', code, message: 'no' });
const oack = (...options: OptionPair[]): Packet => ({ kind: 'oack', options });

describe('1350 §2 §6', () => {
  test('every size, also multiples of blksize (empty last DATA)', () => {
    for (const blksize of [8, 512, 1468]) {
      for (const size of [0, 1, blksize - 1, blksize, blksize + 1, 2 * blksize - 1, 2 * blksize, 5 * blksize]) {
        for (const direction of ['read', 'write'] as const) {
          const wire = createWire({ delayMs: 1 }, 1);
          const outcome = runLink({ direction, size, asked: { blksize }, wire });
          assert.ok(outcome.isWhole, `${direction} of ${size} bytes in blocks of ${blksize}`);
          assert.equal(outcome.dataSent, Math.floor(size / blksize) + 1);
        }
      }
    }
  });

  test('an ACK of a block not yet sent never skips data', () => {
    const { bench } = reading(5000);
    for (const block of [2, 3, 100, 32_769, 65_535]) assert.deepEqual(bench.ack(block, 0), []);
    assert.deepEqual(bench.ack(1), ['DATA 2']);
    const window = reading(50_000, { windowsize: 4 }).bench;
    assert.deepEqual(window.ack(5), []);
    assert.equal(window.state.blocks, 0);
  });
});

describe('1350 §4', () => {
  test('a foreign TID is told ERROR 5; packets from it are for whoever holds the socket, and never come here', () => {
    assert.deepEqual(decodePacket(encodeError(5, 'unknown TID')), { kind: 'error', code: 5, message: 'unknown TID' });
  });

  test('a packet that belongs to another transfer never reaches the file', () => {
    const bench = writing();
    for (const block of [0, 2, 7, 65_535]) assert.deepEqual(bench.data(block, 512), []);
    assert.equal(bench.state.bytes, 0);
  });
});

describe('1350 §5, §7', () => {
  test('an ERROR is NUL-terminated, also where its text is long', () => {
    for (const text of ['', 'file not found', 'x'.repeat(1000)]) assert.equal(encodeError(1, text).at(-1), 0);
  });

  test('mode in any case', () => {
    for (const mode of ['octet', 'OCTET', 'NetAscii', 'Mail']) {
      const packet = decodePacket(Buffer.from(`\0\x01f\0${mode}\0`));
      assert.equal(packet.kind === 'request' && packet.mode, mode.toLowerCase());
    }
    const other = decodePacket(Buffer.from('\0\x01f\0image\0'));
    assert.equal(other.kind === 'request' && other.mode, undefined);
  });

  test('an ERROR is never answered; one from the peer ends the transfer at once', () => {
    const benches = [reading(5000).bench, reading(5000, { windowsize: 4 }).bench, writing(), asking({ blksize: 8 })];
    for (const bench of benches) {
      assert.deepEqual(bench.take(error(3)), []);
      assert.deepEqual(bench.state.failure, { code: 3, message: 'no', from: 'peer' });
      assert.equal(bench.state.deadlineMs, Infinity);
      assert.deepEqual(bench.ack(1), []);
      assert.deepEqual(bench.data(1, 512), []);
    }
  });
});

describe('1350 §6 dally', () => {
  test('the last ACK is repeated for a repeated last DATA', () => {
    const bench = writing();
    assert.deepEqual(bench.data(1, 10), ['deliver 10', 'commit']);
    assert.deepEqual(bench.committed(), ['ACK 1']);
    for (const afterMs of [0, 1, 1000]) assert.deepEqual(bench.data(1, 10, afterMs), ['ACK 1']);
    assert.deepEqual(bench.wait(), []);
    assert.equal(bench.state.phase, 'done');
    assert.deepEqual(bench.data(1, 10), []);
  });
});

describe('1123 §4.2', () => {
  test('netascii both ways, pairs across block borders', () => {
    const text = Buffer.from('a\nb\rc\r\n\r');
    const wire = encodeNetascii(text);
    assert.equal(Buffer.from(wire).toString(), 'a\r\nb\r\0c\r\0\r\n\r\0');
    const parts: Uint8Array[] = [];
    let pendingCr = false;
    for (const byte of wire) {
      const decoded = decodeNetascii(Uint8Array.of(byte), pendingCr);
      parts.push(decoded.bytes);
      pendingCr = decoded.pendingCr;
    }
    assert.deepEqual(Buffer.concat([...parts, finishNetascii(pendingCr)]), text);
  });

  test('a duplicate ACK never re-sends DATA', () => {
    const { bench } = reading(5000);
    assert.deepEqual(bench.ack(1), ['DATA 2']);
    for (const afterMs of [0, 1, 5, 20]) assert.deepEqual(bench.ack(1, afterMs), []);
    assert.deepEqual(bench.ack(2, 0), ['DATA 3']);
  });

  test('adaptive timeout: 1 s before anything is known, then by the round trips', () => {
    const { bench } = reading(50_000);
    assert.equal(bench.state.deadlineMs - bench.nowMs, 1000);
    for (let block = 1; block < 20; block += 1) bench.ack(block, 40);
    const waitMs = bench.state.deadlineMs - bench.nowMs;
    assert.ok(waitMs > 45 && waitMs < 100, `${waitMs} ms at a round trip of 40 ms`);
  });

  test('adaptive timeout: each wait without progress doubles; 8 tries and 30 s at most', () => {
    const { bench } = reading(50_000);
    bench.ack(1);
    let sends = 1;
    let lastMs = bench.nowMs;
    const waits: number[] = [];
    while (bench.state.phase === 'data') {
      if (bench.wait().includes('DATA 2')) sends += 1;
      waits.push(bench.nowMs - lastMs);
      lastMs = bench.nowMs;
    }
    assert.equal(sends, 8);
    for (const [index, wait] of waits.entries()) if (index > 0) assert.ok(wait >= 2 * (waits[index - 1] ?? 0));
    assert.ok(lastMs <= 30_000, `${lastMs} ms`);
    assert.match(bench.state.failure?.message ?? '', /no ACK of block 2 after 8 tries/);
  });
});

describe('2347', () => {
  test('unknown options left out, no OACK if none is left; names in any case', () => {
    const grant = (...pairs: OptionPair[]): readonly OptionPair[] => grantOptions(pairs, LIMITS).oack;
    assert.deepEqual(grant(['multicast', ''], ['BlkSize', '1024']), [['BlkSize', '1024']]);
    assert.deepEqual(grant(['multicast', ''], ['x', '1']), []);
  });

  test('OACK holds only what was asked, and a client refuses another with ERROR 8', () => {
    assert.deepEqual(grantOptions([['timeout', '2']], LIMITS).oack, [['timeout', '2']]);
    for (const pair of [
      ['tsize', '5'],
      ['blksize', '1469'],
      ['blksize', '7'],
      ['windowsize', 'x'],
    ] as const) {
      assert.deepEqual(asking({ blksize: 1468, windowsize: 4 }).take(oack(pair)), ['ERROR 8']);
    }
  });

  test('DATA 1 after ACK 0', () => {
    const bench = new Bench(
      createSender({ opening: openingOf({ blksize: 8 }), granted: { blksize: 8 }, size: 20 }),
      stepSender,
    );
    assert.deepEqual(bench.start(), ['OACK blksize=8']);
    assert.deepEqual(bench.ack(1), []);
    assert.deepEqual(bench.ack(0), ['DATA 1']);
  });

  test('OACK repeated, twice, and then silence', () => {
    const bench = new Bench(
      createSender({ opening: openingOf({ blksize: 8 }), granted: { blksize: 8 }, size: 20 }),
      stepSender,
    );
    bench.start();
    assert.deepEqual(bench.wait(), ['OACK blksize=8']);
    assert.deepEqual(bench.wait(), ['OACK blksize=8']);
    assert.deepEqual(bench.wait(), []);
    assert.equal(bench.state.phase, 'failed');
  });

  test('a client repeats ACK 0 for a repeated OACK', () => {
    const bench = asking({ blksize: 8 });
    assert.deepEqual(bench.take(oack(['blksize', '8'])), ['ACK 0']);
    assert.deepEqual(bench.take(oack(['blksize', '8'])), ['ACK 0']);
  });

  test('ERROR 8 ends it (UEFI size probe)', () => {
    const bench = new Bench(createSender({ opening: openingOf({ tsize: 20 }), granted: {}, size: 20 }), stepSender);
    bench.start();
    assert.deepEqual(bench.take(error(8)), []);
    assert.equal(bench.state.phase, 'failed');
  });

  test('a server that passes the options over is taken as it is', () => {
    const bench = asking({ blksize: 1468, windowsize: 32 });
    assert.deepEqual(bench.data(1, 512), ['deliver 512', 'ACK 1']);
    assert.deepEqual([bench.state.blksize, bench.state.windowsize], [512, 1]);
  });
});

describe('2348', () => {
  const grant = (blksize: string): Options =>
    grantOptions([['blksize', blksize]], { ...LIMITS, blksizeMax: 9000 }).granted;

  test('8…65464 granted or lowered', () => {
    assert.deepEqual(
      [grant('8'), grant('9000'), grant('65464')],
      [{ blksize: 8 }, { blksize: 9000 }, { blksize: 9000 }],
    );
  });

  test('invalid values never granted', () => {
    for (const value of ['7', '0', '65465', '-8', '8.5', '0x200', '', ' 512', '99999999999999999999']) {
      assert.deepEqual(grant(value), {}, value);
    }
  });
});

describe('2349', () => {
  test('tsize exact, also past 4 GiB', () => {
    const { granted, oack: pairs } = grantOptions([['tsize', '0']], { ...LIMITS, tsize: 5 * 2 ** 30 });
    assert.deepEqual([granted.tsize, pairs], [5 * 2 ** 30, [['tsize', '5368709120']]]);
    assert.deepEqual(checkOack(pairs, { tsize: 0 }), { tsize: 5 * 2 ** 30 });
  });

  test('timeout 1…255 echoed and used', () => {
    for (const value of ['1', '255']) {
      assert.deepEqual(grantOptions([['timeout', value]], LIMITS).oack, [['timeout', value]]);
    }
    for (const value of ['0', '256']) assert.deepEqual(grantOptions([['timeout', value]], LIMITS).oack, []);
    const bench = new Bench(
      createSender({ opening: openingOf({ timeout: 3 }), granted: { timeout: 3 }, size: 20 }),
      stepSender,
    );
    bench.start();
    assert.equal(bench.state.deadlineMs, 3000);
  });

  test('more than was allowed → ERROR 3', () => {
    const bench = writing({}, 600);
    assert.deepEqual(bench.data(1, 512), ['deliver 512', 'ACK 1']);
    assert.deepEqual(bench.data(2, 100), ['ERROR 3']);
  });
});

describe('7440', () => {
  test('1…65535, granted ≤ asked', () => {
    const grant = (value: string): number | undefined =>
      grantOptions([['windowsize', value]], LIMITS).granted.windowsize;
    assert.deepEqual(
      [grant('1'), grant('4'), grant('65535'), grant('0'), grant('65536')],
      [1, 4, 64, undefined, undefined],
    );
  });

  test('exactly N blocks, then wait', () => {
    const { bench, first } = reading(50_000, { windowsize: 4 });
    assert.deepEqual(first, ['DATA 1 2 3 4']);
    assert.deepEqual(bench.ack(4), ['DATA 5 6 7 8']);
    assert.ok(bench.state.deadlineMs > bench.nowMs);
  });

  test('an ACK inside the window moves its start', () => {
    const { bench } = reading(50_000, { windowsize: 4 });
    // Unless more ACKs follow at once: then it is no gap.
    assert.deepEqual(bench.ack(2), []);
    assert.deepEqual(bench.wait(), ['DATA 3 4 5 6']);
    assert.deepEqual(bench.ack(3), []);
    assert.deepEqual(bench.ack(6, 0), ['DATA 7 8 9 10']);
  });

  test('an ACK inside a window that has just been sent brings only what is new in it', () => {
    const { bench } = reading(50_000, { windowsize: 4 });
    bench.ack(4);
    assert.deepEqual(bench.ack(5, 1), ['DATA 9']);
    assert.deepEqual(bench.ack(9), ['DATA 10 11 12 13']);
  });

  test('copies of one ACK do not multiply traffic', () => {
    const { bench } = reading(500_000, { windowsize: 4 });
    let sent = 0;
    for (let window = 1; window <= 20; window += 1) {
      for (let copy = 0; copy < 5; copy += 1) sent += bench.ack(4 * window, copy === 0 ? RTT_MS : 0.1).length;
    }
    assert.equal(sent, 20);
  });

  test('upload: one ACK per window, on a gap ACK the last in-order block', () => {
    const bench = writing({ windowsize: 4 });
    assert.deepEqual(
      [1, 2, 3, 4].map((block) => bench.data(block, 512, 1)),
      [['deliver 512'], ['deliver 512'], ['deliver 512'], ['deliver 512', 'ACK 4']],
    );
    bench.data(5, 512, 5);
    assert.deepEqual(
      [7, 8].map((block) => bench.data(block, 512, 0)),
      [[], []],
    );
    assert.deepEqual(bench.wait(), ['ACK 5']);
  });

  test('upload: a window of which everything is doubled is answered by one ACK, too', () => {
    const wire = createWire({ delayMs: 10, doubled: 1 }, 1);
    const asked = { blksize: 16, windowsize: 4 };
    const { acksSent, isWhole } = runLink({ direction: 'write', size: 16 * 40, asked, wire });
    assert.ok(isWhole);
    // 10 windows, the empty block, and the answers to the copies of the first window's and the last block.
    assert.ok(acksSent <= 13, `${acksSent} ACKs`);
  });

  test('upload: blocks behind a gap are kept, and delivered in order once it is filled', () => {
    const bench = writing({ windowsize: 4 });
    for (const block of [2, 3, 4]) bench.data(block, 512, 0);
    assert.deepEqual(bench.data(1, 512, 0).slice(0, 4), ['deliver 512', 'deliver 512', 'deliver 512', 'deliver 512']);
  });

  test('upload: what is kept behind a gap is bounded, however large the window', () => {
    const bench = writing({ windowsize: 65_535 });
    for (let block = 2; block < 2000; block += 1) bench.data(block, 512, 0);
    assert.equal(bench.state.early.size, 256);
    const effects = bench.data(1, 512, 0);
    assert.equal(effects.length, 257);
    assert.equal(bench.state.blocks, 257);
  });

  test('retries bounded', () => {
    const { bench } = reading(50_000, { windowsize: 4 });
    let windows = 1;
    while (bench.state.phase === 'data') windows += bench.wait().filter((effect) => effect.startsWith('DATA')).length;
    assert.equal(windows, 8);
  });
});

describe('practice', () => {
  test('rollover 65535 → 0, in lock-step and inside a window', () => {
    for (const windowsize of [1, 7]) {
      const asked = { blksize: 8, windowsize };
      const outcome = runLink({ direction: 'read', size: 8 * 65_540, asked, wire: createWire({ delayMs: 0 }, 1) });
      assert.ok(outcome.isWhole);
    }
  });

  test('40 MiB without options', () => {
    const size = 40 * 1024 * 1024;
    const wire = createWire({ delayMs: 0 }, 1);
    const outcome = runLink({ direction: 'read', size, asked: {}, client: PLAIN_READER, wire });
    assert.ok(outcome.isWhole);
    assert.equal(contentOf(size).length, size);
  });

  test('the quirks of firmware: 0xFF behind a name, zeros behind the options, an ERROR without its NUL', () => {
    const name = decodePacket(Buffer.from('\0\x01boot.efi\xff\0octet\0', 'latin1'));
    assert.equal(name.kind === 'request' && name.name, 'boot.efi');
    const padded = decodePacket(Buffer.from('\0\x01f\0octet\0blksize\x001468\0\0\0\0\0', 'latin1'));
    assert.deepEqual(padded.kind === 'request' && padded.options, [['blksize', '1468']]);
    const aborted = decodePacket(Buffer.from('\0\x05\0\0TFTP Aborted', 'latin1'));
    assert.equal(aborted.kind === 'error' && aborted.message, 'TFTP Aborted');
  });

  test('a client that ACKs every block of a window gets no DATA twice', () => {
    const { bench } = reading(500_000, { windowsize: 4 });
    const sent: string[] = [];
    for (let block = 1; block <= 40; block += 1) sent.push(...bench.ack(block, block % 4 === 1 ? RTT_MS : 0.1));
    assert.equal(sent.length, 10);
  });
});

describe('security', () => {
  test('no "..", absolute, encoded or backslash way out', () => {
    for (const name of ['../x', 'a/../../x', '..\\x', 'a\\..\\..\\x', '/../x'])
      assert.throws(() => parseName(name), RefusedError);
    assert.deepEqual(parseName('/etc/passwd'), ['etc', 'passwd']);
    assert.deepEqual(parseName('%2e%2e/x'), ['%2e%2e', 'x']);
    const overlong = decodePacket(Buffer.from('\0\x01..\xc0\xafx\0octet\0', 'latin1'));
    assert.equal(overlong.kind, 'malformed');
  });

  test('an address that has not answered gets one packet and two repeats', () => {
    for (const granted of [{}, { blksize: 100 }] as const) {
      const opening = openingOf(granted);
      const limits = { bytesMax: 10_000, checkSize: true, dallyMs: 3000 };
      for (const bench of [
        new Bench(createSender({ opening, granted, size: 10_000 }), stepSender),
        new Bench(createReceiver({ opening, granted, ...limits }), stepReceiver),
      ]) {
        let packets = bench.start().length;
        while (bench.state.deadlineMs < Infinity) packets += bench.wait().length;
        assert.equal(packets, 3);
      }
    }
  });

  test('every handler total over all byte strings', () => {
    // Of length 0 to 3, all of them that differ to the decoder; longer ones are fuzzed (`fuzz.test.ts`).
    for (let opcode = 0; opcode < 65_536; opcode += 1) {
      for (const rest of [[], [0], [255], [0, 0], [0, 1]])
        decodePacket(Uint8Array.of(opcode >> 8, opcode & 255, ...rest));
    }
    for (const bytes of [[], [0], [255]]) assert.equal(decodePacket(Uint8Array.from(bytes)).kind, 'malformed');
    assert.throws(() => encodeRequest({ direction: 'read', name: 'a\0b', mode: 'octet', options: [] }), RangeError);
  });
});

describe('product', () => {
  test('a finished upload is complete and in place before its last ACK is sent', () => {
    const bench = writing({ windowsize: 4 });
    assert.deepEqual(bench.data(1, 100), ['deliver 100', 'commit']);
    // Meanwhile nothing is ACKed, and nothing is added.
    for (const block of [1, 2]) assert.deepEqual(bench.data(block, 100), []);
    assert.deepEqual(bench.committed(), ['ACK 1']);
  });

  test('an upload that cannot be put in place gets ERROR, not the last ACK', () => {
    const bench = writing();
    bench.data(1, 100);
    const stop = { kind: 'stop', code: 3, message: 'disk full', nowMs: bench.nowMs } as const;
    assert.deepEqual(bench.feed(stop), ['ERROR 3']);
  });

  test('never a short success: fewer bytes than tsize are a failure', () => {
    const bench = asking({ tsize: 0 });
    bench.take(oack(['tsize', '1000']));
    bench.data(1, 512);
    assert.deepEqual(bench.data(2, 100), ['ERROR 0']);
    assert.match(bench.state.failure?.message ?? '', /only 612 of the 1000 bytes announced/);
  });
});
