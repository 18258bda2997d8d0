import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { decodeLz4Block } from './lz4.ts';

const decode = (hex: string, maximum = 1000): string =>
  Buffer.from(decodeLz4Block(Buffer.from(hex.replaceAll(' ', ''), 'hex'), maximum)).toString('latin1');

test('decodeLz4Block() copies literals', () => {
  assert.equal(decode('30 616263'), 'abc');
  // 15 and more: the length goes on, here 15 + 255 + 0.
  assert.equal(decode(`f0 ff 00 ${'61'.repeat(270)}`), 'a'.repeat(270));
  assert.equal(decode(''), '');
});

test('decodeLz4Block() copies matches, also those that reach into themselves', () => {
  // "abcd", then 4 bytes from 4 back, then the last literals.
  assert.equal(decode('40 61626364 0400 50 2d2d2d2d2d'), 'abcdabcd-----');
  // "a", then 4 + 15 + 3 bytes from 1 back.
  assert.equal(decode('1f 61 0100 03 10 62'), `${'a'.repeat(23)}b`);
});

test('decodeLz4Block() refuses what is cut short, refers to nothing, or is too large', () => {
  assert.throws(() => decode('30 6162'), /cut short/);
  assert.throws(() => decode('10 61 0200'), /2 bytes back/);
  assert.throws(() => decode('10 61 0000'), /0 bytes back/);
  assert.throws(() => decode('10 61 01'), /ends after/);
  assert.throws(() => decode('1f 61 0100 ff'), /ends after/);
  assert.throws(() => decode('1f 61 0100 ffff00', 100), /more than 100 bytes/);
  assert.throws(() => decode('30 616263', 2), /more than 2 bytes/);
});

test('decodeLz4Block() never writes more than it may, whatever comes', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (input) => {
      try {
        assert.ok(decodeLz4Block(input, 64).length <= 64);
      } catch (error) {
        assert.ok(error instanceof RangeError);
      }
    }),
  );
});
