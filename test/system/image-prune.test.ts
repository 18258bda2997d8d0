/**
 * Pruning and publishing that are killed at any moment: what is left is whole or is nobody's, and the next one clears it
 * away. And pruning where no room is left. Images are of a few files here: neither looks into them. 7 s of CPU.
 */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import {
  appendFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { checkWhole, listImages } from '../../image/built-image.ts';
import { announceBuild } from '../../image/in-use.ts';
import { formatImageManifest } from '../../manifests/image-manifest.ts';
import { parseSha256Sums } from '../../manifests/sha256sums.ts';

const CLI = join(import.meta.dirname, '../../cli/main.ts');
const FILES = ['buildos-image', 'buildos-initrd'] as const;

let folder: string;
before(() => {
  folder = mkdtempSync(join(tmpdir(), 'buildos-prune-'));
});
after(() => rmSync(folder, { recursive: true, force: true }));

const idOf = (index: number): string => createHash('sha256').update(String(index)).digest('hex').slice(0, 20);

/** Images of two files, the first the oldest, and as many entries of the cache. */
function makeWork(name: string, images: number): string {
  const work = join(folder, name);
  for (let index = 0; index < images; index += 1) {
    const buildId = idOf(index);
    const own = join(work, 'images', buildId);
    mkdirSync(own, { recursive: true });
    const files = FILES.map((path) => {
      const content = Buffer.alloc(200_000, `${path} ${buildId} `);
      writeFileSync(join(own, path), content);
      return { path, sha256: createHash('sha256').update(content).digest('hex'), sizeBytes: content.length };
    });
    const none = '0'.repeat(64);
    const manifest = formatImageManifest({
      ...({
        format: 1,
        buildId,
        host: 'h',
        hostSha256: none,
        architecture: 'amd64',
        packages: [],
        rootfsBytes: 1,
      } as const),
      base: { name: 'debian', version: '13', suite: 'trixie' },
      kernelVersion: '6',
      node: { version: '26', sha256: none },
      files,
    });
    writeFileSync(join(own, 'buildos-manifest.json'), manifest);
    const [kernel = 0, initrd = 0] = files.map(({ sizeBytes }) => sizeBytes);
    const sizes = { kernel, initrd, runtime: 0, stage1: 0, payload: 0 };
    writeFileSync(join(own, 'image.json'), JSON.stringify({ buildId, kernelArgs: [], sizes }));
    const entry = join(work, 'cache/layers', buildId);
    mkdirSync(entry, { recursive: true });
    for (const file of ['root.squashfs', 'entry.json']) writeFileSync(join(entry, file), 'x'.repeat(10_000));
    const time = Date.now() / 1000 - 1000 + index;
    for (const path of [join(own, 'image.json'), join(entry, 'entry.json')]) utimesSync(path, time, time);
  }
  return work;
}

interface Ended {
  readonly status: number | null;
  readonly stderr: string;
}

/** Runs a command. @param killWhen - asked again and again; when it says true, the command is killed */
async function run(words: readonly string[], killWhen?: () => boolean): Promise<Ended> {
  const child = spawn(process.execPath, [CLI, 'image', ...words], { stdio: ['ignore', 'ignore', 'pipe'] });
  const exited = once(child, 'exit');
  const chunks: Buffer[] = [];
  child.stderr.on('data', (chunk: Buffer) => chunks.push(chunk));
  if (killWhen !== undefined) {
    const deadline = performance.now() + 20_000;
    while (child.exitCode === null && performance.now() < deadline && !killWhen()) await sleep(1);
    child.kill('SIGKILL');
  }
  await exited;
  return { status: child.exitCode, stderr: Buffer.concat(chunks).toString() };
}

const names = (...path: readonly string[]): readonly string[] => readdirSync(join(...path));

test('a prune that is killed leaves whole images only; the next one clears up', { timeout: 120_000 }, async (t) => {
  const work = makeWork('work', 300);
  // While images go, and later while entries of the cache do; what a prune takes away is in tmp for a moment.
  const moments: readonly (() => boolean)[] = [
    () => names(work, 'images').length < 280,
    () => names(work, 'images').length < 150,
    () => names(work, 'cache/layers').length < 200,
  ];
  for (const [index, moment] of moments.entries()) {
    const { status } = await run(['prune', '--work', work, '--keep', '2'], moment);
    const images = await listImages(work);
    const entries = names(work, 'cache/layers');
    t.diagnostic(
      `${index}: ${status === null ? 'killed' : 'done by then'}; ${images.length} images, ${entries.length} entries`,
    );
    for (const image of images) await checkWhole(image);
    for (const name of entries) assert.equal(names(work, 'cache/layers', name).length, 2, name);
  }
  const { status, stderr } = await run(['prune', '--work', work, '--keep', '2']);
  assert.equal(status, 0, stderr);
  assert.deepEqual(readdirSync(join(work, 'images')).sort(), [idOf(298), idOf(299)].sort());
  assert.deepEqual(readdirSync(join(work, 'cache/layers')).sort(), [idOf(298), idOf(299)].sort());
  assert.deepEqual(readdirSync(join(work, 'tmp')), []);
});

test('a prune steps back while a build runs in another process', { timeout: 60_000 }, async () => {
  const work = makeWork('busy', 4);
  await using _build = await announceBuild(work);
  const { status, stderr } = await run(['prune', '--work', work, '--keep', '0']);
  assert.equal(status, 1);
  assert.match(stderr, new RegExp(`Cannot prune .*: process ${process.pid} works in it`));
  assert.equal((await listImages(work)).length, 4);
});

/** A folder on a disk of its own. */
async function onSmallDisk(name: string, work: (disk: string) => Promise<void>): Promise<void> {
  const disk = join(folder, name);
  mkdirSync(disk);
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'small-disk', disk]);
  try {
    await work(disk);
  } finally {
    execFileSync('umount', [disk]);
  }
}

/** Leaves not a byte. */
function fill(disk: string): void {
  for (const [index, size] of [1_000_000, 4096].entries()) {
    const full = (): boolean => {
      try {
        appendFileSync(join(disk, `fill-${index}`), Buffer.alloc(size));
        return false;
      } catch {
        return true;
      }
    };
    while (!full());
  }
}

test('a prune makes room on a disk that has none', { timeout: 60_000 }, async () => {
  await onSmallDisk('full-work', async (disk) => {
    const work = makeWork('full-work/work', 3);
    fill(disk);
    const { status, stderr } = await run(['prune', '--work', work, '--keep', '1']);
    assert.equal(status, 0, stderr);
    assert.deepEqual(readdirSync(join(work, 'images')), [idOf(2)]);
    assert.deepEqual(readdirSync(join(work, 'tmp')), []);
  });
});

test('a prune of versions makes room on a disk that has none', { timeout: 60_000 }, async () => {
  const work = makeWork('for-full', 3);
  await onSmallDisk('full-www', async (disk) => {
    const into = join(disk, 'www');
    for (const index of [0, 1, 2]) {
      const words = ['publish', '--work', work, '--image', idOf(index), '--into', into, '--no-loaders'];
      assert.equal((await run(words)).status, 0);
    }
    fill(disk);
    const { status, stderr } = await run(['prune', '--into', into, '--keep', '1']);
    assert.equal(status, 0, stderr);
    assert.deepEqual(readdirSync(join(into, 'versions')).sort(), [idOf(1), idOf(2)].sort());
    assert.doesNotMatch(readFileSync(join(into, 'buildos-publication.json'), 'utf8'), new RegExp(idOf(0)));
    const left = readdirSync(into, { recursive: true }).map(String);
    assert.deepEqual(
      left.filter((name) => name.includes('.part-')),
      [],
    );
  });
});

test(
  'a publishing that is killed leaves one whole version in force; the next one clears up',
  { timeout: 120_000 },
  async (t) => {
    const work = makeWork('published', 6);
    const into = join(folder, 'www');
    const publish = async (index: number, killWhen?: () => boolean): ReturnType<typeof run> => {
      const words = ['publish', '--work', work, '--image', idOf(index), '--into', into, '--no-loaders', '--keep', '9'];
      return await run(words, killWhen);
    };
    assert.equal((await publish(0)).status, 0);
    const knows = (index: number): boolean =>
      readFileSync(join(into, 'buildos-publication.json'), 'utf8').includes(idOf(index));
    const moments: readonly ((index: number) => boolean)[] = [
      () => names(into, 'versions').some((name) => name.includes('.part-')),
      (index) => names(into, 'versions').includes(idOf(index)),
      (index) => knows(index),
      (index) => readFileSync(join(into, 'boot.ipxe'), 'utf8').includes(idOf(index)),
    ];
    for (const [before, moment] of moments.entries()) {
      const { status } = await publish(before + 1, () => moment(before + 1));
      t.diagnostic(`${before}: ${status === null ? 'killed' : 'done by then'}`);
      const versions = names(into, 'versions').filter((name) => !name.includes('.part-'));
      for (const version of versions) {
        assert.ok(names(into, 'versions', version).includes('SHA256SUMS'), `${version} is not whole`);
        const sums = parseSha256Sums(readFileSync(join(into, 'versions', version, 'SHA256SUMS'), 'utf8'));
        assert.ok(sums.length >= 5);
        for (const { path, sha256 } of sums) {
          const content = readFileSync(join(into, 'versions', version, path));
          assert.equal(createHash('sha256').update(content).digest('hex'), sha256, `${version}/${path}`);
        }
      }
      // Whichever version is in force, or named by a boot configuration, it is there.
      assert.ok(versions.includes(basename(readlinkSync(join(into, 'current')))));
      const named = /versions\/([0-9a-f]{20})/.exec(readFileSync(join(into, 'boot.ipxe'), 'utf8'))?.[1] ?? '';
      assert.ok(versions.includes(named), named);
    }
    const { status, stderr } = await publish(5);
    assert.equal(status, 0, stderr);
    assert.equal(readlinkSync(join(into, 'current')), `versions/${idOf(5)}`);
    const left = readdirSync(into, { recursive: true }).map(String);
    assert.deepEqual(
      left.filter((name) => name.includes('.part-')),
      [],
    );
  },
);
