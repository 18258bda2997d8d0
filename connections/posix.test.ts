import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { posixConnection, withEnvironment } from './_posix.ts';
import { type Connection, CommandError, FileError, text } from './connection.ts';
import { openLocal } from './local.ts';

const QUICK = { timeout: 30_000 };

/** A hop that changes nothing: words go through env(1), as every posix hop sends them. */
const through = (base: Connection, name: string): Connection =>
  posixConnection({ hop: [name], base, wrap: (argv, options) => withEnvironment(argv, options) });

const three = through(through(through(openLocal(), 'a'), 'b'), 'c');

test('withEnvironment() adds nothing when nothing is asked for', () => {
  assert.deepEqual(withEnvironment(['a', 'b'], { env: undefined, cwd: undefined }), ['a', 'b']);
});

test('three hops deep, words, variables and directory arrive unchanged', QUICK, async () => {
  const word = fc.string({ unit: 'grapheme' }).filter((one) => !one.includes('\0'));
  await fc.assert(
    fc.asyncProperty(fc.array(word, { maxLength: 4 }), word, async (words, value) => {
      const script = 'printf "%s\\0" "$PWD" "$VALUE" "$@"';
      const result = await three.run(['sh', '-c', script, 'sh', ...words], { env: { VALUE: value }, cwd: '/usr' });
      assert.deepEqual(text(result).split('\0').slice(0, -1), ['/usr', value, ...words]);
    }),
    { numRuns: 15 },
  );
});

test('a program whose name holds "=" is run, not set', QUICK, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'buildos-posix-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const program = join(folder, 'a=b');
  await three.writeFile(program, '#!/bin/sh\necho "$X $1"\n', { mode: 0o755 });
  assert.equal(text(await three.run([program, 'y'], { env: { X: 'x' } })), 'x y\n');
});

test('an error has the words of the caller and the whole chain', QUICK, async () => {
  await assert.rejects(three.run(['sh', '-c', 'exit 9']), (error) => {
    assert.ok(error instanceof CommandError);
    assert.deepEqual(error.argv, ['sh', '-c', 'exit 9']);
    assert.deepEqual(error.chain, [['local'], ['a'], ['b'], ['c']]);
    assert.equal(error.status, 9);
    return true;
  });
});

test('files: 1 MiB of binary there and back, exactly its mode, nothing left over', QUICK, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'buildos-posix-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const path = join(folder, "it's $x\n f");
  const bytes = randomBytes(1024 * 1024);
  await three.writeFile(path, bytes, { mode: 0o604 });
  assert.deepEqual(Buffer.from(await three.readFile(path)), bytes);
  assert.equal(statSync(path).mode & 0o7777, 0o604);
  assert.equal(readdirSync(folder).length, 1);
});

test('files that cannot be read or written say why', QUICK, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'buildos-posix-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  mkdirSync(join(folder, 'd'));
  const has = (code: string) => (error: unknown) => error instanceof FileError && error.code === code;
  await assert.rejects(three.readFile(join(folder, 'no')), has('ENOENT'));
  await assert.rejects(three.readFile(join(folder, 'd')), has('EISDIR'));
  await assert.rejects(three.readFile('/etc/passwd/x'), has('ENOTDIR'));
  await assert.rejects(three.writeFile(join(folder, 'no/f'), '', { mode: 0o600 }), has('ENOENT'));
  await assert.rejects(three.writeFile(join(folder, 'd'), '', { mode: 0o600 }), has('EISDIR'));
  assert.deepEqual(readdirSync(folder), ['d']);
});

test('names of variables that a shell could not use are refused', QUICK, async () => {
  await assert.rejects(three.run(['true'], { env: { 'a b': 'x' } }), TypeError);
});
