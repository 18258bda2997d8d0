/**
 * The disk is full at every stage of a build: each time it says so and what to do, publishes nothing, and leaves a cache
 * that the next build goes on from. 20 s of CPU.
 */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { text } from 'node:stream/consumers';
import { listImages } from '../../image/built-image.ts';
import { firstDifference } from './_image-difference.ts';
import { openSmallImage, type SmallImage } from './_small-image.ts';

const BUILD = join(import.meta.dirname, '_small-build.ts');

/** What fills the disk in the order of the steps, as folders of a work folder. */
const FILLED = ['cache/programs', 'cache/stages', 'cache/roots', 'cache/layers', 'images'] as const;

/** The root is put into the cache while layers are made of it: the step that began last may be any of them. */
const LAYERS = /^(keep root|pack packages|apply properties|apply programs)$/;

/** Packages are installed while programs are bundled, and their first stage is put into the cache meanwhile. */
const PACKAGES = /^(programs|inputs|choose packages|fetch packages|unpack|database|preinst|configure)$/;

/** The room there is: what fits whole, and half of the next. `disk`: the build works there, too, and not in RAM. */
const ROOMS: readonly { readonly where: 'disk' | 'ram'; readonly fits: number; readonly step: RegExp }[] = [
  { where: 'ram', fits: 0, step: PACKAGES },
  { where: 'disk', fits: 1, step: PACKAGES },
  { where: 'ram', fits: 1, step: PACKAGES },
  { where: 'ram', fits: 2, step: LAYERS },
  { where: 'ram', fits: 3, step: LAYERS },
  { where: 'ram', fits: 4, step: /^pack$/ },
];

test('a full disk at every stage', { timeout: 240_000 }, async (t) => {
  await using small = await openSmallImage();
  const wanted = await small.emptyWork();
  assert.deepEqual(await build(small, wanted, 'ram').then(({ status, said }) => ({ status, said })), {
    status: 0,
    said: '',
  });

  const work = join(small.folder, 'small-disk');
  mkdirSync(work);
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=256k', 'small-disk', work]);
  try {
    await small.prepareWork(work);
    for (const { where, fits, step } of ROOMS) {
      const mebibytes = roomFor(wanted, fits);
      resize(work, mebibytes);
      const { status, said, steps } = await build(small, work, where);
      t.diagnostic(`${mebibytes.toFixed(1)} MiB (${where}): ends at ${steps.at(-1)}`);
      assert.equal(status, 1, `${mebibytes} MiB suffice`);
      assert.match(said, /^DiskFullError: Cannot build the image: no space is left for .*small-disk\nhint: make room/);
      assert.match(steps.at(-1) ?? '', step);
      assert.deepEqual(await listImages(work), []);
      assert.deepEqual(leftOver(work), []);
    }
    resize(work, 400);
    assert.equal((await build(small, work, 'ram')).said, '');
    const [[a], [b]] = [await listImages(wanted), await listImages(work)];
    assert.ok(a && b);
    assert.equal(await firstDifference(a, b), undefined);
  } finally {
    execFileSync('umount', [work]);
  }
});

/** MiB for the first so many of {@link FILLED}, as large as they are in another work folder, and half of the next. */
function roomFor(work: string, fits: number): number {
  const sizes = FILLED.map((folder) => {
    const path = join(work, folder);
    return readdirSync(path, { recursive: true, encoding: 'utf8' })
      .map((name) => statSync(join(path, name)))
      .reduce((sum, found) => sum + (found.isFile() ? found.size : 0), 0);
  });
  return (sizes.slice(0, fits).reduce((sum, size) => sum + size, 0) + (sizes[fits] ?? 0) / 2) / 2 ** 20;
}

function resize(work: string, mebibytes: number): void {
  execFileSync('mount', ['-o', `remount,size=${Math.ceil(mebibytes * 1024)}k`, work]);
}

async function build(
  small: SmallImage,
  work: string,
  where: 'disk' | 'ram',
): Promise<{ readonly status: unknown; readonly said: string; readonly steps: readonly string[] }> {
  const child = spawn(process.execPath, [BUILD, work, small.lockFile, where], { stdio: ['ignore', 'pipe', 'pipe'] });
  const [steps, said, [status]] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'exit')]);
  return { status, said, steps: steps.trim().split('\n') };
}

/** Files that were not finished. */
function leftOver(work: string): string[] {
  return readdirSync(work, { recursive: true, encoding: 'utf8' }).filter((path) => /\.part-|^tmp\/./.test(path));
}
