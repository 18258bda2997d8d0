import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { type Waiting, TimerWheel } from './timer-wheel.ts';

class Sleeper implements Waiting {
  deadlineMs: number;
  readonly wokenAtMs: number[] = [];

  constructor(afterMs: number) {
    this.deadlineMs = performance.now() + afterMs;
  }

  onDeadline(): void {
    this.wokenAtMs.push(performance.now());
    this.deadlineMs = Infinity;
  }
}

/** Waits until nobody waits any more. */
async function untilEmpty(wheel: TimerWheel): Promise<void> {
  while (wheel.size > 0) await sleep(5);
}

test('each is woken once, not before its deadline and not much after, also beyond one turn of the wheel', async () => {
  const wheel = new TimerWheel();
  const sleepers = [0, 1, 2, 7, 40, 41, 300, 511, 512, 700].map((afterMs) => new Sleeper(afterMs));
  const due = sleepers.map((sleeper) => sleeper.deadlineMs);
  for (const sleeper of sleepers) wheel.set(sleeper);
  await untilEmpty(wheel);
  await sleep(20);
  for (const [index, sleeper] of sleepers.entries()) {
    const lateMs = (sleeper.wokenAtMs[0] ?? Infinity) - (due[index] ?? 0);
    assert.equal(sleeper.wokenAtMs.length, 1, `sleeper ${index}`);
    // Not a turn of the wheel (512 ms); how much less is the machine's affair.
    assert.ok(lateMs >= 0 && lateMs < 400, `sleeper ${index} ${lateMs} ms late`);
  }
  assert.equal(wheel.size, 0);
});

test('a deadline that is put off or comes nearer counts as it is at last', async () => {
  const wheel = new TimerWheel();
  const later = new Sleeper(10);
  const sooner = new Sleeper(400);
  for (const sleeper of [later, sooner]) wheel.set(sleeper);
  later.deadlineMs += 100;
  wheel.set(later);
  sooner.deadlineMs -= 370;
  wheel.set(sooner);
  const dueAtMs = later.deadlineMs;
  await untilEmpty(wheel);
  const [soonerAtMs = Infinity] = sooner.wokenAtMs;
  const [laterAtMs = 0] = later.wokenAtMs;
  assert.ok(laterAtMs >= dueAtMs && soonerAtMs <= laterAtMs, `${soonerAtMs} ms, ${laterAtMs} ms`);
  assert.deepEqual([sooner.wokenAtMs.length, later.wokenAtMs.length], [1, 1]);
});

test('who is deleted sleeps on, also when another deletes it', async () => {
  const wheel = new TimerWheel();
  const [first, second] = [new Sleeper(5), new Sleeper(5)];
  for (const sleeper of [first, second]) wheel.set(sleeper);
  first.onDeadline = () => {
    first.deadlineMs = Infinity;
    wheel.delete(second);
  };
  await untilEmpty(wheel);
  assert.equal(second.wokenAtMs.length, 0);
});

test('what has arrived while the process stood still is heard before anybody is late', async () => {
  const wheel = new TimerWheel();
  const sleeper = new Sleeper(20);
  wheel.set(sleeper);
  const [busy, near, far] = [createSocket('udp4'), createSocket('udp4'), createSocket('udp4')];
  try {
    for (const socket of [busy, near, far]) socket.bindSync({ address: '127.0.0.1' });
    far.connectSync(near.address().port, '127.0.0.1');
    near.on('message', () => void (sleeper.deadlineMs = Infinity));
    // While one datagram is looked at, the answer of another arrives and the deadline passes.
    busy.on('message', () => {
      far.send('answer');
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 50);
    });
    near.send('busy', busy.address().port, '127.0.0.1');
    await once(near, 'message', { signal: AbortSignal.timeout(5000) });
    await sleep(10);
    assert.equal(sleeper.wokenAtMs.length, 0);
  } finally {
    for (const socket of [busy, near, far]) socket.close();
  }
});
