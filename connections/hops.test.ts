import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ChainError } from './chain.ts';
import type { Hop } from './connection.ts';
import { HOPS, checkHop } from './hops.ts';
import { openChain } from './open.ts';

const WRONG: readonly (readonly [hop: Hop, message: RegExp, hint: RegExp])[] = [
  [['telnet'], /no hop "telnet"/, /local, ssh, sudo/],
  [['toString'], /no hop/, /local/],
  [['chroot'], /lacks the argument "into"/, /into \(string/],
  [['chroot', { into: 1 }], /not a string/, /into/],
  [['chroot', { into: '/x', color: 'red' }], /unknown argument "color"/, /binds/],
  [['local', { a: 1 }], /unknown argument/, /takes no arguments/],
];

for (const [hop, message, hint] of WRONG) {
  test(`checkHop() refuses ${JSON.stringify(hop)}, with a hint`, () => {
    assert.throws(
      () => checkHop(hop),
      (error) => error instanceof ChainError && message.test(error.message) && hint.test(error.hint ?? ''),
    );
  });
}

test('a wrong last hop is refused before the first is opened', async () => {
  await assert.rejects(openChain([['local'], ['chroot', { into: '/nonexistent' }], ['telnet']]), ChainError);
});

test('openChain() of nothing is this host', async () => {
  await using connection = await openChain([]);
  assert.deepEqual(connection.chain, [['local']]);
  assert.equal(connection.kind, 'native');
});

test('every hop says what it is for', () => {
  for (const [name, row] of Object.entries(HOPS)) assert.ok(row.about.length > 5, name);
});

test('a native hop after one that gives a shell is refused, with the way out', async () => {
  for (const name of ['setuid', 'chroot.fork']) {
    const args: Hop[1] = name === 'setuid' ? { user: 'x' } : { into: '/x' };
    await assert.rejects(
      openChain([
        ['ssh', { host: 'nowhere.invalid' }],
        [name, args],
      ]),
      (error) => error instanceof ChainError && /to stand on/.test(error.message) && /"agent"/.test(error.hint ?? ''),
    );
  }
});

test('every hop explains itself', () => {
  for (const name of Object.keys(HOPS)) {
    const args = Object.entries(HOPS[name]?.args ?? {}).map(([key, { type }]): [string, string | number | boolean] => [
      key,
      type === 'number' ? 1 : type === 'boolean' ? true : key === 'binds' || key === 'shares' ? '/a:/b' : 'word',
    ]);
    const { row, args: checked } = checkHop(args.length === 0 ? [name] : [name, Object.fromEntries(args)]);
    assert.ok(row.explain(checked).length > 20, name);
  }
});

test('a list of binds that cannot be read is refused before anything is opened', () => {
  assert.throws(() => checkHop(['chroot.shell', { into: '/x', binds: 'a:b' }]), ChainError);
});
