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
