/** Entries are what they were when they were made, or there is none. */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { DamagedEntryError, type Entry, fileOf, Store } from './store.ts';

const folder = mkdtempSync(join(tmpdir(), 'buildos-store-'));
after(() => rmSync(folder, { recursive: true }));

const store = new Store(folder);
/** More than one piece, and not a whole number of them. */
const CONTENT = Buffer.alloc(600_001, 'content');

async function makeEntry(key: string): Promise<Entry> {
  const { entry } = await store.findOrMake('kind', key, (out) => {
    writeFileSync(join(out, 'file'), CONTENT);
    return Promise.resolve({ fact: key });
  });
  return entry;
}

test('what was made is found again, and read whole, in pieces, or where it is', async () => {
  const made = await makeEntry('made');
  const { entry, cached } = await store.findOrMake('kind', 'made', () => assert.fail('it is there'));
  assert.equal(cached, true);
  assert.deepEqual(entry, made);
  assert.deepEqual(entry.facts, { fact: 'made' });
  assert.ok(CONTENT.equals(await store.read(entry, 'file')));
  const pieces: Buffer[] = [];
  for await (const piece of store.pieces(entry, 'file')) pieces.push(Buffer.from(piece));
  assert.ok(pieces.length > 1);
  assert.ok(CONTENT.equals(Buffer.concat(pieces)));
  assert.ok(CONTENT.equals(readFileSync(await store.check(entry, 'file'))));
});

const readers: Readonly<Record<string, (entry: Entry) => Promise<unknown>>> = {
  read: (entry) => store.read(entry, 'file'),
  check: (entry) => store.check(entry, 'file'),
  pieces: (entry) => Array.fromAsync(store.pieces(entry, 'file')),
};
for (const [name, reader] of Object.entries(readers)) {
  test(`${name}: an entry of which one bit has changed is an error, and gone`, async () => {
    const entry = await makeEntry(name);
    const damaged = Buffer.from(CONTENT);
    damaged[500_000] = (damaged[500_000] ?? 0) ^ 1;
    writeFileSync(fileOf(entry, 'file').path, damaged);
    await assert.rejects(reader(entry), DamagedEntryError);
    assert.equal(await store.find('kind', name), undefined);
  });
}

test('an entry with a file of another size is not found', async () => {
  const entry = await makeEntry('short');
  truncateSync(fileOf(entry, 'file').path, 10);
  assert.equal(await store.find('kind', 'short'), undefined);
});

test('nothing is left of an entry that could not be made', async () => {
  await assert.rejects(
    store.findOrMake('failed', 'key', (out) => {
      writeFileSync(join(out, 'file'), 'half');
      return Promise.reject(new Error('no more'));
    }),
    /no more/,
  );
  assert.deepEqual(readdirSync(join(folder, 'failed')), []);
  const { cached } = await store.findOrMake('failed', 'key', () => Promise.resolve({}));
  assert.equal(cached, false);
});
