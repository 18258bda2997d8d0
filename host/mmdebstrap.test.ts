import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Connection, RunOptions } from '../connections/connection.ts';
import { bootstrap, BootstrapError, mmdebstrapCommand } from './mmdebstrap.ts';

/** A connection that notes what is run and answers from a function. */
function fakeConnection(answer: (argv: readonly string[]) => string | Error): {
  connection: Connection;
  ran: { argv: readonly string[]; options: RunOptions | undefined }[];
} {
  const ran: { argv: readonly string[]; options: RunOptions | undefined }[] = [];
  const connection: Connection = {
    chain: [['local']],
    kind: 'native',
    run: (argv, options) => {
      ran.push({ argv, options });
      const said = answer(argv);
      if (said instanceof Error) return Promise.reject(said);
      return Promise.resolve({ status: 0, stdout: new TextEncoder().encode(said), stderr: new Uint8Array() });
    },
    readFile: () => Promise.reject(new Error('not in this test')),
    writeFile: () => Promise.reject(new Error('not in this test')),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
  return { connection, ran };
}

const OPTIONS = {
  suite: 'trixie',
  sources: ['deb http://mirror.test/debian trixie main'],
  variant: 'minbase',
  include: ['gcc', 'make'],
  into: '/tmp/root',
} as const;

test('mmdebstrapCommand() names suite, folder and a whole source line', () => {
  assert.deepEqual(mmdebstrapCommand(OPTIONS).slice(-3), [
    'trixie',
    '/tmp/root',
    'deb http://mirror.test/debian trixie main',
  ]);
  assert.ok(mmdebstrapCommand(OPTIONS).includes('--include=gcc,make'));
});

test('mmdebstrapCommand() passes a one-line source through', () => {
  const source = 'deb [trusted=yes] file:/mirror ./';
  assert.equal(mmdebstrapCommand({ ...OPTIONS, sources: [source] }).at(-1), source);
});

test('mmdebstrapCommand() quotes the cache folder for the hooks', () => {
  const hooks = mmdebstrapCommand({ ...OPTIONS, cache: "/var/it's" }).filter((word) => word.includes('hook='));
  assert.equal(hooks.length, 2);
  for (const hook of hooks) assert.match(hook, /'\/var\/it'\\''s'/);
});

test('bootstrap() refuses a folder that is not empty, and runs nothing else', async () => {
  const { connection, ran } = fakeConnection(() => '/tmp/root/etc\n');
  await assert.rejects(bootstrap(connection, OPTIONS), BootstrapError);
  assert.equal(ran.length, 1);
});

test('bootstrap() empties the folder after a failure', async () => {
  const { connection, ran } = fakeConnection((argv) => (argv[0] === 'mmdebstrap' ? new Error('no mirror') : ''));
  await assert.rejects(bootstrap(connection, { ...OPTIONS, cache: '/c' }), /no mirror/);
  assert.deepEqual(
    ran.map(({ argv }) => argv[0]),
    ['find', 'mkdir', 'mmdebstrap', 'find'],
  );
  assert.ok(ran.at(-1)?.argv.includes('-delete'));
});
