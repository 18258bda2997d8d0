import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { formatImageManifest } from '../manifests/image-manifest.ts';
import { announceBuild, BusyError } from './in-use.ts';
import { type Item, planPrune, pruneWork } from './prune.ts';

const HOUR_MS = 3_600_000;
const NOW = 100 * HOUR_MS;

const item = (kind: string, name: string, hoursOld: number, needs?: readonly string[]): Item => ({
  kind,
  path: name,
  sizeBytes: 1,
  usedMs: NOW - hoursOld * HOUR_MS,
  ...(needs && { needs }),
});

const goes = (items: readonly Item[], keep: number, olderThanHours = 0): readonly string[] =>
  planPrune(items, { keep, olderThanMs: olderThanHours * HOUR_MS, now: NOW })
    .removed.map(({ path }) => path)
    .sort();

test('planPrune() keeps the newest of each kind, and what is young', () => {
  const items = [
    ...[1, 2, 30, 40].map((age) => item('image', `image-${age}`, age)),
    ...[1, 30, 40].map((age) => item('roots', `root-${age}`, age)),
    ...[1, 2, 30, 31, 40].map((age) => item('properties', `properties-${age}`, age)),
  ];
  assert.deepEqual(goes(items, 3), ['image-40']);
  assert.deepEqual(goes(items, 1), [
    'image-2',
    'image-30',
    'image-40',
    'properties-30',
    'properties-31',
    'properties-40',
    'root-30',
    'root-40',
  ]);
  assert.deepEqual(goes(items, 0, 35), ['image-40', 'properties-40', 'root-40']);
  assert.equal(goes(items, 0).length, items.length);
});

test('planPrune() keeps all that the last image was made of', () => {
  const made: readonly (readonly [kind: string, entries: number])[] = [
    ['roots', 1],
    ['layers', 1],
    ['stages', 1],
    ['node', 1],
    ['runtime', 2],
    ['properties', 2],
    ['programs', 3],
    // Of some hundred properties, as the build host has.
    ['checkpoints', 7],
  ];
  const items = made.flatMap(([kind, entries]) =>
    Array.from({ length: entries }, (_, index) => item(kind, `${kind}-${index}`, 1)),
  );
  assert.deepEqual(goes([item('image', 'image', 1), ...items], 1), []);
});

test('planPrune() keeps the packages of what stays', () => {
  const items = [
    item('image', 'new', 1, ['a', 'b']),
    item('image', 'old', 2, ['c']),
    item('choice', 'chosen', 3, ['d']),
    item('choice', 'once', 4, ['e']),
    ...['a', 'b', 'c', 'd', 'e', 'f'].map((name) => item('package', name, 50, [name])),
    item('package', 'young', 5, ['young']),
  ];
  assert.deepEqual(goes(items, 1, 0), ['c', 'e', 'f', 'old', 'once', 'young']);
  assert.deepEqual(goes(items, 1, 6), ['f']);
  assert.deepEqual(goes([item('left-over', 'part', 0)], 9, 99), ['part']);
});

async function madeWork(): Promise<{ readonly work: string } & AsyncDisposable> {
  const work = await mkdtemp(join(tmpdir(), 'buildos-prune-'));
  const put = async (path: string, hoursOld: number, text = 'x'.repeat(1000)): Promise<void> => {
    await mkdir(join(work, path, '..'), { recursive: true });
    await writeFile(join(work, path), text);
    const time = new Date(Date.now() - hoursOld * HOUR_MS);
    await utimes(join(work, path), time, time);
  };
  for (const [index, id] of ['a', 'b', 'c'].entries()) {
    const sha256 = id.repeat(64);
    await put(`images/${id}/image.json`, index);
    const manifest = formatImageManifest({
      format: 1,
      buildId: id,
      host: 'h',
      hostSha256: sha256,
      architecture: 'amd64',
      base: { name: 'debian', version: '13', suite: 'trixie' },
      kernelVersion: '6',
      node: { version: '26', sha256 },
      packages: [{ name: 'p', version: '1', architecture: 'all', sha256 }],
      files: [],
      rootfsBytes: 1,
    });
    await put(`images/${id}/buildos-manifest.json`, index, manifest);
    await put(`cache/debs/${sha256}.deb`, index);
    await put(`cache/roots/${id}/entry.json`, index);
    await put(`cache/roots/${id}/root.squashfs`, index);
  }
  await put('cache/roots/d.part-1-abcdef01/root.squashfs', 0);
  await put('cache/apt-AbCd12/lists/x', 0);
  for (const each of ['apt-bookworm', 'apt-trixie']) await put(`cache/sources/${each}/of-somebody-else`, 900);
  return { work, [Symbol.asyncDispose]: async () => await rm(work, { recursive: true }) };
}

const all = async (work: string): Promise<readonly string[]> =>
  (await readdir(work, { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(work.length + 1))
    .sort();

test('pruneWork() removes what it said it would, and leaves what it does not know', async () => {
  await using made = await madeWork();
  const { work } = made;
  const before = await all(work);
  const shown = await pruneWork(work, { keep: 1, olderThanMs: 0, dryRun: true });
  assert.deepEqual(await all(work), before);
  const done = await pruneWork(work, { keep: 1, olderThanMs: 0, dryRun: false });
  assert.deepEqual(
    done.removed.map(({ kind, path, sizeBytes }) => [kind, path, sizeBytes]),
    shown.removed.map(({ kind, path, sizeBytes }) => [kind, path, sizeBytes]),
  );
  assert.deepEqual(
    done.removed.filter(({ kind }) => kind === 'roots').map(({ sizeBytes }) => sizeBytes),
    [2000, 2000],
  );
  assert.deepEqual(await all(work), [
    `cache/debs/${'a'.repeat(64)}.deb`,
    'cache/roots/a/entry.json',
    'cache/roots/a/root.squashfs',
    'cache/sources/apt-bookworm/of-somebody-else',
    'cache/sources/apt-trixie/of-somebody-else',
    'images/a/buildos-manifest.json',
    'images/a/image.json',
  ]);
  assert.deepEqual(await readdir(join(work, 'tmp')), []);
});

test('pruneWork() touches nothing while a build runs, and makes no folder where there is none', async () => {
  await using made = await madeWork();
  const { work } = made;
  const before = await all(work);
  {
    await using _build = await announceBuild(work);
    await assert.rejects(pruneWork(work, { keep: 0, olderThanMs: 0, dryRun: false }), BusyError);
  }
  assert.deepEqual(await all(work), before);
  const nowhere = join(work, 'nowhere');
  assert.deepEqual(await pruneWork(nowhere, { keep: 0, olderThanMs: 0, dryRun: false }), { removed: [], kept: [] });
  await assert.rejects(stat(nowhere), { code: 'ENOENT' });
});
