import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Vigil } from './driver-vigil.ts';

test('a vigil is kept for a moment after a packet, and not without one', () => {
  const vigil = new Vigil();
  assert.equal(vigil.keep(performance.now()), false);
  assert.equal(vigil.begin(), true);
  const nowMs = performance.now();
  assert.equal(vigil.keep(nowMs - 1), true);
  assert.equal(vigil.keep(nowMs + 1), false);
});

test('after a vigil in vain some packets are not waited for, each time twice as many, up to 1024', () => {
  const vigil = new Vigil();
  const skips: number[] = [];
  for (let round = 0; round < 13; round += 1) {
    let skipped = 0;
    while (!vigil.begin()) skipped += 1;
    skips.push(skipped);
    vigil.keep(performance.now() - 1);
    vigil.keep(Infinity);
  }
  assert.deepEqual(skips, [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1024]);
});

test('an answer in time makes all packets worth the wait again', () => {
  const vigil = new Vigil();
  for (let round = 0; round < 4; round += 1) {
    while (!vigil.begin());
    vigil.keep(performance.now() - 1);
    vigil.keep(Infinity);
  }
  while (!vigil.begin());
  vigil.keep(performance.now() - 1);
  vigil.end();
  assert.equal(vigil.begin(), true);
  vigil.keep(performance.now() - 1);
  vigil.keep(Infinity);
  assert.equal(vigil.begin(), false);
  assert.equal(vigil.begin(), true);
});

test('what is heard before anybody has waited says nothing', () => {
  const vigil = new Vigil();
  vigil.begin();
  vigil.keep(performance.now() - 1);
  vigil.keep(Infinity);
  assert.equal(vigil.begin(), false);
  vigil.begin();
  vigil.end();
  vigil.begin();
  vigil.keep(performance.now() - 1);
  vigil.keep(Infinity);
  const skips = [vigil.begin(), vigil.begin(), vigil.begin()];
  assert.deepEqual(skips, [false, false, true]);
});
