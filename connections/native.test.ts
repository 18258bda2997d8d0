import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { posixConnection, withEnvironment } from './_posix.ts';
import { HopError } from './connection.ts';
import { openLocal } from './local.ts';
import { NativeCallError, callNative, defineNative } from './native.ts';

const add = defineNative('test.add', (_here, a: number, b: number) => a + b);
const fail = defineNative('test.fail', () => {
  throw Object.assign(new RangeError('too much'), { hint: 'less' });
});

test('callNative() calls a function of this process on a local connection', async () => {
  assert.equal(await callNative(openLocal(), add, 2, 3), 5);
});

test('callNative() tells what the function threw', async () => {
  await assert.rejects(callNative(openLocal(), fail), (error) => {
    assert.ok(error instanceof NativeCallError);
    assert.deepEqual(
      [error.call, error.thrown, error.message, error.hint],
      ['test.fail', 'RangeError', 'too much', 'less'],
    );
    return true;
  });
});

test('callNative() refuses a connection that has a shell only', async () => {
  const shell = posixConnection({
    hop: ['x'],
    base: openLocal(),
    wrap: (argv, options) => withEnvironment(argv, options),
  });
  await assert.rejects(
    callNative(shell, add, 1, 1),
    (error) => error instanceof HopError && /"agent"/.test(error.hint ?? ''),
  );
});

test('defineNative() refuses a name that is taken', () => {
  assert.throws(() => defineNative('test.add', () => null), /twice/);
});

test('the runtime of this process starts Node with its own loader and libraries', async () => {
  const runtime = await openLocal().native?.runtime();
  assert.ok(runtime !== undefined);
  const names = runtime.files.map(({ name }) => name);
  for (const name of ['node', 'ld.so', 'libc.so.6', 'libstdc++.so.6']) assert.ok(names.includes(name), name);
  const [program = '', ...args] = runtime.argv;
  assert.equal(execFileSync(program, [...args, '--print', '1 + 1'], { encoding: 'utf8' }), '2\n');
});
