import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Shelf } from './shelf.ts';

interface Bench extends AsyncDisposable {
  readonly folder: string;
  readonly problems: string[];
  readonly shelf: Shelf<string>;
}

async function bench(disk = 'disk'): Promise<Bench> {
  const folder = await mkdtemp(join(tmpdir(), 'shelf-'));
  const problems: string[] = [];
  const shelf = new Shelf<string>({
    folder: disk.startsWith('/') ? disk : join(folder, disk),
    ramFolder: join(folder, 'ram'),
    parse: (json) => {
      if (typeof json !== 'string') throw new TypeError('no string');
      return json;
    },
    onProblem: (message) => problems.push(message),
  });
  return { folder, problems, shelf, [Symbol.asyncDispose]: () => rm(folder, { recursive: true }) };
}

test('Shelf keeps entries with their attachments, and forgets them', async () => {
  await using it = await bench();
  const file = join(it.folder, 'upload.tar');
  await writeFile(file, 'archive');
  assert.equal(await it.shelf.put('one', 'first'), 'disk');
  assert.equal(await it.shelf.put('two', 'second', file), 'disk');
  const entries = await it.shelf.list();
  assert.deepEqual(
    entries.map(({ id, value, inRam }) => [id, value, inRam]),
    [
      ['one', 'first', false],
      ['two', 'second', false],
    ],
  );
  assert.equal(await readFile(entries[1]?.attachment ?? '', 'utf8'), 'archive');
  await it.shelf.remove('one');
  await it.shelf.remove('two');
  await it.shelf.remove('two');
  assert.deepEqual(await readdir(join(it.folder, 'disk')), []);
  assert.deepEqual(it.problems, []);
});

test('Shelf uses RAM where the disk cannot be written, and says so', async () => {
  await using it = await bench('/proc/no-disk-here');
  assert.equal(await it.shelf.put('one', 'first'), 'ram');
  assert.match(it.problems[0] ?? '', /Cannot keep one in \/proc\/no-disk-here: .* kept in RAM/);
  assert.deepEqual(
    (await it.shelf.list()).map(({ value, inRam }) => [value, inRam]),
    [['first', true]],
  );
  await it.shelf.remove('one');
  assert.deepEqual(await it.shelf.list(), []);
});

test('Shelf sets an unreadable entry aside and goes on', async () => {
  await using it = await bench();
  await it.shelf.put('one', 'first');
  await writeFile(join(it.folder, 'disk', 'bad.json'), '{"cut sho');
  await writeFile(join(it.folder, 'disk', 'wrong.json'), '7');
  assert.deepEqual(
    (await it.shelf.list()).map(({ id }) => id),
    ['one'],
  );
  assert.equal(it.problems.length, 2);
  assert.equal((await it.shelf.list()).length, 1);
  assert.equal(it.problems.length, 2);
});

test('Shelf.sweep() removes what was begun and not finished', async () => {
  await using it = await bench();
  await mkdir(join(it.folder, 'disk'));
  await it.shelf.put('one', 'first', import.meta.filename);
  await writeFile(join(it.folder, 'disk', 'two.data'), 'x');
  await writeFile(join(it.folder, 'disk', '.tmp-three'), 'x');
  await it.shelf.sweep();
  assert.deepEqual((await readdir(join(it.folder, 'disk'))).sort(), ['one.data', 'one.json']);
});

test('Shelf refuses an id that is no plain name', async () => {
  await using it = await bench();
  await assert.rejects(it.shelf.put('../x', 'y'), RangeError);
});
