/**
 * How fast lost packets are made good, and what that costs, on a link in virtual time: the goals, each as the median of
 * nine seeded runs. The figures are printed with the tests.
 */
import assert from 'node:assert/strict';
import { type TestContext, describe, test } from 'node:test';

import {
  type LinkFigures,
  type LinkOptions,
  type LinkOutcome,
  type UsualHabits,
  EDK2_READER,
  PLAIN_READER,
  UBOOT_READER,
  createWire,
  runLink,
} from './_link.ts';

const SEEDS = [1, 2, 3, 4, 5, 6, 7, 8, 9].map((number) => number * 7919);
/** 20 ms there and back. */
const DELAY: LinkFigures = { delayMs: 10 };
const WINDOWS = { direction: 'read', size: 4 * 1024 * 1024, asked: { blksize: 1468, windowsize: 64 } } as const;
const LOCK_STEP = { direction: 'read', size: 256 * 1024, asked: {} } as const;

type Load = Omit<LinkOptions, 'wire'>;

/** Medians of runs that all bring the whole file. */
interface Figures {
  readonly seconds: number;
  /** times the blocks of the file */
  readonly dataShare: number;
  readonly worstDataShare: number;
}

function measure(t: TestContext, load: Load, figures: LinkFigures): Figures {
  const blocks = Math.floor(load.size / (load.asked.blksize ?? 512)) + 1;
  const outcomes: readonly LinkOutcome[] = SEEDS.map((seed) => runLink({ ...load, wire: createWire(figures, seed) }));
  for (const outcome of outcomes) assert.ok(outcome.isWhole, 'the file did not arrive whole');
  const shares = outcomes.map((outcome) => outcome.dataSent / blocks);
  const seconds = median(outcomes.map((outcome) => outcome.wholeAtMs)) / 1000;
  const dataShare = median(shares);
  t.diagnostic(`${seconds.toFixed(3)} s, ${dataShare.toFixed(3)} times the DATA`);
  return { seconds, dataShare, worstDataShare: Math.max(...shares) };
}

function median(values: readonly number[]): number {
  return values.toSorted((one, other) => one - other)[values.length >> 1] ?? NaN;
}

describe('loss at 20 ms', () => {
  for (const [loss, ratio] of [
    [0.01, 1.08],
    [0.05, 1.25],
  ] as const) {
    test(`lock-step 256 KB at ${loss * 100} % takes at most ${ratio} times as long as without`, (t) => {
      const quiet = runLink({ ...LOCK_STEP, client: PLAIN_READER, wire: createWire(DELAY, 1) }).wholeAtMs / 1000;
      const { seconds } = measure(t, { ...LOCK_STEP, client: PLAIN_READER }, { ...DELAY, loss });
      assert.ok(seconds <= ratio * quiet, `${seconds} s, ${quiet} s without loss`);
    });
  }

  const readers: readonly [name: string, client: 'ours' | UsualHabits, loss: number, seconds: number][] = [
    ['a plain client', PLAIN_READER, 0.01, 1.3],
    ['a plain client', PLAIN_READER, 0.05, 2.5],
    ['EDK2', EDK2_READER, 0.01, 1.3],
    ['EDK2', EDK2_READER, 0.05, 2.5],
    // It passes over an old block in silence, so the loss of its ACK costs its own timeout of 5 s.
    ['U-Boot', UBOOT_READER, 0.01, 1.6],
    ['our client', 'ours', 0.01, 1.1],
    ['our client', 'ours', 0.05, 1.5],
  ];
  for (const [name, client, loss, limit] of readers) {
    test(`4 MB to ${name}, 1468 × 64, at ${loss * 100} % takes at most ${limit} s`, (t) => {
      const { seconds, dataShare } = measure(t, { ...WINDOWS, client }, { ...DELAY, loss });
      assert.ok(seconds <= limit, `${seconds} s`);
      assert.ok(dataShare < 5, `${dataShare} times the DATA`);
    });
  }

  for (const [loss, limit] of [
    [0.01, 1.1],
    [0.05, 1.5],
  ] as const) {
    test(`4 MB from our client, 1468 × 64, at ${loss * 100} % takes at most ${limit} s`, (t) => {
      const { seconds } = measure(t, { ...WINDOWS, direction: 'write' }, { ...DELAY, loss });
      assert.ok(seconds <= limit, `${seconds} s`);
    });
  }
});

describe('every ACK and DATA doubled, 5 % overtaking', () => {
  const wire: LinkFigures = { ...DELAY, doubled: 1, early: 0.05 };
  const loads: readonly [name: string, load: Load][] = [
    ['lock-step, a plain client', { ...LOCK_STEP, client: PLAIN_READER }],
    ['lock-step, EDK2', { ...LOCK_STEP, client: EDK2_READER }],
    ['lock-step, our client', LOCK_STEP],
    ['1468 × 64, our client reads', WINDOWS],
    ['1468 × 64, our client writes', { ...WINDOWS, direction: 'write' }],
  ];
  for (const [name, load] of loads) {
    test(`${name}: no extra DATA`, (t) => {
      assert.equal(measure(t, load, wire).dataShare, 1);
    });
  }

  test('doubled alone costs no client any extra DATA', (t) => {
    for (const client of [PLAIN_READER, UBOOT_READER, EDK2_READER, 'ours'] as const) {
      for (const load of [LOCK_STEP, WINDOWS]) {
        assert.equal(measure(t, { ...load, client }, { ...DELAY, doubled: 1 }).worstDataShare, 1);
      }
    }
  });

  test('copies that are late by more than a round trip do not multiply the DATA', (t) => {
    const late: LinkFigures = { ...DELAY, doubled: 1, late: 0.05 };
    assert.ok(measure(t, WINDOWS, late).dataShare <= 1.2);
    // It drops what comes before its turn, so here late is lost, for each third window.
    assert.ok(measure(t, { ...WINDOWS, client: PLAIN_READER }, late).dataShare <= 3.5);
  });
});

describe('slow links', () => {
  const load = { ...WINDOWS, size: 1024 * 1024 } as const;
  const slow: LinkFigures = { ...DELAY, rateMbit: 10 };

  test('a window that takes four round trips to pass is not sent twice', (t) => {
    for (const client of [PLAIN_READER, 'ours'] as const) {
      assert.equal(measure(t, { ...load, client }, slow).worstDataShare, 1);
    }
  });

  test('loss on a slow link does not fill it with repeats', (t) => {
    assert.ok(measure(t, { ...load, client: PLAIN_READER }, { ...slow, loss: 0.05 }).dataShare <= 4);
    assert.ok(measure(t, load, { ...slow, loss: 0.05 }).dataShare <= 2);
  });

  test('a round trip that grows tenfold in the middle is learned: blocks are not repeated for ever', (t) => {
    let count = 0;
    const outcome = runLink({
      ...LOCK_STEP,
      wire: (bytes) => [{ afterMs: (count += 1) < 100 ? 5 : 50, bytes }],
    });
    t.diagnostic(`${outcome.dataSent} DATA for 513 blocks`);
    assert.ok(outcome.isWhole);
    assert.ok(outcome.dataSent <= 513 + 5, `${outcome.dataSent} DATA`);
  });
});

describe('a peer nearby', () => {
  test('one that misses many packets of each burst gets none of them twice', (t) => {
    const arrived = new Map<number, number>();
    const outcome = runLink({
      ...WINDOWS,
      client: PLAIN_READER,
      wire: (bytes, from, nowMs) => {
        const ms = Math.floor(nowMs);
        const count = (arrived.get(ms) ?? 0) + 1;
        arrived.set(ms, count);
        return from === 'client' || count <= 20 || count > 60 ? [{ afterMs: 0.1, bytes }] : [];
      },
    });
    const share = outcome.dataSent / (Math.floor(WINDOWS.size / 1468) + 1);
    t.diagnostic(`${(outcome.wholeAtMs / 1000).toFixed(3)} s, ${share.toFixed(3)} times the DATA`);
    assert.ok(outcome.isWhole);
    // 64 for 20 each time.
    assert.ok(share < 3.6, `${share} times the DATA`);
  });
});
