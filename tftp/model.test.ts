/**
 * Sender against receiver over a virtual wire that loses, doubles and reorders, in virtual time. Seeded: a failure names its
 * seed, and `runModel` with the same values repeats it.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import * as fc from 'fast-check';

import type { Effect, Opening, Step, TransferInput, TransferState } from './exchange.ts';
import { type Options, formatOptions, grantOptions } from './options.ts';
import { type Packet, decodePacket, encodeAck, encodeData, encodeError, encodeOack, encodeRequest } from './packet.ts';
import { createReceiver, stepReceiver } from './receiver.ts';
import { createSender, stepSender } from './sender.ts';

interface Wire {
  readonly loss: number;
  readonly doubled: number;
  readonly reordered: number;
  readonly delayMs: number;
}

interface Outcome {
  readonly content: Uint8Array;
  readonly got: Uint8Array;
  readonly client: TransferState;
  readonly server: TransferState;
  readonly dataSent: number;
  readonly acksSent: number;
  readonly timeMs: number;
}

const PERFECT: Wire = { loss: 0, doubled: 0, reordered: 0, delayMs: 10 };
const LIMITS = { blksizeMax: 65464, windowsizeMax: 64, windowBytesMax: 128 * 1024, offset: false } as const;

/** mulberry32: small, seeded, good enough to choose victims. */
function createRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A side of the model: a state, the step function, and what its effects mean. */
interface Side {
  readonly name: 'client' | 'server';
  step(input: TransferInput): readonly Effect[];
  readonly state: () => TransferState;
}

function createSide<State extends TransferState>(
  name: 'client' | 'server',
  start: State,
  step: (state: State, input: TransferInput) => Step<State>,
): Side {
  let state = start;
  return {
    name,
    state: () => state,
    step(input) {
      const result = step(state, input);
      state = result.state;
      return result.effects;
    },
  };
}

/** One transfer: a read or a write, the client asking for `asked`. */
function runModel(options: {
  readonly direction: 'read' | 'write';
  readonly size: number;
  readonly asked: Options;
  readonly wire: Wire;
  readonly seed: number;
  /** drops packets by hand, on top of the wire's own loss */
  readonly drop?: (packet: Packet, from: 'client' | 'server', count: number) => boolean;
}): Outcome {
  const { direction, size, asked, wire } = options;
  const random = createRandom(options.seed);
  const content = Uint8Array.from({ length: size }, (_, index) => (index * 7 + (index >> 8)) & 0xff);
  const got: Uint8Array[] = [];
  let dataSent = 0;
  let acksSent = 0;
  let nowMs = 0;
  let count = 0;
  const queue: { atMs: number; order: number; to: 'client' | 'server'; bytes: Uint8Array }[] = [];
  const request = encodeRequest({ direction, name: 'x', mode: 'octet', options: formatOptions(asked) });
  const opening: Opening = { kind: 'request', asked };
  const patience = { patienceMs: 300_000 };
  const receiver = { granted: {}, bytesMax: Infinity, checkSize: true, dallyMs: 3000, ...patience };
  const client =
    direction === 'read'
      ? createSide('client', createReceiver({ ...receiver, opening }), stepReceiver)
      : createSide('client', createSender({ opening, granted: {}, size, ...patience }), stepSender);
  let server: Side | undefined;

  const createServer = (): Side => {
    const tsize = direction === 'read' ? size : ('echo' as const);
    const { granted, oack } = grantOptions(formatOptions(asked), { ...LIMITS, tsize });
    const opening: Opening = oack.length > 0 ? { kind: 'oack', options: oack } : { kind: 'plain' };
    return direction === 'read'
      ? createSide('server', createSender({ opening, granted, size, ...patience }), stepSender)
      : createSide('server', createReceiver({ ...receiver, opening, granted }), stepReceiver);
  };

  const send = (from: 'client' | 'server', bytes: Uint8Array): void => {
    const packet = decodePacket(bytes);
    if (packet.kind === 'data') dataSent += 1;
    if (packet.kind === 'ack') acksSent += 1;
    count += 1;
    if (random() < wire.loss || options.drop?.(packet, from, count) === true) return;
    const copies = random() < wire.doubled ? 2 : 1;
    for (let copy = 0; copy < copies; copy += 1) {
      const late = random() < wire.reordered ? random() * 3 * wire.delayMs : 0;
      queue.push({
        atMs: nowMs + wire.delayMs + late,
        order: (count += 1),
        to: from === 'client' ? 'server' : 'client',
        bytes,
      });
    }
  };

  const perform = (side: Side, effects: readonly Effect[]): void => {
    for (const effect of effects) {
      if (effect.kind === 'send-request') send(side.name, request);
      else if (effect.kind === 'send-oack') send(side.name, encodeOack(effect.options));
      else if (effect.kind === 'send-ack') send(side.name, encodeAck(effect.block));
      else if (effect.kind === 'send-error') send(side.name, encodeError(effect.code, effect.message));
      else if (effect.kind === 'deliver') got.push(effect.data);
      else if (effect.kind === 'commit') perform(side, side.step({ kind: 'committed', nowMs }));
      else {
        const { first, count, blksize } = effect;
        for (let block = first; block < first + count; block += 1) {
          send(side.name, encodeData(block & 0xffff, content.subarray((block - 1) * blksize, block * blksize)));
        }
      }
    }
  };

  const isOver = (side: Side | undefined): boolean =>
    side !== undefined && (side.state().phase === 'done' || side.state().phase === 'failed');

  perform(client, client.step({ kind: 'start', nowMs }));
  for (let steps = 0; !(isOver(client) && isOver(server)); steps += 1) {
    assert.ok(steps < 3_000_000, 'the transfer does not end');
    queue.sort((one, other) => one.atMs - other.atMs || one.order - other.order);
    const next = queue[0];
    const deadlines = [client, server].map((side) => side?.state().deadlineMs ?? Infinity);
    const deadlineMs = Math.min(...deadlines);
    if (next !== undefined && next.atMs <= deadlineMs) {
      queue.shift();
      nowMs = Math.max(nowMs, next.atMs);
      const packet = decodePacket(next.bytes);
      if (next.to === 'client') perform(client, client.step({ kind: 'packet', packet, nowMs }));
      else if (packet.kind !== 'request') {
        if (server !== undefined) perform(server, server.step({ kind: 'packet', packet, nowMs }));
      } else if (server === undefined) {
        server = createServer();
        perform(server, server.step({ kind: 'start', nowMs }));
      }
    } else if (deadlineMs < Infinity) {
      nowMs = Math.max(nowMs, deadlineMs);
      for (const side of [client, server]) if (side) perform(side, side.step({ kind: 'tick', nowMs }));
    } else {
      break;
    }
  }
  const serverState = server?.state() ?? client.state();
  return {
    content,
    got: Buffer.concat(got),
    client: client.state(),
    server: serverState,
    dataSent,
    acksSent,
    timeMs: nowMs,
  };
}

const isSame = (one: Uint8Array, other: Uint8Array): boolean => Buffer.compare(one, other) === 0;

test('every size around the borders of a block goes through, both ways, with and without options', () => {
  for (const direction of ['read', 'write'] as const) {
    for (const asked of [{}, { tsize: 0 }, { blksize: 8 }, { blksize: 16, windowsize: 4 }, { windowsize: 64 }]) {
      const blksize = asked.blksize ?? 512;
      for (const size of [0, 1, blksize - 1, blksize, blksize + 1, 4 * blksize, 4 * blksize + 1, 9 * blksize]) {
        const name = JSON.stringify({ direction, asked, size });
        const outcome = runModel({ direction, size, asked, wire: PERFECT, seed: 1 });
        assert.ok(isSame(outcome.got, outcome.content), name);
        assert.equal(outcome.client.phase, 'done', name);
        assert.equal(outcome.server.phase, 'done', name);
        assert.equal(outcome.dataSent, Math.floor(size / blksize) + 1, name);
        assert.equal(outcome.client.repeats + outcome.server.repeats, 0, name);
      }
    }
  }
});

test('a window is answered by one ACK', () => {
  const outcome = runModel({
    direction: 'write',
    size: 1600,
    asked: { blksize: 16, windowsize: 10 },
    wire: PERFECT,
    seed: 1,
  });
  // 101 blocks, the last one empty: 10 windows and the last ACK.
  assert.equal(outcome.acksSent, 11);
});

test('block numbers roll over from 65535 to 0, in lock-step and inside a window', () => {
  for (const asked of [{ blksize: 8 }, { blksize: 8, windowsize: 7 }]) {
    const outcome = runModel({ direction: 'read', size: 8 * 65_540, asked, wire: { ...PERFECT, delayMs: 0 }, seed: 1 });
    assert.ok(isSame(outcome.got, outcome.content));
  }
});

test('a wire that loses, doubles and reorders changes nothing but time', () => {
  const scenario = fc.record({
    direction: fc.constantFrom('read' as const, 'write' as const),
    size: fc.integer({ min: 0, max: 3000 }),
    asked: fc.record(
      {
        blksize: fc.constantFrom(8, 16, 100, 512),
        windowsize: fc.constantFrom(1, 2, 3, 8, 32),
        timeout: fc.constantFrom(1, 2),
        tsize: fc.constant(0),
      },
      { requiredKeys: [] },
    ),
    wire: fc.record({
      loss: fc.constantFrom(0, 0.01, 0.05, 0.15),
      doubled: fc.constantFrom(0, 0.2, 1),
      reordered: fc.constantFrom(0, 0.05, 0.3),
      delayMs: fc.constantFrom(0.1, 1, 10, 80),
    }),
    seed: fc.integer(),
  });
  fc.assert(
    fc.property(scenario, (options) => {
      const asked =
        options.direction === 'write' && options.asked.tsize !== undefined
          ? { ...options.asked, tsize: options.size }
          : options.asked;
      const outcome = runModel({ ...options, asked });
      const { client, server } = outcome;
      // With heavy loss, giving up is allowed; a wrong success is not.
      const receiver = options.direction === 'read' ? client : server;
      if (receiver.phase === 'done') assert.ok(isSame(outcome.got, outcome.content), 'complete but different');
      else assert.equal(receiver.phase === 'failed' && options.wire.loss > 0, true, `${receiver.failure?.message}`);
      if (client.phase === 'done' && options.direction === 'write') assert.ok(isSame(outcome.got, outcome.content));
      if (options.wire.loss <= 0.01 && options.wire.delayMs < 80)
        assert.equal(receiver.phase, 'done', receiver.failure?.message ?? '');
    }),
    { numRuns: 400, seed: 20_260_101 },
  );
});

test('doubled packets cost no DATA (Sorcerer’s Apprentice)', () => {
  for (const asked of [{ blksize: 16 }, { blksize: 16, windowsize: 8 }]) {
    const wire = { ...PERFECT, doubled: 1 };
    const outcome = runModel({ direction: 'read', size: 16 * 400, asked, wire, seed: 7 });
    assert.ok(isSame(outcome.got, outcome.content));
    assert.equal(outcome.dataSent, 401, JSON.stringify(asked));
  }
});

test('5 % of packets that change places, all doubled, cost little DATA', () => {
  for (const windowsize of [1, 16]) {
    const wire = { loss: 0, doubled: 1, reordered: 0.05, delayMs: 10 };
    const outcome = runModel({ direction: 'read', size: 16 * 2000, asked: { blksize: 16, windowsize }, wire, seed: 3 });
    assert.ok(isSame(outcome.got, outcome.content));
    // Packets here are late by up to three times the one-way delay, which a window cannot tell from a loss.
    assert.ok(outcome.dataSent <= 2001 * (windowsize === 1 ? 1.01 : 1.2), `${windowsize}: ${outcome.dataSent}`);
  }
});

test('one window sent twice does not make all that follow go twice', () => {
  let acks = 0;
  const outcome = runModel({
    direction: 'read',
    size: 16 * 800,
    asked: { blksize: 16, windowsize: 8 },
    wire: { ...PERFECT, doubled: 1 },
    seed: 3,
    drop: (packet, from) => packet.kind === 'ack' && from === 'client' && [5, 6].includes((acks += 1)),
  });
  assert.ok(isSame(outcome.got, outcome.content));
  assert.ok(outcome.dataSent <= 801 + 3 * 8, `${outcome.dataSent} DATA`);
});

test('5 % loss with a window does not multiply the traffic', () => {
  const wire = { ...PERFECT, loss: 0.05 };
  const outcome = runModel({
    direction: 'read',
    size: 1468 * 2000,
    asked: { blksize: 1468, windowsize: 16 },
    wire,
    seed: 5,
  });
  assert.ok(isSame(outcome.got, outcome.content));
  assert.ok(outcome.dataSent < 1.7 * 2001, `${outcome.dataSent} DATA`);
});

test('lost first packets, OACK, ACK 0 and last ACK are made good', () => {
  const nth = (kind: Packet['kind'], from: 'client' | 'server') => {
    let left = 1;
    return (packet: Packet, sender: 'client' | 'server'): boolean =>
      packet.kind === kind && sender === from && (left -= 1) >= 0;
  };
  for (const direction of ['read', 'write'] as const) {
    for (const from of ['client', 'server'] as const) {
      for (const kind of ['request', 'oack', 'ack', 'data'] as const) {
        for (const asked of [{}, { blksize: 16 }, { blksize: 16, windowsize: 4 }]) {
          const outcome = runModel({ direction, size: 100, asked, wire: PERFECT, seed: 1, drop: nth(kind, from) });
          const name = JSON.stringify({ direction, from, kind, asked });
          assert.ok(isSame(outcome.got, outcome.content), name);
          assert.deepEqual([outcome.client.phase, outcome.server.phase], ['done', 'done'], name);
        }
      }
    }
  }
});

test('the last ACK is repeated while the receiver dallies', () => {
  let last = 0;
  const outcome = runModel({
    direction: 'read',
    size: 10,
    asked: {},
    wire: PERFECT,
    seed: 1,
    drop: (packet, from) => packet.kind === 'ack' && from === 'client' && (last += 1) <= 2,
  });
  assert.equal(outcome.server.phase, 'done');
  assert.equal(outcome.dataSent, 3);
  assert.equal(outcome.acksSent, 3);
});

test('a server sends three packets at most to an address that does not answer, and then is silent', () => {
  for (const asked of [{}, { blksize: 100 }]) {
    let packets = 0;
    const outcome = runModel({
      direction: 'read',
      size: 10_000,
      asked,
      wire: PERFECT,
      seed: 1,
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
        createSide('server', createSender({ opening, granted, size: 40 }), stepSender),
        createSide(
          'client',
          createReceiver({ opening, granted, bytesMax: 50, checkSize: true, dallyMs: 10 }),
          stepReceiver,
        ),
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
    { numRuns: 1000 },
  );
});
