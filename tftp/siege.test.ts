import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Siege } from './siege.ts';

const MANY = { count: 5000, sinceMs: -Infinity };

test('all are taken while few wait for an answer, or none for long', () => {
  const siege = new Siege();
  for (let index = 0; index < 5000; index += 1) {
    assert.equal(siege.admits(`192.0.2.${index}`, { count: 255, sinceMs: 0 }, 10_000), 'freely');
    assert.equal(siege.admits(`192.0.2.${index}`, { count: 4096, sinceMs: 9000 }, 10_000), 'freely');
    siege.spend(1, 10_000);
  }
});

test('in a siege who has answered lately is taken, and strangers get a tenth of the time', () => {
  const siege = new Siege();
  siege.know('192.0.2.1');
  let taken = 0;
  let nowMs = 1000;
  for (let index = 0; index < 20_000; index += 1) {
    nowMs += 0.05;
    if (siege.admits(`198.51.100.${index}`, MANY, nowMs) === 'sparingly') {
      taken += 1;
      nowMs += 0.05;
      siege.spend(0.05, nowMs);
    }
    if (index % 100 === 0) assert.equal(siege.admits('192.0.2.1', MANY, nowMs), 'freely');
  }
  const share = (taken * 0.05) / (nowMs - 1000);
  assert.ok(share > 0.08 && share < 0.11, `${share} of the time`);
});

test('many refusals are a siege, too, until time has forgiven them; those of a known address are not', () => {
  const siege = new Siege();
  const few = { count: 0, sinceMs: Infinity };
  siege.know('192.0.2.1');
  for (let index = 0; index < 3000; index += 1) siege.refuse('192.0.2.1', 1000);
  for (let index = 0; index < 1000; index += 1) {
    assert.equal(siege.admits(`198.51.100.${index}`, few, 1000), 'freely');
    siege.refuse(`198.51.100.${index}`, 1000);
  }
  for (let index = 0; index < 50; index += 1) siege.refuse('198.51.100.1', 1000);
  assert.equal(siege.admits('203.0.113.1', few, 1000), 'sparingly');
  siege.spend(0.1, 1000);
  assert.equal(siege.admits('203.0.113.1', few, 1000.5), 'not');
  assert.equal(siege.admits('192.0.2.1', few, 1000.5), 'freely');
  assert.equal(siege.admits('203.0.113.1', few, 1051), 'freely');
});

test('addresses that answered longest ago are forgotten first', () => {
  const siege = new Siege();
  siege.know('first');
  siege.know('second');
  for (let index = 0; index < 8190; index += 1) siege.know(`other ${index}`);
  siege.know('first');
  siege.know('one more');
  siege.spend(1, 1000);
  assert.equal(siege.admits('first', MANY, 1000), 'freely');
  assert.equal(siege.admits('second', MANY, 1000), 'not');
});

test('what was passed over is told once a second', () => {
  const siege = new Siege();
  assert.equal(siege.tell(500), 0);
  siege.spend(1000, 1000);
  for (let index = 0; index < 7; index += 1) siege.admits('a', MANY, 1000);
  assert.equal(siege.tell(1000), 7);
  siege.admits('a', MANY, 1001);
  assert.equal(siege.tell(1999), 0);
  assert.equal(siege.tell(2000), 1);
  assert.equal(siege.tell(3000), 0);
});

test('one request that took long, or a process that was stopped in it, keeps strangers out for a second at most', () => {
  const siege = new Siege();
  siege.spend(60_000, 100_000);
  assert.equal(siege.admits('192.0.2.1', MANY, 100_100), 'not');
  assert.equal(siege.admits('192.0.2.1', MANY, 101_000), 'sparingly');
});
