import assert from 'node:assert/strict';
import { test } from 'node:test';
import { array, boolean, constantFrom, integer, assert as holds, property, tuple } from 'fast-check';
import {
  type Budget,
  BudgetError,
  DAY_MS,
  EMPTY_BUDGET,
  FIRST_PAUSE_MS,
  REBOOTS_PER_DAY,
  clampToNow,
  formatBudget,
  judge,
  judgeWithoutMemory,
  parseBudget,
  recordReached,
  recordReboot,
} from './budget.ts';

const MINUTE = 60_000;
const START = Date.UTC(2026, 0, 1);

/** A budget with reboots for `targets` at these minutes. */
const after = (targets: readonly string[], ...minutes: readonly number[]): Budget => {
  let budget = EMPTY_BUDGET;
  for (const minute of minutes) budget = recordReboot(budget, targets, START + minute * MINUTE);
  return budget;
};
const at = (minute: number): number => START + minute * MINUTE;

test('judge() gives a target three attempts, 10 and 20 minutes apart, then holds', () => {
  const target = ['image b'];
  assert.deepEqual(judge(EMPTY_BUDGET, target, at(0)), { kind: 'go' });
  const one = after(target, 0);
  assert.deepEqual(judge(one, target, at(9.9)), {
    kind: 'wait',
    untilMs: at(10),
    why: 'reboot 1 of 3 did not reach image b',
  });
  assert.equal(judge(one, target, at(10)).kind, 'go');
  const two = after(target, 0, 10);
  assert.equal(judge(two, target, at(29.9)).kind, 'wait');
  assert.equal(judge(two, target, at(30)).kind, 'go');
  const three = after(target, 0, 10, 30);
  assert.deepEqual(judge(three, target, at(60 * 24 * 365)), { kind: 'held', why: '3 reboots did not reach image b' });
  assert.equal(judge(three, ['image c'], at(31)).kind, 'go', 'another target is free');
  assert.equal(judge(three, ['image b', 'toolchain default x'], at(31)).kind, 'go', 'one free target is enough');
});

test('judge() allows six reboots in 24 hours, whatever they are for', () => {
  let budget = EMPTY_BUDGET;
  for (let hour = 0; hour < 6; hour += 1) budget = recordReboot(budget, [`image ${hour}`], at(60 * hour));
  const verdict = judge(budget, ['image new'], at(60 * 6));
  assert.deepEqual(verdict, {
    kind: 'wait',
    untilMs: at(60 * 24),
    why: '6 reboots in the last 24 hours, 6 are allowed',
  });
  assert.equal(judge(budget, ['image new'], at(60 * 24)).kind, 'go');
  assert.equal(judge(budget, ['image 5'], at(60 * 24)).kind, 'go');
});

test('judge(): whatever is published and whenever, a host never reboots more often than it may', () => {
  holds(
    property(
      array(tuple(integer({ min: 1, max: 500 }), constantFrom('a', 'b', 'c'), boolean()), {
        maxLength: 400,
      }),
      (looks) => {
        let budget = EMPTY_BUDGET;
        let minute = 0;
        const reboots: { minute: number; target: string }[] = [];
        for (const [pause, target, isReached] of looks) {
          minute += pause;
          if (judge(budget, [target], at(minute)).kind !== 'go') continue;
          budget = parseBudget(formatBudget(recordReboot(budget, [target], at(minute))));
          reboots.push({ minute, target });
          if (isReached) {
            budget = recordReached(budget, target);
            reboots.push({ minute, target: '' });
          }
        }
        const real = reboots.filter(({ target }) => target !== '');
        for (const { minute: end } of real) {
          const day = real.filter((one) => one.minute <= end && one.minute > end - 24 * 60);
          assert.ok(day.length <= REBOOTS_PER_DAY);
        }
        for (const target of ['a', 'b', 'c']) {
          let inARow = 0;
          for (let index = 0; index < reboots.length; index += 1) {
            if (reboots[index]?.target !== target) continue;
            inARow = reboots[index + 1]?.target === '' ? 0 : inARow + 1;
            assert.ok(inARow <= 3);
          }
        }
      },
    ),
    { numRuns: 200 },
  );
});

test('a reboot in the future, by a clock that was wrong, counts as one made now', () => {
  const budget = after(['image b'], 60 * 24 * 365 * 20);
  assert.deepEqual(clampToNow(budget, at(0)).reboots, [{ atMs: at(0), targets: ['image b'] }]);
  assert.deepEqual(judge(budget, ['image b'], at(0)), {
    kind: 'wait',
    untilMs: at(0) + FIRST_PAUSE_MS,
    why: 'reboot 1 of 3 did not reach image b',
  });
});

test('recordReached() frees the target and keeps the day', () => {
  const budget = recordReached(after(['image b', 'toolchain default t'], 0, 10, 30), 'image b');
  assert.equal(judge(budget, ['image b'], at(31)).kind, 'go');
  assert.equal(judge(budget, ['toolchain default t'], at(31)).kind, 'held');
  assert.equal(budget.reboots.length, 3);
  assert.equal(recordReached(budget, 'image b'), budget, 'nothing to change: the same value');
});

test('recordReboot() remembers a bounded number', () => {
  let budget = EMPTY_BUDGET;
  for (let minute = 0; minute < 1000; minute += 1) budget = recordReboot(budget, ['image b'], at(minute));
  assert.equal(budget.reboots.length, 32);
});

test('parseBudget() reads what formatBudget() writes, and refuses every truncation', () => {
  for (const budget of [EMPTY_BUDGET, after(['image b', 'toolchain default t'], 0, 10)]) {
    const text = formatBudget(budget);
    assert.deepEqual(parseBudget(text), budget);
    for (let length = 0; length < text.trimEnd().length; length += 1) {
      assert.throws(() => parseBudget(text.slice(0, length)), BudgetError);
    }
  }
  for (const text of ['{}', '[]', '{"version":2,"reboots":[]}', '{"version":1,"reboots":[{"atMs":-1,"targets":[]}]}']) {
    assert.throws(() => parseBudget(text), BudgetError);
  }
});

test('without memory, a host that comes up with the old image again never reboots for it before a day has passed', () => {
  const witness = { looksBefore: 0, rebootsThisBoot: 0 };
  for (let looksSince = 0; looksSince < 100; looksSince += 1) {
    assert.notEqual(judgeWithoutMemory({ ...witness, looksSince, uptimeMs: DAY_MS - 1 }).kind, 'go');
  }
  assert.equal(judgeWithoutMemory({ ...witness, looksSince: 100, uptimeMs: DAY_MS }).kind, 'go');
});

test('without memory, a change that was seen to happen and stays is followed, once', () => {
  const witness = { looksBefore: 3, uptimeMs: 10 * MINUTE, rebootsThisBoot: 0 };
  assert.equal(judgeWithoutMemory({ ...witness, looksSince: 2 }).kind, 'wait');
  assert.equal(judgeWithoutMemory({ ...witness, looksSince: 3 }).kind, 'go');
  assert.equal(judgeWithoutMemory({ ...witness, looksBefore: 2, looksSince: 3 }).kind, 'wait', 'mirrors that disagree');
  assert.equal(judgeWithoutMemory({ ...witness, looksSince: 3, rebootsThisBoot: 1 }).kind, 'held');
});
