import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ConsoleLines } from './console.ts';

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

test('lines come when they are complete, whatever the chunks', () => {
  const lines = new ConsoleLines();
  assert.deepEqual(lines.push(bytes('Build')), []);
  assert.deepEqual(lines.push(bytes(' OS\r\nnext')), ['Build OS']);
  assert.equal(lines.unfinished, 'next');
  assert.deepEqual(lines.push(bytes('\n\n')), ['next']);
});

test('escape sequences of firmware are taken out', () => {
  const lines = new ConsoleLines();
  assert.deepEqual(lines.push(bytes('\u001B[2J\u001B[01;01H\u001B[=3h\u001B[0m>>Start PXE\u0007 over IPv4.\r\r\n')), [
    '>>Start PXE over IPv4.',
  ]);
});

test('a character cut in two chunks is whole, and rubbish without newlines is bounded', () => {
  const lines = new ConsoleLines();
  lines.push(Uint8Array.of(0xc3));
  assert.deepEqual(lines.push(Uint8Array.of(0xa4, 0x0a)), ['ä']);
  assert.equal(lines.push(bytes('x'.repeat(20_000))).length, 1);
});
