/** Where prerequisite data comes from, and which version counts. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { type Connection, type RunResult } from '../connections/connection.ts';
import {
  DATA_REF,
  type DataSource,
  DataStore,
  MissingDataError,
  askSource,
  credentialsSource,
  environmentSource,
  fileSource,
  passSource,
  treeSource,
} from './data.ts';
import { toyHost } from './_toy.ts';

const REF = { context: 'hosts/b1', name: 'root.password' };

/** A file of some age. */
function put(path: string, text: string, ageSeconds: number): void {
  mkdirSync(join(path, '..'), { recursive: true });
  writeFileSync(path, text);
  const time = Date.now() / 1000 - ageSeconds;
  utimesSync(path, time, time);
}

function scratch(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'buildos-data-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

async function read(sources: readonly DataSource[], mayAsk = true): Promise<string> {
  return Buffer.from((await new DataStore(sources).read(REF, mayAsk)).reveal()).toString();
}

test('each source finds its pair, and no other', async (t) => {
  const folder = scratch(t);
  put(join(folder, 'tree/hosts/b1/root.password'), 'tree', 0);
  put(join(folder, 'one'), 'file', 0);
  put(join(folder, 'credentials/hosts-b1--root.password'), 'credential', 0);
  put(join(folder, 'store/hosts/b1/root.password.gpg'), 'encrypted', 0);
  const toy = toyHost();
  const local: Connection = {
    ...toy.connection,
    run: async (argv): Promise<RunResult> => ({
      status: 0,
      stdout: Buffer.from(argv.join(' ')),
      stderr: new Uint8Array(),
    }),
  };
  const sources: readonly (readonly [DataSource, string])[] = [
    [treeSource(join(folder, 'tree')), 'tree'],
    [fileSource(REF, join(folder, 'one')), 'file'],
    [environmentSource({ BUILDOS_DATA_HOSTS_B1__ROOT_PASSWORD: 'environment' }, Date.now()), 'environment'],
    [credentialsSource(join(folder, 'credentials')), 'credential'],
    [passSource(local, join(folder, 'store')), 'pass show hosts/b1/root.password'],
    [askSource(async (question) => `answer to ${question}`), 'answer to hosts/b1/root.password: '],
  ];
  for (const [source, expected] of sources) {
    assert.equal(await read([source]), expected);
    if (source.asks !== true) assert.equal(await source.find({ ...REF, context: 'hosts/b2' }), undefined, source.about);
  }
});

test('the newest version counts, wherever it is', async (t) => {
  const folder = scratch(t);
  for (const [older, newer] of [
    ['a', 'b'],
    ['b', 'a'],
  ] as const) {
    put(join(folder, older), 'older', 100);
    put(join(folder, newer), 'newer', 50);
    assert.equal(await read([fileSource(REF, join(folder, 'a')), fileSource(REF, join(folder, 'b'))]), 'newer');
  }
});

test('the operator is asked last, once, and never for a plan', async (t) => {
  const folder = scratch(t);
  let asked = 0;
  const operator = askSource(async () => `answer ${++asked}`);
  const nowhere = treeSource(folder);
  await assert.rejects(read([operator, nowhere], false), MissingDataError);
  const store = new DataStore([operator, nowhere]);
  await store.check([REF]); // he would know
  assert.equal(asked, 0);
  for (let round = 0; round < 2; round++) {
    assert.equal(Buffer.from((await store.read(REF, true)).reveal()).toString(), 'answer 1');
  }
  put(join(folder, 'hosts/b1/root.password'), 'file', 1000);
  assert.equal(await read([operator, nowhere]), 'file');
  assert.equal(asked, 1);
});

test('names that would lead out of a folder are refused', () => {
  for (const name of ['', '..', 'a/../b', '/a', 'a/', 'a b', '.', 'a\0']) {
    assert.equal(DATA_REF.safeParse({ context: 'x', name }).success, false, JSON.stringify(name));
    assert.equal(DATA_REF.safeParse({ context: name, name: 'x' }).success, false, JSON.stringify(name));
  }
  assert.equal(DATA_REF.safeParse({ context: 'hosts/b1', name: '.netrc' }).success, true);
});

test('what nobody has is told with all places', async (t) => {
  const store = new DataStore([treeSource(scratch(t)), environmentSource({}, 0)]);
  await assert.rejects(store.check([REF]), /hosts\/b1\/root.password: not in the folder .*, the environment/);
  await assert.rejects(new DataStore().check([REF]), /no source was given/);
});
