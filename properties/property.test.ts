import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { z } from 'zod';
import type { Json } from '../connections/connection.ts';
import { has, note } from './_toy.ts';
import { arg } from './args.ts';
import { canonicalJson } from './canonical-json.ts';
import { applicationDigest, defineProperty, describeApplication, readRegistered, registeredIds } from './property.ts';

const describe = (): string => 'x';

test('an application is plain data, and its module describes it', () => {
  assert.deepEqual(has('a', 'b'), { p: 'toy.has', a: ['a', 'b'] });
  assert.equal(describeApplication({ p: 'toy.has', a: ['a', 'b'] }), 'a=b');
});

test('equal data has the same digest, whatever the order of keys; other data has another', () => {
  const one = { p: 'x', a: [{ b: 1, a: [true, null] }] };
  const same = { a: [{ a: [true, null], b: 1 }], p: 'x' };
  assert.equal(applicationDigest(one), applicationDigest(same));
  assert.match(applicationDigest(one), /^[0-9a-f]{64}$/);
  assert.notEqual(applicationDigest(one), applicationDigest({ p: 'x', a: [{ b: 2, a: [true, null] }] }));
});

test('canonicalJson() is JSON of the same data', () => {
  fc.assert(
    fc.property(fc.jsonValue({ maxDepth: 3 }), (value) => {
      const json: Json = JSON.parse(JSON.stringify(value));
      assert.deepEqual(JSON.parse(canonicalJson(json)), json);
    }),
  );
});

test('a definition that can do nothing is refused', () => {
  assert.throws(() => defineProperty({ id: 'test.nothing', kind: 'posix', describe }), /hostattrs, apply or unapply/);
  assert.throws(
    () => defineProperty({ id: 'test.checkOnly', kind: 'posix', describe, check: () => true, hostattrs: () => ({}) }),
    /can check but not apply/,
  );
});

test('an id is a name, and is taken once', () => {
  const apply = (): void => {};
  assert.throws(() => defineProperty({ id: 'Not An Id', kind: 'posix', describe, apply }), TypeError);
  assert.throws(() => defineProperty({ id: 'toy.has', kind: 'posix', describe, apply }), /twice/);
});

test('arguments that are no plain data are refused when the host is defined', () => {
  const any = defineProperty<[value: unknown]>({ id: 'test.any', kind: 'posix', describe, apply: () => {} });
  for (const value of [new Date(), new Uint8Array(2), () => 1, Number.NaN, 1n, Symbol('x'), [undefined]]) {
    assert.throws(() => any(value), /plain data/);
  }
  assert.deepEqual(any({ a: 1, b: undefined }), { p: 'test.any', a: [{ a: 1 }] });
});

test('refuse() of a definition refuses wrong arguments at once', () => {
  const small = defineProperty<[value: number]>({
    id: 'test.small',
    kind: 'posix',
    describe,
    args: [arg('value', z.int(), 'a number')],
    refuse: (value) => {
      if (value > 9) throw new RangeError(`${value} is too big`);
    },
    apply: () => {},
  });
  assert.throws(() => small(10), /Cannot apply test.small at .*property.test.ts:\d+: 10 is too big/);
});

test('an unknown id is told', () => {
  assert.throws(() => readRegistered('no.such'), /imported/);
  assert.ok(registeredIds().includes(note('x').p));
});
