import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import {
  all,
  cleanText,
  decodeText,
  find,
  formatManifests,
  ManifestError,
  parseManifest,
  parseManifests,
} from './manifest.ts';
import type { Field } from './manifest.ts';

/** Names and values of all manifests of a text. */
const read = (text: string): Field[][] =>
  parseManifests(text).map(({ pairs }) => pairs.map(({ name, value }) => [name, value] as const));

/** The value of `x` in a manifest that ends with this text. */
const valueOf = (text: string): string | undefined => find(parseManifest(`: 1\n${text}`), 'x');

/** What is wrong with a text, and where. */
const errorOf = (text: string): string => {
  try {
    parseManifests(text, { name: 'm' });
  } catch (error) {
    if (error instanceof ManifestError) return `${error.line}:${error.column} ${error.reason}`;
    throw error;
  }
  return 'no error';
};

test('parseManifests() drops blanks around names and values, comments and empty lines', () => {
  assert.deepEqual(read('\n  # first\n : 1\n\n\t# second\n  a \t:  b c \t\n#d: e\nf:g#h\n'), [
    [
      ['a', 'b c'],
      ['f', 'g#h'],
    ],
  ]);
});

test('parseManifests() begins another manifest at an empty name, with or without the version', () => {
  assert.deepEqual(read(': 1\na: 1\n:\n: 1\nb: 2'), [[['a', '1']], [], [['b', '2']]]);
});

test('parseManifests() keeps case, order, repeated and unknown names', () => {
  const manifest = parseManifest(': 1\nA: 1\na: 2\nA: 3\nwhat-is-this: 4\n');
  assert.deepEqual(all(manifest, 'A'), ['1', '3']);
  assert.equal(find(manifest, 'a'), '2');
  assert.equal(find(manifest, 'what-is-this'), '4');
  assert.equal(find(manifest, 'none'), undefined);
});

test('parseManifests() takes line ends LF, CR LF and CR', () => {
  assert.deepEqual(read(': 1\r\na: 1\rb: 2\nc:\r\n\\\r\nx\r\ny\r\n\\\r\n'), [
    [
      ['a', '1'],
      ['b', '2'],
      ['c', 'x\ny'],
    ],
  ]);
});

test('a backslash before the newline joins lines, two at the end are one', () => {
  assert.equal(valueOf('x: a\\\nb \\\n c\n'), 'ab  c');
  assert.equal(valueOf('x: a\\\\\ny: b\n'), 'a\\');
  assert.equal(valueOf('x: a\\\\\\\n'), 'a\\\\');
  assert.equal(valueOf('x: \\\\\n'), '\\');
  assert.equal(valueOf('x: a\\b\\\\c\n'), 'a\\b\\\\c');
  assert.equal(valueOf('x: a\\'), 'a');
  assert.equal(valueOf('x: a\\\n\\\nb\n'), 'a\nb', 'a joined line that is a backslash alone is a newline');
});

test('a value of several lines begins on the line of its name or on the next', () => {
  assert.equal(valueOf('x:\n\\\none\n two \n\n# three\n\\\ny: z\n'), 'one\n two \n\n# three');
  assert.equal(valueOf('x: \\\none\ntwo\n\\\n'), 'one\ntwo');
  assert.equal(valueOf('x:\n\\\n\\\n'), '');
  assert.equal(valueOf('x: \\\n\\\n'), '');
  assert.equal(valueOf('x:\ny: z\n'), '');
});

test('a value of several lines may end with the file', () => {
  assert.equal(valueOf('x:\n\\\none\ntwo'), 'one\ntwo');
  assert.equal(valueOf('x: \\'), '');
});

test('within a value of several lines lines are joined, and a backslash alone is written twice', () => {
  assert.equal(valueOf('x:\n\\\none\\\ntwo\n\\\\\nthree\\\\\n\\\n'), 'onetwo\n\\\nthree\\');
});

test('every error names line and column', () => {
  assert.equal(errorOf(''), '1:1 it holds no manifest');
  assert.equal(errorOf('# nothing\n\n'), '3:1 it holds no manifest');
  assert.equal(errorOf('name: x\n'), '1:1 the format version is expected before the name "name"');
  assert.equal(errorOf(':\n'), '1:2 the format version is missing');
  assert.equal(errorOf(': 2\n'), '1:3 format version "2" is not known');
  assert.equal(errorOf(': 1\n  two words\n'), '2:7 ":" expected after the name "two"');
  assert.equal(errorOf(': 1\nname'), '2:5 ":" expected after the name "name"');
  assert.equal(errorOf(': 1\nä😀: \u0000\n'), '2:5 the character U+0000 is not allowed');
  assert.equal(errorOf(': 1\na: \ud800\n'), '2:4 the character U+D800 is not allowed');
});

test('an error says what was read and what may help', () => {
  assert.throws(() => parseManifests('oops', { name: 'task.manifest' }), {
    message: 'Cannot read task.manifest, line 1, column 5: ":" expected after the name "oops"',
    hint: /A line is "name: value"/,
  });
});

test('parseManifest() refuses a second manifest', () => {
  assert.throws(() => parseManifest(': 1\na: 1\n:\n'), { line: 3 });
});

test('decodeText() says where bytes are not UTF-8', () => {
  const bytes = Buffer.concat([Buffer.from(': 1\na: ä'), Buffer.from([0xff, 0x0a])]);
  assert.throws(() => decodeText(bytes), { line: 2, column: 6 });
  assert.throws(() => decodeText(Uint8Array.of(0x61, 0xc3)), { line: 1 });
  assert.equal(decodeText(Buffer.from('ä')), 'ä');
});

test('formatManifests() refuses what the syntax cannot hold', () => {
  for (const name of ['', 'a b', 'a:b', '#a', 'a\nb', 'a\u0000']) {
    assert.throws(() => formatManifests([[[name, 'x']]]), RangeError, JSON.stringify(name));
  }
  assert.throws(() => formatManifests([[['a', '\u001b[1m']]]), RangeError);
});

test('cleanText() makes any text fit', () => {
  assert.equal(cleanText('\u001b[1mok\r\n\u0000\ud800'), '?[1mok\n??');
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (text) => {
      const cleaned = cleanText(text);
      assert.deepEqual(read(formatManifests([[['log', cleaned]]])), [[['log', cleaned]]]);
    }),
  );
});

const name = fc
  .string({ minLength: 1, unit: fc.constantFrom('a', 'B', '-', '1', '\\', '#', 'ä', '_') })
  .filter((candidate) => !candidate.startsWith('#'));
const value = fc.string({ unit: fc.constantFrom('a', ' ', '\t', '\n', '\\', ':', '#', 'ß', '😀', '1') });

test('what formatManifests() writes, parseManifests() reads back', () => {
  fc.assert(
    fc.property(fc.array(fc.array(fc.tuple(name, value)), { minLength: 1 }), (list) => {
      assert.deepEqual(read(formatManifests(list)), list);
    }),
    { numRuns: 1000 },
  );
});

test('parseManifests() either reads a text or throws ManifestError', () => {
  const piece = fc.constantFrom(': 1', ':', 'a', ': ', '\n', '\\', '\r', ' ', '#', 'b: c', '\u0007');
  fc.assert(
    fc.property(fc.array(piece), (pieces) => {
      try {
        parseManifests(pieces.join(''));
      } catch (error) {
        assert.ok(error instanceof ManifestError);
        assert.ok(error.line >= 1 && error.column >= 1);
      }
    }),
    { numRuns: 1000 },
  );
});

test('15 MB of log, the longest result, are read in seconds at most', () => {
  const log = 'cc -c a.c \\\n'.repeat(1_250_000);
  const text = formatManifests([[['log', log]]]);
  const start = performance.now();
  assert.equal(find(parseManifest(text), 'log'), log);
  assert.ok(performance.now() - start < 5000);
});
