import assert from 'node:assert/strict';
import {
  closeSync,
  mkdirSync,
  mkdtempDisposableSync,
  readFileSync,
  renameSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

import * as fc from 'fast-check';

import { RefusedError } from './error.ts';
import { openToRead, parseName } from './folder.ts';

/** Reads as the server does; gives the content, or the TFTP error code. */
function readBy(folder: string, name: string): string | number {
  try {
    const fd = openToRead(folder, parseName(name));
    try {
      return readFileSync(fd, 'utf8');
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    if (error instanceof RefusedError) return error.code;
    throw error;
  }
}

test('parseName() splits at / and \\, and takes a leading one for the folder itself', () => {
  assert.deepEqual(parseName('a/b.c'), ['a', 'b.c']);
  assert.deepEqual(parseName('/a//./b/'), ['a', 'b']);
  assert.deepEqual(parseName('\\Boot\\BCD'), ['Boot', 'BCD']);
  assert.deepEqual(parseName('%2e%2e'), ['%2e%2e']);
});

test('parseName() refuses ways out, control characters, hidden and empty names', () => {
  for (const name of ['..', '../a', 'a/../b', 'a\\..\\b', '/..', 'a/..', 'a\nb', 'a\u007f', '\u0001']) {
    assert.throws(() => parseName(name), { name: 'RefusedError', code: 2 }, name);
  }
  for (const name of ['/', '.', './', '.a', 'a/.b/c', 'x'.repeat(256), 'a/'.repeat(33)]) {
    assert.throws(() => parseName(name), { name: 'RefusedError', code: 1 }, name);
  }
});

test('parseName() never gives a part that leads elsewhere', () => {
  const part = fc.constantFrom('..', '.', '', 'a', '.b', '...', '/', '\\', '%2e', '\0', 'ä', '..\\..', '~');
  fc.assert(
    fc.property(fc.array(part, { maxLength: 8 }), fc.constantFrom('/', '\\', ''), (parts, separator) => {
      let given: readonly string[];
      try {
        given = parseName(parts.join(separator));
      } catch (error) {
        assert.ok(error instanceof RefusedError);
        return;
      }
      assert.ok(given.length > 0 && given.every((value) => value !== '' && !/^\.|[/\\\0]/.test(value)));
    }),
  );
});

test('only regular files below the folder are opened', () => {
  using dir = mkdtempDisposableSync(join(tmpdir(), 'tftp-folder-'));
  const folder = join(dir.path, 'root');
  mkdirSync(join(folder, 'sub'), { recursive: true });
  writeFileSync(join(dir.path, 'secret'), 'secret');
  writeFileSync(join(folder, 'a'), 'A');
  writeFileSync(join(folder, 'sub', 'b'), 'B');
  symlinkSync('a', join(folder, 'link'));
  symlinkSync('../secret', join(folder, 'out'));
  symlinkSync('..', join(folder, 'up'));
  symlinkSync('/dev/zero', join(folder, 'zero'));
  assert.equal(readBy(folder, 'a'), 'A');
  assert.equal(readBy(folder, '/sub/b'), 'B');
  assert.equal(readBy(folder, 'nothing'), 1);
  assert.equal(readBy(folder, 'a/b'), 1);
  assert.equal(readBy(folder, 'sub'), 2);
  assert.equal(readBy(folder, 'link'), 2);
  assert.equal(readBy(folder, 'out'), 2);
  assert.equal(readBy(folder, 'zero'), 2);
  assert.equal(readBy(folder, 'up/secret'), 1);
  assert.equal(readBy(folder, '../secret'), 2);
  assert.equal(readBy(join(dir.path, 'absent'), 'a'), 1);
});

test('a folder that turns into a symlink is not followed', () => {
  using dir = mkdtempDisposableSync(join(tmpdir(), 'tftp-swap-'));
  const folder = join(dir.path, 'root');
  const outside = join(dir.path, 'outside');
  mkdirSync(join(folder, 'sub'), { recursive: true });
  mkdirSync(outside);
  writeFileSync(join(folder, 'sub', 'file'), 'inside');
  writeFileSync(join(outside, 'file'), 'outside');
  renameSync(join(folder, 'sub'), join(folder, 'was'));
  symlinkSync(outside, join(folder, 'sub'));
  assert.equal(readBy(folder, 'sub/file'), 1);
  assert.equal(readBy(folder, 'was/file'), 'inside');
});
