import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { findPathProblem } from './_sums.ts';
import { formatSha256Sums, parseSha256Sums } from './sha256sums.ts';
import { formatToolchainList, parseToolchainList } from './toolchain-list.ts';

const A = 'a'.repeat(64);
const B = 'b'.repeat(64);

test('parseToolchainList() reads version and files; the id is the digest of the text', () => {
  const text = readFileSync(join(import.meta.dirname, 'testdata/toolchain.sha256'), 'utf8');
  const list = parseToolchainList(text);
  assert.equal(list.version, '20200710-1');
  assert.equal(list.disabled, false);
  assert.deepEqual(
    list.files.map(({ path }) => path),
    ['bmake/bmake_20200710.orig.tar.gz', 'bootstrap.sh', 'toolchain.json'],
  );
  assert.equal(list.id, createHash('sha256').update(text).digest('hex'));
  assert.equal(formatToolchainList(list), text);
});

test('parseToolchainList() knows a disabled toolchain, with and without a version', () => {
  assert.equal(parseToolchainList('disabled\n').disabled, true);
  assert.deepEqual(parseToolchainList('# 1.0\ndisabled').files, []);
  assert.equal(parseToolchainList('# 1.0\ndisabled').version, '1.0');
});

test('parseToolchainList() refuses what is not a list', () => {
  assert.throws(() => parseToolchainList(''), { line: 1, reason: /"# <version>" is expected, found ""/ });
  assert.throws(() => parseToolchainList('<html>'), { line: 1, hint: /is this URL the list itself/ });
  assert.throws(() => parseToolchainList('# 1\n'), { reason: 'it lists no files' });
  assert.throws(() => parseToolchainList(`# 1\n${A} *d/f\nabc *d/g\n`), { line: 3, reason: /"<sha256> \*<path>"/ });
  assert.throws(() => parseToolchainList(`# 1\n${A} *bootstrap.log\n`), { line: 2, reason: /the host's own/ });
});

test('file names that lead elsewhere are refused', () => {
  for (const [path, reason] of [
    ['/etc/passwd', /is absolute/],
    ['../x', /leads elsewhere/],
    ['a/../../x', /leads elsewhere/],
    ['./x', /leads elsewhere/],
    ['a//b', /an empty component/],
    ['a/', /an empty component/],
    ['a\tb', /a control character/],
    ['a\u0000b', /a control character/],
    ['a\\b', /a backslash/],
    ['x'.repeat(300), /longer than 255 bytes/],
  ] as const) {
    assert.throws(() => parseToolchainList(`# 1\n${A} *${path}\n`), { line: 2, column: 67, reason }, path);
    assert.throws(() => parseSha256Sums(`${A} *${path}\n`), { line: 1, reason }, path);
  }
});

test('a file that is listed twice, or that is also a directory, is refused', () => {
  assert.throws(() => parseToolchainList(`# 1\n${A} *d/f\n${B} *d/f\n`), { line: 3, reason: /listed twice/ });
  assert.throws(() => parseSha256Sums(`${A} *a/b/c\n${B} *a/b\n`), {
    line: 1,
    reason: '"a/b" is a file on line 2 and a directory here',
  });
});

test('parseSha256Sums() reads what sha256sum writes, in both modes', () => {
  assert.deepEqual(parseSha256Sums(`# ours\n${A.toUpperCase()}  one\r\n\n${B} *dir/two words\n`), [
    { sha256: A, path: 'one' },
    { sha256: B, path: 'dir/two words' },
  ]);
  assert.deepEqual(parseSha256Sums(''), []);
});

test('what formatSha256Sums() writes, parseSha256Sums() reads back', () => {
  const path = fc
    .string({ minLength: 1, unit: fc.constantFrom('a', '/', '.', ' ', '*', 'é', '#') })
    .filter((candidate) => findPathProblem(candidate) === undefined && !candidate.includes('/'));
  const sums = fc.uniqueArray(fc.record({ sha256: fc.constantFrom(A, B), path }, { noNullPrototype: true }), {
    selector: (sum) => sum.path,
  });
  fc.assert(
    fc.property(sums, (list) => {
      assert.deepEqual(parseSha256Sums(formatSha256Sums(list)), list);
    }),
  );
});
