import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseAssignments, parseWords, WordsError } from './words.ts';

test('parseWords() cuts at blanks and keeps what is quoted together', () => {
  assert.deepEqual(parseWords(`  --a  "b c" 'd "e' f\\ g h"i"'j' "" `), ['--a', 'b c', 'd "e', 'f g', 'hij', '']);
  assert.deepEqual(parseWords(''), []);
});

test('parseWords() keeps a backslash in double quotes before an ordinary character', () => {
  assert.deepEqual(parseWords(String.raw`"a\d \" \\"`), [String.raw`a\d " \ `.trimEnd()]);
});

test('parseWords() refuses an open quote', () => {
  assert.throws(() => parseWords(`'a`), WordsError);
});

test('parseAssignments() reads NAME=value words, values with = too', () => {
  assert.deepEqual(parseAssignments(`A=1 CFLAGS="-O2 -g" B=c=d E=`), { A: '1', CFLAGS: '-O2 -g', B: 'c=d', E: '' });
});

test('parseAssignments() refuses a bare word and says what to write', () => {
  assert.throws(() => parseAssignments('default'), { name: 'WordsError', hint: /NAME=value/ });
});
