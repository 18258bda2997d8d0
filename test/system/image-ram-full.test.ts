/**
 * The RAM disk that a build works in is full while packages are unpacked, and while their scripts run: the root is given up,
 * nothing of it gets into the cache, and the build goes on on the disk. 20 s of CPU.
 */
import assert from 'node:assert/strict';
import { mkdirSync, readdirSync } from 'node:fs';
import { statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { openLocal } from '../../connections/local.ts';
import { bootstrapRoot } from '../../image/bootstrap.ts';
import { fetchPackages } from '../../image/deb-cache.ts';
import { isDiskFull, nameFullDisk, RamFullError } from '../../image/disk-full.ts';
import { readLock } from '../../image/lock.ts';
import { Store } from '../../image/store.ts';
import { PackageCache } from '../../image/unpacked-package.ts';
import { openWorkshop } from '../../image/workshop.ts';
import { INPUTS, openSmallImage, type SmallImage } from './_small-image.ts';

const MIB = 2 ** 20;

test('a root for which there is no room in RAM', { timeout: 240_000 }, async (t) => {
  await using small = await openSmallImage();
  const used = new Map<string, number>();
  assert.equal(await makeRoot(small, 'roomy', 2000, (step, mebibytes) => used.set(step, mebibytes)), undefined);
  assert.deepEqual(readdirSync(join(small.folder, 'roomy/cache')), ['stages']);

  // The last "unpack" is that of the second stage: before it, all of the first has been unpacked and configured.
  for (const [during, mebibytes] of [
    ['unpack', (used.get('first unpack') ?? 0) + 10],
    ['configure', (used.get('first configure') ?? 0) + 4],
  ] as const) {
    const steps: string[] = [];
    const error = await makeRoot(small, during, mebibytes, (step) => steps.push(step));
    t.diagnostic(`${mebibytes.toFixed(0)} MiB: ends at ${steps.at(-1)}`);
    assert.match(steps.at(-1) ?? '', during === 'unpack' ? /^first unpack$/ : /^first (preinst|configure)$/);
    assert.ok(error instanceof RamFullError, String(error));
    assert.match(error.message, /no space is left in its RAM disk of \d+ MiB/);
    assert.match(error.hint, /free -h/);
    assert.deepEqual(readdirSync(join(small.folder, during, 'cache')), [], 'something got into the cache');
  }
});

test('a build for which there is no room in RAM goes on on the disk, and says so', { timeout: 240_000 }, async () => {
  await using small = await openSmallImage();
  const work = await small.emptyWork();
  const said: string[] = [];
  const options = { ramMiB: 40, onProgress: (line: string) => void said.push(line) };
  const { cached } = await small.build(work, INPUTS, options);
  assert.equal(cached, false);
  assert.match(said.join('\n'), /no space is left in its RAM disk of 40 MiB: once more, on the disk/);
  await assert.rejects(small.build(await small.emptyWork(), INPUTS, { ...options, ram: true }), RamFullError);
});

/** @returns what it failed with */
async function makeRoot(
  small: SmallImage,
  name: string,
  ramMiB: number,
  onStep: (step: string, usedMebibytes: number) => void,
): Promise<unknown> {
  const lock = await readLock(small.lockFile);
  const cache = join(small.folder, name, 'cache');
  mkdirSync(cache, { recursive: true });
  const debs = await fetchPackages({ lock, cache: join(import.meta.dirname, '../../work/cache') });
  await using workshop = await openWorkshop(join(small.folder, name, 'tmp'), { ramMiB: Math.ceil(ramMiB) });
  await using packages = new PackageCache(openLocal(), {
    folder: join(import.meta.dirname, '../../work/cache/debs'),
    form: 'stages-test',
  });
  const measured: Promise<void>[] = [];
  let stage = 'first';
  const options = {
    lock,
    debs,
    root: join(workshop.folder, 'root'),
    packages,
    stages: { store: new Store(cache), code: 'test', lock },
    onStep: (step: string) => {
      const named = `${stage} ${step}`;
      if (step === 'configure') stage = 'second';
      measured.push(
        statfs(workshop.seen(workshop.folder)).then(({ blocks, bfree, bsize }) =>
          onStep(named, ((blocks - bfree) * bsize) / MIB),
        ),
      );
    },
  };
  const error = await bootstrapRoot(workshop, options).catch((failed: unknown) => failed);
  await Promise.all(measured);
  assert.equal(error === undefined, !isDiskFull(error));
  return await nameFullDisk(workshop, error);
}
