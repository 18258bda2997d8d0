import assert from 'node:assert/strict';
import { test } from 'node:test';

import * as fc from 'fast-check';

import { decodeNetascii, encodeNetascii, finishNetascii, netasciiLength } from './netascii.ts';

const encode = (text: string): string => Buffer.from(encodeNetascii(Buffer.from(text, 'latin1'))).toString('latin1');

/** Decodes chunk by chunk, as blocks come. */
function decodeAll(chunks: readonly Uint8Array[]): Uint8Array {
  const parts: Uint8Array[] = [];
  let pendingCr = false;
  for (const chunk of chunks) {
    const decoded = decodeNetascii(chunk, pendingCr);
    parts.push(decoded.bytes);
    pendingCr = decoded.pendingCr;
  }
  return Buffer.concat([...parts, finishNetascii(pendingCr)]);
}

const decode = (...chunks: string[]): string =>
  Buffer.from(decodeAll(chunks.map((chunk) => Buffer.from(chunk, 'latin1')))).toString('latin1');

test('encodeNetascii() writes LF as CR LF and CR as CR NUL', () => {
  assert.equal(encode('a\nb\rc'), 'a\r\nb\r\0c');
  assert.equal(encode('\r\n'), '\r\0\r\n');
  assert.equal(encode(''), '');
});

test('decodeNetascii() puts pairs together across the border of two blocks', () => {
  assert.equal(decode('a\r', '\nb\r', '\0c'), 'a\nb\rc');
  assert.equal(decode('a\r', '', '\n'), 'a\n');
});

test('decodeNetascii() keeps what is no pair', () => {
  assert.equal(decode('a\rb\n'), 'a\rb\n');
  assert.equal(decode('\r\r\n'), '\r\n');
  assert.equal(decode('end\r'), 'end\r');
});

test('text comes back whole, however it is cut', () => {
  const text = fc.array(fc.constantFrom(0, 10, 13, 97), { maxLength: 60 });
  fc.assert(
    fc.property(text, fc.integer({ min: 1, max: 7 }), (bytes, size) => {
      const original = Uint8Array.from(bytes);
      const encoded = encodeNetascii(original);
      assert.equal(encoded.length, netasciiLength(original));
      const chunks: Uint8Array[] = [];
      for (let at = 0; at < encoded.length; at += size) chunks.push(encoded.subarray(at, at + size));
      assert.deepEqual(Buffer.from(decodeAll(chunks)), Buffer.from(original));
    }),
  );
});
