import assert from 'node:assert/strict';
import { test } from 'node:test';
import { cleanLog, HeadTail } from './log-text.ts';

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

test('cleanLog() drops colours and titles, and keeps tabs and newlines', () => {
  assert.equal(cleanLog(bytes('\u001B[1;31mred\u001B[0m\t\u001B]0;title\u0007x\n')), 'red\tx\n');
});

test('cleanLog() turns carriage returns into newlines', () => {
  assert.equal(cleanLog(bytes('10%\r20%\r\nend\r')), '10%\n20%\nend\n');
});

test('cleanLog() replaces control characters and bytes that are no UTF-8', () => {
  assert.equal(cleanLog(Uint8Array.of(0x61, 0, 0x08, 0xff, 0x62)), 'a??\u{FFFD}b');
  assert.equal(cleanLog(bytes('grüße ✓ \u{1F600}')), 'grüße ✓ \u{1F600}');
});

test('HeadTail keeps all of a short log', () => {
  const log = new HeadTail(100);
  log.add(bytes('a'.repeat(60)));
  log.add(bytes('b'.repeat(40)));
  assert.equal(log.text(), 'a'.repeat(60) + 'b'.repeat(40));
});

test('HeadTail keeps beginning and end of a long log and says what is missing', () => {
  const log = new HeadTail(20);
  for (let line = 0; line < 100; line += 1) log.add(bytes(`${String(line).padStart(4, '0')}\n`));
  const text = log.text();
  assert.match(text, /^0000\n0001\n\n\[\.\.\. \d+ bytes left out here/);
  assert.match(text, /0098\n0099\n$/);
});
