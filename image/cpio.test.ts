import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { encodeCpio } from './cpio.ts';

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

test('encodeCpio() writes the header of buffer-format.rst, aligned to 4 bytes', () => {
  const archive = encodeCpio([{ kind: 'file', path: 'a', mode: 0o644, content: bytes('hello') }]);
  const text = new TextDecoder().decode(archive);
  assert.equal(text.slice(0, 6), '070701');
  assert.equal(text.slice(14, 22), '000081a4', 'mode: regular file, 0644');
  assert.equal(text.slice(54, 62), '00000005', 'size');
  assert.equal(text.slice(94, 102), '00000002', 'name with its NUL');
  assert.equal(text.slice(110, 112), 'a\0');
  assert.equal(text.slice(112, 117), 'hello');
  assert.equal(archive.length % 4, 0);
  assert.ok(text.includes('TRAILER!!!\0'));
});

test('encodeCpio() adds missing folders once, before what is in them', () => {
  const archive = encodeCpio([
    { kind: 'file', path: 'lib/x/a', mode: 0o644, content: bytes('1') },
    { kind: 'file', path: 'lib/x/b', mode: 0o644, content: bytes('2') },
    { kind: 'directory', path: 'lib', mode: 0o700 },
  ]);
  const listed = spawnSync('cpio', ['-t', '--quiet'], { input: archive, encoding: 'utf8' });
  if (listed.error === undefined)
    assert.deepEqual(listed.stdout.trim().split('\n'), ['lib', 'lib/x', 'lib/x/a', 'lib/x/b']);
});

test('encodeCpio() refuses paths that leave the root or come twice', () => {
  for (const path of ['/init', '../x', 'a//b', 'a/./b', '']) {
    assert.throws(() => encodeCpio([{ kind: 'symlink', path, target: 'x' }]), RangeError, path);
  }
  const file = { kind: 'file', path: 'a', mode: 0o644, content: bytes('') } as const;
  assert.throws(() => encodeCpio([file, file]), /comes twice/);
});

test('encodeCpio() gives the same bytes for the same entries, in lengths that other segments can follow', () => {
  fc.assert(
    fc.property(
      fc.uniqueArray(fc.stringMatching(/^[a-z]{1,8}$/), { maxLength: 8 }),
      fc.uint8Array(),
      (names, content) => {
        const entries = names.map((path) => ({ kind: 'file', path, mode: 0o600, content }) as const);
        const archive = encodeCpio(entries);
        assert.deepEqual(archive, encodeCpio(entries));
        assert.equal(archive.length % 4, 0);
      },
    ),
  );
});
