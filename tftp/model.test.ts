/**
 * Sender against receiver over a link in virtual time, on which things go wrong (`_link.ts`, `_session.ts`). Seeded: a failure
 * prints its seed and the plan, shrunk to the faults that matter, and `checkSession(plan)` repeats it.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import * as fc from 'fast-check';

import { type EndName, type LinkFigures, type LinkOptions, createWire, runLink } from './_link.ts';
import { type Fault, type SessionPlan, STRAYS, checkSession } from './_session.ts';
import type { Opening, Step, TransferInput, TransferState } from './exchange.ts';
import { grantOptions } from './options.ts';
import { type Packet, decodePacket } from './packet.ts';
import { createReceiver, stepReceiver } from './receiver.ts';
import { createSender, stepSender } from './sender.ts';

const LIMITS = { blksizeMax: 65464, windowsizeMax: 64, windowBytesMax: 128 * 1024, offset: false } as const;
const PERFECT: LinkFigures = { delayMs: 10 };
/** Fresh ones find more over time; a failure prints them. */
const SEED = Date.now() & 0x7fffffff;

/** A transfer over a link of these figures; `drop` loses packets by hand, on top. */
function run(
  options: Omit<LinkOptions, 'wire'> & {
    readonly wire?: LinkFigures;
    readonly seed?: number;
    readonly drop?: (packet: Packet, from: EndName) => boolean;
  },
): ReturnType<typeof runLink> {
  const wire = createWire(options.wire ?? PERFECT, options.seed ?? 1);
  return runLink({
    ...options,
    wire: (bytes, from, nowMs) => (options.drop?.(decodePacket(bytes), from) === true ? [] : wire(bytes, from, nowMs)),
  });
}

const fault: fc.Arbitrary<Fault> = fc.oneof(
  { weight: 6, arbitrary: fc.constant('pass' as const) },
  { weight: 3, arbitrary: fc.constant('lose' as const) },
  fc.constant('double' as const),
  fc.record({ late: fc.constantFrom(1, 5, 30, 400, 3000) }),
  fc.record({ cut: fc.integer({ min: 0, max: 40 }) }),
  fc.record({ stray: fc.constantFrom(...STRAYS) }),
);

const blksize = fc.constantFrom(8, 9, 64, 512, 1468);
const plan: fc.Arbitrary<SessionPlan> = fc
  .record({
    direction: fc.constantFrom('read' as const, 'write' as const),
    asked: fc.record(
      {
        blksize,
        windowsize: fc.constantFrom(1, 2, 3, 7, 16, 32),
        timeout: fc.constantFrom(1, 3),
        tsize: fc.constant(0),
      },
      { requiredKeys: [] },
    ),
    // In blocks, and bytes beside the border.
    blocks: fc.constantFrom(0, 1, 2, 3, 7, 16, 33, 64),
    beside: fc.constantFrom(-1, 0, 1),
    delayMs: fc.constantFrom(0.05, 1, 10, 150),
    faults: fc.array(fault, { maxLength: 60 }),
  })
  .map(({ blocks, beside, ...rest }) => ({
    ...rest,
    size: Math.max(0, blocks * (rest.asked.blksize ?? 512) + beside),
  }));

test('whatever goes wrong, the file arrives whole or the transfer fails with a reason, within bounds', () => {
  fc.assert(
    fc.property(plan, (session) => {
      checkSession(session);
    }),
    { numRuns: 1500, seed: SEED },
  );
});

test('whatever goes wrong at the rollover from 65535 to 0, too', () => {
  const rollover = fc.record({
    direction: fc.constantFrom('read' as const, 'write' as const),
    windowsize: fc.constantFrom(7, 32),
    faults: fc.array(fault, { maxLength: 40 }),
  });
  fc.assert(
    fc.property(rollover, ({ direction, windowsize, faults }) => {
      // The faults begin shortly before block 65536.
      const before = Math.floor(65_520 * (1 + 1 / windowsize)) + 3;
      const passed = Array.from({ length: before }, () => 'pass' as const);
      const asked = { blksize: 8, windowsize, tsize: 0 };
      checkSession({ direction, size: 8 * 65_600 + 3, asked, delayMs: 1, faults: [...passed, ...faults] });
    }),
    { numRuns: 4, seed: SEED },
  );
});

test('every size around the borders of a block goes through, both ways, with and without options', () => {
  for (const direction of ['read', 'write'] as const) {
    for (const asked of [{}, { tsize: 0 }, { blksize: 8 }, { blksize: 16, windowsize: 4 }, { windowsize: 64 }]) {
      const blksize = asked.blksize ?? 512;
      for (const size of [0, 1, blksize - 1, blksize, blksize + 1, 4 * blksize, 4 * blksize + 1, 9 * blksize]) {
        const name = JSON.stringify({ direction, asked, size });
        const outcome = run({ direction, size, asked });
        assert.ok(outcome.isWhole, name);
        assert.deepEqual([outcome.client.phase, outcome.server.phase], ['done', 'done'], name);
        assert.equal(outcome.dataSent, Math.floor(size / blksize) + 1, name);
        assert.equal(outcome.client.repeats + outcome.server.repeats, 0, name);
      }
    }
  }
});

test('block numbers roll over from 65535 to 0, in lock-step and inside a window', () => {
  for (const asked of [{ blksize: 8 }, { blksize: 8, windowsize: 7 }]) {
    const outcome = run({ direction: 'read', size: 8 * 65_540, asked, wire: { delayMs: 0 } });
    assert.ok(outcome.isWhole);
  }
});

test('a link that loses, doubles and reorders changes nothing but time', () => {
  const scenario = fc.record({
    direction: fc.constantFrom('read' as const, 'write' as const),
    size: fc.integer({ min: 0, max: 3000 }),
    asked: fc.record(
      {
        blksize: fc.constantFrom(8, 16, 100, 512),
        windowsize: fc.constantFrom(1, 2, 3, 8, 32),
        timeout: fc.constantFrom(1, 2),
      },
      { requiredKeys: [] },
    ),
    wire: fc.record({
      loss: fc.constantFrom(0, 0.01, 0.05, 0.15),
      doubled: fc.constantFrom(0, 0.2, 1),
      early: fc.constantFrom(0, 0.05),
      late: fc.constantFrom(0, 0.05, 0.3),
      delayMs: fc.constantFrom(0.1, 1, 10, 80),
    }),
    seed: fc.integer(),
  });
  fc.assert(
    fc.property(scenario, (options) => {
      const outcome = run(options);
      const receiver = options.direction === 'read' ? outcome.client : outcome.server;
      // With heavy loss, giving up is allowed; a wrong success is not.
      if (receiver.phase === 'done') assert.ok(outcome.isWhole);
      else assert.ok(receiver.phase === 'failed' && options.wire.loss > 0.01, receiver.failure?.message ?? '');
    }),
    { numRuns: 400, seed: SEED },
  );
});

test('lost first packets, OACK, ACK 0 and last ACK are made good', () => {
  const nth = (kind: Packet['kind'], from: EndName) => {
    let left = 1;
    return (packet: Packet, sender: EndName): boolean => packet.kind === kind && sender === from && (left -= 1) >= 0;
  };
  for (const direction of ['read', 'write'] as const) {
    for (const from of ['client', 'server'] as const) {
      for (const kind of ['request', 'oack', 'ack', 'data'] as const) {
        for (const asked of [{}, { blksize: 16 }, { blksize: 16, windowsize: 4 }]) {
          const outcome = run({ direction, size: 100, asked, drop: nth(kind, from) });
          const name = JSON.stringify({ direction, from, kind, asked });
          assert.ok(outcome.isWhole, name);
          assert.deepEqual([outcome.client.phase, outcome.server.phase], ['done', 'done'], name);
        }
      }
    }
  }
});

test('a server sends three packets at most to an address that does not answer, and then is silent', () => {
  for (const asked of [{}, { blksize: 100 }]) {
    let packets = 0;
    const outcome = run({
      direction: 'read',
      size: 10_000,
      asked,
      drop: (_packet, from) => from === 'server' && (packets += 1) > 0,
    });
    assert.equal(outcome.server.phase, 'failed');
    assert.equal(packets, 3);
  }
});

test('a peer that vanishes in the middle is given up after 8 tries, within 30 s', () => {
  const { granted, oack } = grantOptions([], { ...LIMITS, tsize: undefined });
  assert.deepEqual([granted, oack], [{}, []]);
  let state = createSender({ opening: { kind: 'plain' }, granted: {}, size: 5000 });
  let nowMs = 0;
  let sent = 0;
  const feed = (input: TransferInput): void => {
    const step = stepSender(state, input);
    state = step.state;
    sent += step.effects.filter((effect) => effect.kind === 'send-data').length;
  };
  feed({ kind: 'start', nowMs });
  feed({ kind: 'packet', packet: { kind: 'ack', block: 1 }, nowMs: (nowMs += 5) });
  sent = 1;
  while (state.phase === 'data') feed({ kind: 'tick', nowMs: (nowMs = state.deadlineMs) });
  assert.equal(state.phase, 'failed');
  assert.equal(sent, 8);
  assert.ok(nowMs < 30_000, `${nowMs} ms`);
  assert.match(state.failure?.message ?? '', /^no ACK of block 2 after 8 tries in [0-9.]+ s$/);
});

test('an ACK of a block not yet sent, or long ago, moves nothing', () => {
  let state = createSender({ opening: { kind: 'plain' }, granted: {}, size: 5000 });
  state = stepSender(state, { kind: 'start', nowMs: 0 }).state;
  for (const block of [2, 3, 100, 65535, 0]) {
    const step = stepSender(state, { kind: 'packet', packet: { kind: 'ack', block }, nowMs: 5 });
    assert.deepEqual(step.effects, [], String(block));
    assert.equal(step.state.blocks, 0);
  }
});

test('an ERROR ends either side at once and is never answered', () => {
  const packet: Packet = { kind: 'error', code: 8, message: 'no' };
  const sender = createSender({
    opening: { kind: 'oack', options: [['blksize', '8']] },
    granted: { blksize: 8 },
    size: 5,
  });
  const receiver = createReceiver({
    opening: { kind: 'plain' },
    granted: {},
    bytesMax: 10,
    checkSize: true,
    dallyMs: 1,
  });
  const ends = [
    stepSender(stepSender(sender, { kind: 'start', nowMs: 0 }).state, { kind: 'packet', packet, nowMs: 1 }),
    stepReceiver(stepReceiver(receiver, { kind: 'start', nowMs: 0 }).state, { kind: 'packet', packet, nowMs: 1 }),
  ];
  for (const { state, effects } of ends) {
    assert.deepEqual(effects, []);
    assert.deepEqual(state.failure, { code: 8, message: 'no', from: 'peer' });
  }
});

test('a receiver takes no more bytes than allowed, and no DATA larger than blksize', () => {
  const receiver = createReceiver({
    opening: { kind: 'plain' },
    granted: {},
    bytesMax: 600,
    checkSize: true,
    dallyMs: 1,
  });
  const started = stepReceiver(receiver, { kind: 'start', nowMs: 0 }).state;
  const data = (block: number, length: number): TransferInput => ({
    kind: 'packet',
    packet: { kind: 'data', block, data: new Uint8Array(length) },
    nowMs: 1,
  });
  const first = stepReceiver(started, data(1, 512)).state;
  assert.equal(stepReceiver(first, data(2, 100)).state.failure?.code, 3);
  assert.equal(stepReceiver(started, data(1, 513)).state.failure?.code, 4);
});

/** A state, and the step function that moves it. */
interface Side {
  step(input: TransferInput): Step<TransferState>['effects'];
  readonly state: () => TransferState;
}

function createSide<State extends TransferState>(
  start: State,
  step: (state: State, input: TransferInput) => Step<State>,
): Side {
  let state = start;
  return {
    state: () => state,
    step(input) {
      const result = step(state, input);
      state = result.state;
      return result.effects;
    },
  };
}

test('both sides are total: any packet in any phase leaves a sound state', () => {
  const packet: fc.Arbitrary<Packet> = fc.oneof(
    fc.record({ kind: fc.constant('ack' as const), block: fc.constantFrom(0, 1, 2, 3, 4, 5, 65535) }),
    fc.record({
      kind: fc.constant('data' as const),
      block: fc.constantFrom(0, 1, 2, 3, 4, 5, 65535),
      data: fc.constantFrom(new Uint8Array(0), new Uint8Array(7), new Uint8Array(8), new Uint8Array(9)),
    }),
    fc.record({ kind: fc.constant('error' as const), code: fc.integer({ min: 0, max: 65535 }), message: fc.string() }),
    fc.record({
      kind: fc.constant('oack' as const),
      options: fc.array(fc.tuple(fc.constantFrom('blksize', 'windowsize', 'x'), fc.constantFrom('8', '3', '9', 'x')), {
        maxLength: 3,
      }),
    }),
    fc.constant({ kind: 'malformed' as const, reason: 'x' }),
    fc.uint8Array({ maxLength: 40 }).map(decodePacket),
  );
  const input: fc.Arbitrary<{ readonly packet: Packet | undefined; readonly laterMs: number }> = fc.record({
    packet: fc.option(packet, { nil: undefined }),
    laterMs: fc.constantFrom(0, 1, 100, 2000, 40_000),
  });
  const openings: readonly Opening[] = [
    { kind: 'request', asked: { blksize: 8, windowsize: 3 } },
    { kind: 'oack', options: [['blksize', '8']] },
    { kind: 'plain' },
  ];
  fc.assert(
    fc.property(fc.constantFrom(...openings), fc.array(input, { maxLength: 40 }), (opening, inputs) => {
      const granted = opening.kind === 'request' ? {} : { blksize: 8, windowsize: 3 };
      const sides = [
        createSide(createSender({ opening, granted, size: 40 }), stepSender),
        createSide(createReceiver({ opening, granted, bytesMax: 50, checkSize: true, dallyMs: 10 }), stepReceiver),
      ];
      for (const side of sides) {
        let nowMs = 0;
        side.step({ kind: 'start', nowMs });
        for (const { packet, laterMs } of inputs) {
          nowMs += laterMs;
          const effects = side.step(packet === undefined ? { kind: 'tick', nowMs } : { kind: 'packet', packet, nowMs });
          const { phase, blocks, bytes, deadlineMs, failure } = side.state();
          assert.ok(blocks >= 0 && blocks <= 6 && bytes <= 50);
          assert.equal(failure !== undefined, phase === 'failed');
          assert.equal(deadlineMs === Infinity, phase === 'done' || phase === 'failed' || phase === 'commit');
          for (const effect of effects) {
            if (effect.kind === 'send-data') assert.ok(effect.first >= 1 && effect.first + effect.count <= 7);
          }
          if (phase === 'commit') side.step({ kind: 'committed', nowMs });
        }
      }
    }),
    { numRuns: 1000, seed: SEED },
  );
});
