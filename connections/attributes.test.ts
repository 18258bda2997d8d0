import assert from 'node:assert/strict';
import { userInfo } from 'node:os';
import { test } from 'node:test';
import { posixConnection, sameConnection, withEnvironment } from './_posix.ts';
import { type Attribute, HAS_SERVICES, IDENTITY, lookUp, setAttribute } from './attributes.ts';
import type { Connection } from './connection.ts';
import { openLocal } from './local.ts';

const through = (base: Connection): Connection =>
  posixConnection({ hop: ['x'], base, wrap: (argv, options) => withEnvironment(argv, options) });

test('IDENTITY says who we are', async () => {
  const { uid, user, homedir } = { ...userInfo(), user: userInfo().username };
  const found = await lookUp(openLocal(), IDENTITY);
  assert.deepEqual([found.uid, found.user, found.home], [uid, user, homedir]);
});

test('an attribute is looked up once, and again when that failed', async () => {
  let looks = 0;
  const attribute: Attribute<number> = {
    name: 'count',
    look: async () => {
      looks += 1;
      if (looks === 1) throw new Error('not yet');
      return looks;
    },
  };
  const local = openLocal();
  await assert.rejects(lookUp(local, attribute), /not yet/);
  assert.equal(await lookUp(local, attribute), 2);
  assert.equal(await lookUp(local, attribute), 2);
  assert.equal(await lookUp(openLocal(), attribute), 3);
});

test('the next hop knows only what passes on', async () => {
  const local = openLocal();
  setAttribute(local, HAS_SERVICES, true);
  setAttribute(local, IDENTITY, { uid: 12345, user: 'x', home: '/x', hostName: 'x', machine: 'x' });
  const next = through(local);
  assert.equal(await lookUp(next, HAS_SERVICES), true);
  assert.notEqual((await lookUp(next, IDENTITY)).uid, 12345);
  assert.equal((await lookUp(sameConnection(local, ['sudo']), IDENTITY)).uid, 12345);
});
