/**
 * Fuzzing of all that reads what the network sends, without a network: requests, packets inside a transfer, whole transfers.
 * Seeded: a failure is made as small as it gets, and printed so that it can be run again or join the corpus.
 *
 * Inputs are the corpus (`testdata/corpus/`), well-formed packets, and what mutation makes of both.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { createRandom } from './_link.ts';
import { type Fault, type SessionPlan, STRAYS, checkSession } from './_session.ts';
import { RefusedError } from './error.ts';
import type { Effect, Opening, StepFunction, TransferInput, TransferState } from './exchange.ts';
import { parseName } from './folder.ts';
import { type GrantLimits, type Options, checkOack, formatOptions, grantOptions, parseOptions } from './options.ts';
import { decodePacket, encodeAck, encodeData, encodeError, encodeOack, encodeRequest } from './packet.ts';
import { createReceiver, stepReceiver } from './receiver.ts';
import { createSender, stepSender } from './sender.ts';

const CORPUS = join(import.meta.dirname, 'testdata', 'corpus');
const LIMITS: GrantLimits = {
  blksizeMax: 16_384,
  windowsizeMax: 64,
  windowBytesMax: 128 * 1024,
  tsize: 1000,
  offset: true,
};
const OPTION_NAMES = ['blksize', 'timeout', 'tsize', 'windowsize', 'offset'] as const;
/** Inputs between two looks at the clock. */
const BATCH = 200;
/** A run of packets into one state is this long at most. */
const STEPS_MAX = 40;

/** One way of fuzzing: makes inputs, tries them, makes failing ones smaller. */
interface Target<Input> {
  readonly name: string;
  readonly make: (random: () => number) => Input;
  /** @throws when something is wrong */
  readonly check: (input: Input) => void;
  /** smaller inputs to try in its place */
  readonly smaller: (input: Input) => Iterable<Input>;
  readonly format: (input: Input) => string;
  /** how much an input counts */
  readonly count: (input: Input) => number;
}

/** What became of one target. */
export interface FuzzReport {
  readonly target: string;
  /** requests, packets or transfers that were tried */
  readonly count: number;
  readonly seconds: number;
  readonly seed: number;
  readonly failure: { readonly input: string; readonly error: unknown } | undefined;
}

export const FUZZ_TARGETS = ['requests', 'packets', 'sessions'] as const;

/** Fuzzes all targets, one after the other, for `seconds` in all, or until one fails. */
export function fuzz(options: {
  readonly seconds: number;
  readonly seed: number;
  /** default all */
  readonly targets?: readonly (typeof FUZZ_TARGETS)[number][];
}): readonly FuzzReport[] {
  const { seed, targets = FUZZ_TARGETS } = options;
  const seconds = options.seconds / targets.length;
  const { stackTraceLimit } = Error;
  // Refusals are errors by the million, whose stacks nobody reads.
  Error.stackTraceLimit = 0;
  try {
    return targets.map((name) => {
      if (name === 'requests') return runTarget(requests, seconds, seed);
      return name === 'packets' ? runTarget(packets, seconds, seed) : runTarget(sessions, seconds, seed);
    });
  } finally {
    Error.stackTraceLimit = stackTraceLimit;
  }
}

/**
 * The corpus: each entry once through everything.
 *
 * @throws {Error} that names the entry
 */
export function fuzzCorpus(): void {
  for (const bytes of corpus) {
    try {
      requests.check(bytes);
      for (const opening of OPENINGS) {
        for (const side of ['sender', 'receiver'] as const) packets.check({ side, opening, steps: [bytes, bytes] });
      }
    } catch (error) {
      throw new Error(`Cannot take ${toHex(bytes)} of the corpus: ${String(error)}`, { cause: error });
    }
  }
}

function runTarget<Input>(target: Target<Input>, seconds: number, seed: number): FuzzReport {
  const random = createRandom(seed);
  const startedMs = performance.now();
  const report = (failure?: FuzzReport['failure']): FuzzReport => ({
    target: target.name,
    count,
    seconds: (performance.now() - startedMs) / 1000,
    seed,
    failure,
  });
  let count = 0;
  while (performance.now() - startedMs < seconds * 1000) {
    for (let index = 0; index < BATCH; index += 1) {
      const input = target.make(random);
      count += target.count(input);
      const error = findError(target, input);
      if (error !== undefined) {
        const small = minimise(target, input);
        return report({ input: target.format(small), error: findError(target, small) });
      }
    }
  }
  return report();
}

function findError<Input>(target: Target<Input>, input: Input): unknown {
  try {
    target.check(input);
    return undefined;
  } catch (error) {
    return error;
  }
}

function minimise<Input>(target: Target<Input>, input: Input): Input {
  for (const candidate of target.smaller(input)) {
    if (findError(target, candidate) !== undefined) return minimise(target, candidate);
  }
  return input;
}

// Requests: decoding, names, options, and back.

const requests: Target<Uint8Array> = {
  name: 'requests',
  make: (random) => mutate(pick(corpus, random), random),
  check: checkRequest,
  smaller: smallerBytes,
  format: toHex,
  count: () => 1,
};

function checkRequest(bytes: Uint8Array): void {
  const packet = decodePacket(bytes);
  if (packet.kind === 'oack') checkOack(packet.options, { blksize: 1468, windowsize: 32, tsize: 0, timeout: 1 });
  if (packet.kind !== 'request') return;
  const { granted, oack } = grantOptions(packet.options, LIMITS);
  const asked = parseOptions(packet.options);
  assert.ok((granted.blksize ?? 512) <= (asked.blksize ?? 512), 'blksize granted above what was asked');
  assert.ok((granted.windowsize ?? 1) <= (asked.windowsize ?? 1), 'windowsize granted above what was asked');
  assert.ok(isSame(parseOptions(oack), granted), 'the OACK says something else than what is in force');
  assert.ok(oack.length <= Object.keys(asked).length, 'the OACK holds more than was asked');
  assert.ok(!('refused' in checkOack(oack, asked)), 'the client would refuse our OACK');
  if (oack.length > 0) {
    const told = decodePacket(encodeOack(oack));
    assert.ok(told.kind === 'oack' && isSame(parseOptions(told.options), granted), 'the OACK changes on its way');
  }
  // What our client would send. Of every fourth: it costs as much as all the rest.
  if (packet.mode !== undefined && bytes.length % 4 === 0) {
    const again = decodePacket(encodeRequest({ ...packet, mode: packet.mode, options: formatOptions(asked) }));
    assert.ok(again.kind === 'request' && again.name === packet.name, 'the name changes on its way');
    assert.ok(isSame(parseOptions(again.options), asked), 'the options change on their way');
  }
  let parts: readonly string[];
  try {
    parts = parseName(packet.name);
  } catch (error) {
    if (error instanceof RefusedError) return;
    throw error;
  }
  assert.ok(parts.length > 0);
  for (const part of parts) assert.ok(/^[^./\\\0][^/\\\0]*$/u.test(part), `a part ${JSON.stringify(part)}`);
}

/** Field by field: a hundred times faster than `deepEqual`. */
function isSame(one: Options, other: Options): boolean {
  return OPTION_NAMES.every((name) => one[name] === other[name]);
}

// Packets: into a sender or receiver that is in the middle of something.

type Step = Uint8Array | number;

interface PacketRun {
  readonly side: 'sender' | 'receiver';
  readonly opening: Opening;
  /** datagrams, and times that pass, in ms */
  readonly steps: readonly Step[];
}

const BLKSIZE = 8;
const WINDOWSIZE = 3;
const BLOCKS = 11;
const SIZE = BLKSIZE * (BLOCKS - 1);
const OPENINGS: readonly Opening[] = [
  { kind: 'request', asked: { blksize: BLKSIZE, windowsize: WINDOWSIZE } },
  { kind: 'oack', options: formatOptions({ blksize: BLKSIZE, windowsize: WINDOWSIZE }) },
  { kind: 'plain' },
];

const packets: Target<PacketRun> = {
  name: 'packets',
  make: (random) => ({
    side: random() < 0.5 ? 'sender' : 'receiver',
    opening: pick(OPENINGS, random),
    steps: Array.from({ length: 1 + Math.floor(random() * STEPS_MAX) }, () => makeStep(random)),
  }),
  check: checkPackets,
  *smaller({ side, opening, steps }) {
    for (const fewer of smallerList(steps)) yield { side, opening, steps: fewer };
    for (const [index, step] of steps.entries()) {
      if (typeof step === 'number') continue;
      for (const bytes of smallerBytes(step)) yield { side, opening, steps: steps.with(index, bytes) };
    }
  },
  format: ({ side, opening, steps }) =>
    `${side} ${JSON.stringify(opening)} ${steps.map((step) => (typeof step === 'number' ? `+${step}ms` : toHex(step))).join(' ')}`,
  count: ({ steps }) => steps.length,
};

function makeStep(random: () => number): Step {
  const chance = random();
  if (chance < 0.1) return pick([0, 1, 30, 300, 5000], random);
  if (chance < 0.2) return mutate(pick(corpus, random), random).slice();
  // Most blocks are near the truth, so that states move on.
  const block = random() < 0.9 ? Math.floor(random() * (BLOCKS + 3)) : Math.floor(random() * 65_536);
  const valid =
    chance < 0.55
      ? encodeAck(block)
      : chance < 0.9
        ? encodeData(block, BLOCK_DATA.subarray(0, random() < 0.85 ? BLKSIZE : Math.floor(random() * (BLKSIZE + 2))))
        : chance < 0.95
          ? encodeOack(formatOptions({ blksize: BLKSIZE, windowsize: 1 + Math.floor(random() * WINDOWSIZE) }))
          : encodeAck(0);
  return random() < 0.85 ? valid : mutate(valid, random).slice();
}

const BLOCK_DATA = new Uint8Array(BLKSIZE + 2).fill(0x61);

function checkPackets(run: PacketRun): void {
  const granted = run.opening.kind === 'oack' ? { blksize: BLKSIZE, windowsize: WINDOWSIZE } : {};
  if (run.side === 'sender') {
    checkRun(createSender({ opening: run.opening, granted, size: SIZE }), stepSender, run);
  } else {
    const limits = { bytesMax: SIZE, checkSize: true, dallyMs: 100 };
    checkRun(createReceiver({ opening: run.opening, granted, ...limits }), stepReceiver, run);
  }
}

function checkRun<State extends TransferState>(start: State, step: StepFunction<State>, run: PacketRun): void {
  let state = start;
  let nowMs = 0;
  const feed = (input: TransferInput): void => {
    const before = state;
    const { state: next, effects } = step(state, input);
    state = next;
    checkState(before, next, effects, run);
    if (state.phase === 'commit' && input.kind !== 'committed') feed({ kind: 'committed', nowMs });
  };
  feed({ kind: 'start', nowMs });
  for (const item of run.steps) {
    if (typeof item === 'number') feed({ kind: 'tick', nowMs: (nowMs += item) });
    else feed({ kind: 'packet', packet: decodePacket(item), nowMs });
  }
  // Left alone, it comes to an end.
  for (let ticks = 0; state.deadlineMs < Infinity; ticks += 1) {
    assert.ok(ticks < 100, 'it does not come to an end');
    nowMs = Math.max(nowMs, state.deadlineMs);
    feed({ kind: 'tick', nowMs });
  }
  assert.ok(nowMs <= 45_000 + 5000 * run.steps.length, `it ended after ${nowMs} ms`);
}

function checkState(before: TransferState, state: TransferState, effects: readonly Effect[], run: PacketRun): void {
  const { phase, blocks, bytes, deadlineMs, failure, windowsize, blksize } = state;
  assert.ok(blocks >= before.blocks && bytes >= before.bytes, 'it goes back');
  assert.ok(bytes <= SIZE, `${bytes} bytes of ${SIZE}`);
  assert.equal(failure !== undefined, phase === 'failed');
  assert.equal(deadlineMs === Infinity, phase === 'done' || phase === 'failed' || phase === 'commit');
  assert.ok(!Number.isNaN(deadlineMs));
  if (before.phase === 'done' || before.phase === 'failed') assert.equal(effects.length, 0, 'it speaks after its end');
  const last = Math.floor(SIZE / blksize) + 1;
  for (const effect of effects) {
    if (effect.kind === 'send-data') {
      assert.equal(run.side, 'sender');
      assert.ok(effect.count >= 1 && effect.count <= windowsize, `${effect.count} blocks in a window of ${windowsize}`);
      assert.ok(effect.first > blocks && effect.first + effect.count - 1 <= Math.min(last, blocks + windowsize));
    } else if (effect.kind === 'send-error') {
      assert.equal(decodePacket(encodeError(effect.code, effect.message)).kind, 'error');
    } else if (effect.kind === 'send-ack') {
      assert.equal(effect.block, blocks & 0xffff, 'an ACK of something else than what is there');
    }
  }
}

// Sessions: whole transfers in which things go wrong.

const sessions: Target<SessionPlan> = {
  name: 'sessions',
  make: makePlan,
  check: (plan) => {
    checkSession(plan);
  },
  *smaller(plan) {
    for (const faults of smallerList(plan.faults)) yield { ...plan, faults };
    for (const [index, fault] of plan.faults.entries()) {
      if (fault !== 'pass') yield { ...plan, faults: plan.faults.with(index, 'pass') };
    }
    if (plan.size > 0) yield { ...plan, size: plan.size >> 1 };
  },
  format: (plan) => JSON.stringify(plan),
  count: () => 1,
};

function makePlan(random: () => number): SessionPlan {
  const chance = (share: number): boolean => random() < share;
  const blksize = pick([8, 9, 64, 512], random);
  const asked = {
    ...((blksize !== 512 || chance(0.5)) && { blksize }),
    ...(chance(0.7) && { windowsize: pick([1, 2, 3, 7, 16, 32], random) }),
    ...(chance(0.2) && { timeout: 1 }),
    ...(chance(0.5) && { tsize: 0 }),
  };
  const size = Math.max(0, pick([0, 1, 2, 3, 7, 16, 33], random) * blksize + pick([-1, 0, 1], random));
  const faults = Array.from({ length: Math.floor(random() * 40) }, () => makeFault(random));
  const direction = chance(0.5) ? 'read' : 'write';
  return { direction, asked, size, faults, delayMs: pick([0.05, 1, 10, 150], random) };
}

function makeFault(random: () => number): Fault {
  const chance = random();
  if (chance < 0.5) return 'pass';
  if (chance < 0.7) return 'lose';
  if (chance < 0.78) return 'double';
  if (chance < 0.88) return { late: pick([1, 5, 30, 400, 3000], random) };
  return chance < 0.93 ? { cut: Math.floor(random() * 40) } : { stray: pick(STRAYS, random) };
}

// Bytes.

const corpus: readonly Uint8Array[] = ['requests.txt', 'packets.txt'].flatMap((file) =>
  readFileSync(join(CORPUS, file), 'utf8')
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => Buffer.from(line.replace(/[ -].*$/, ''), 'hex')),
);

/** What stands behind their opcodes. */
const tails = corpus.map((bytes) => bytes.subarray(2));

/** Bytes that stand at a border, or mean something. */
const TELLING = [0, 1, 2, 3, 4, 5, 6, 7, 0x2e, 0x2f, 0x5c, 0x30, 0x39, 0x7f, 0x80, 0xc0, 0xff];

/** Room for a change at work; no datagram grows beyond DATAGRAM_MAX. */
const DATAGRAM_MAX = 2000;
const scratch = new Uint8Array(2 * DATAGRAM_MAX);

/**
 * One to four changes.
 *
 * @returns a view of memory that the next call uses again: a fourth of the time of a fuzz went into new memory
 */
function mutate(original: Uint8Array, random: () => number): Uint8Array {
  scratch.set(original);
  let length = original.length;
  /** Puts bytes in the place of `gone` others. */
  const splice = (at: number, gone: number, bytes: ArrayLike<number>): void => {
    const end = Math.min(length, at + gone);
    scratch.copyWithin(at + bytes.length, end, length);
    scratch.set(bytes, at);
    length = Math.min(DATAGRAM_MAX, length - (end - at) + bytes.length);
  };
  for (let changes = 1 + Math.floor(random() * 4); changes > 0; changes -= 1) {
    const at = Math.floor(random() * (length + 1));
    const chance = random();
    if (chance < 0.2) length = at;
    else if (chance < 0.6) {
      if (at < length) scratch[at] = chance < 0.5 ? pick(TELLING, random) : Math.floor(random() * 256);
    } else if (chance < 0.75) splice(at, 0, [pick(TELLING, random)]);
    else if (chance < 0.9) splice(at, 0, pick(tails, random));
    else splice(at, 1 + Math.floor(random() * 6), []);
  }
  return scratch.subarray(0, length);
}

/** Without its first or second half, a quarter, …, a single one. */
function* smallerList<Item>(items: readonly Item[]): Iterable<readonly Item[]> {
  for (let size = items.length >> 1; size >= 1; size >>= 1) {
    for (let at = 0; at < items.length; at += size) yield [...items.slice(0, at), ...items.slice(at + size)];
  }
}

function* smallerBytes(bytes: Uint8Array): Iterable<Uint8Array> {
  for (const fewer of smallerList([...bytes])) yield Uint8Array.from(fewer);
}

function toHex(bytes: Uint8Array): string {
  return bytes.length === 0 ? '-' : Buffer.from(bytes).toString('hex');
}

/** @throws {RangeError} when there is none */
function pick<Item>(items: readonly Item[], random: () => number): Item {
  const item = items[Math.floor(random() * items.length)];
  if (item === undefined) throw new RangeError('nothing to pick from');
  return item;
}
