import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { unifiedDiff } from './diff.ts';

test('unifiedDiff() shows changes with three lines around them, and joins those that are near', () => {
  const before = Array.from({ length: 20 }, (_, index) => `line ${index + 1}\n`);
  const after = before.with(1, 'changed\n').with(7, 'too\n').with(18, 'far\n');
  assert.deepEqual(unifiedDiff('/f', before.join(''), after.join('')), [
    '--- /f',
    '+++ /f',
    '@@ -1,11 +1,11 @@',
    ' line 1',
    '-line 2',
    '+changed',
    ...[3, 4, 5, 6, 7].map((line) => ` line ${line}`),
    '-line 8',
    '+too',
    ...[9, 10, 11].map((line) => ` line ${line}`),
    '@@ -16,5 +16,5 @@',
    ...[16, 17, 18].map((line) => ` line ${line}`),
    '-line 19',
    '+far',
    ' line 20',
  ]);
});

test('unifiedDiff() of a new file, a removed one, none, and one without a last newline', () => {
  assert.deepEqual(unifiedDiff('/f', undefined, 'a\n'), ['--- /dev/null', '+++ /f', '@@ -0,0 +1 @@', '+a']);
  assert.deepEqual(unifiedDiff('/f', 'a\n', undefined), ['--- /f', '+++ /dev/null', '@@ -1 +0,0 @@', '-a']);
  assert.deepEqual(unifiedDiff('/f', 'a', 'a'), []);
  assert.deepEqual(unifiedDiff('/f', 'a\n', 'a').slice(2), ['@@ -1 +1 @@', '-a', '+a', '\\ No newline at end of file']);
});

const TEXT = fc
  .array(fc.constantFrom('a', 'b', 'c', ''), { maxLength: 14 })
  .chain((lines) => fc.constantFrom(lines.join('\n'), `${lines.join('\n')}\n`));

test('what unifiedDiff() says, patch(1) does', () => {
  const folder = mkdtempSync(join(tmpdir(), 'buildos-diff-'));
  const path = join(folder, 'f');
  try {
    if (spawnSync('patch', ['--version']).error !== undefined) return; // the table above has to do
    fc.assert(
      fc.property(TEXT, TEXT, (before, after) => {
        fc.pre(before !== '' && after !== '' && before !== after);
        writeFileSync(path, before);
        const input = `${unifiedDiff('f', before, after).join('\n')}\n`;
        const { status, stdout } = spawnSync('patch', ['-s', '-o', '-', path], { input, encoding: 'utf8' });
        assert.equal(status, 0, `${input}\n${stdout}`);
        assert.equal(stdout, after);
      }),
      { numRuns: 30 },
    );
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
