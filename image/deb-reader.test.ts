/** Archives as dpkg-deb itself gives them, whatever came before in the same shell. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { CommandError, type Connection } from '../connections/connection.ts';
import { openLocal } from '../connections/local.ts';
import { DebReader } from './deb-reader.ts';
import { readTar } from './tar-members.ts';

const folder = mkdtempSync(join(tmpdir(), 'buildos-debs-'));
after(() => rmSync(folder, { recursive: true }));

let shells = 0;
const local = openLocal();
const on: Connection = {
  ...local,
  run: async (argv, options) => {
    shells += Number(argv.includes('sh'));
    return await local.run(argv, options);
  },
};

function makeDeb(name: string, files: Readonly<Record<string, Uint8Array | string>>, ...options: string[]): void {
  const tree = join(folder, `${name}.tree`);
  mkdirSync(join(tree, 'DEBIAN'), { recursive: true, mode: 0o755 });
  const fields = 'Version: 1\nArchitecture: all\nMaintainer: m <m@example.org>\nDescription: test\n';
  writeFileSync(join(tree, 'DEBIAN/control'), `Package: ${name}\n${fields}`);
  for (const [path, content] of Object.entries(files)) writeFileSync(join(tree, path), content);
  const words = ['--root-owner-group', ...options, '--build', tree, join(folder, `${name}.deb`)];
  execFileSync('dpkg-deb', words, { stdio: 'ignore' });
}

const ofDpkg = (name: string): Buffer =>
  execFileSync('dpkg-deb', ['--fsys-tarfile', `${name}.deb`], { cwd: folder, maxBuffer: 2 ** 26 });

/** Without the zeros at its end. */
const core = (archive: Uint8Array): Buffer => {
  const end = readTar(archive).at(-1)?.end ?? 0;
  return Buffer.from(archive.subarray(0, end));
};

makeDeb('large', { noise: randomBytes(3_000_001) }, '-Znone');
makeDeb('small', { text: 'small' });
makeDeb('zeros', { zeros: new Uint8Array(100_000) });
makeDeb('long', { ['n'.repeat(200)]: 'a name that does not fit into a header' });
makeDeb('mark', { text: 'dpkg-deb has ended with status 0'.padEnd(512).repeat(3) });

test('each archive is that of dpkg-deb, many at once in a few shells', async () => {
  shells = 0;
  const names = ['large', 'small', 'zeros', 'long', 'mark', 'small', 'large', 'zeros'];
  {
    await using reader = new DebReader(on, { folder });
    const got = await Promise.all(names.map((name) => reader.read(`${name}.deb`, 'fsys', core)));
    for (const [at, name] of names.entries()) assert.ok(got[at]?.equals(core(ofDpkg(name))), name);
    const control = await reader.read('small.deb', 'ctrl', (archive) => readTar(archive).map(({ path }) => path));
    assert.ok(control.includes('control'));
  }
  assert.ok(shells <= availableParallelism(), `${shells} shells`);
});

test('a package without a member at all', async () => {
  const tree = join(folder, 'parts');
  mkdirSync(tree);
  writeFileSync(join(tree, 'debian-binary'), '2.0\n');
  execFileSync('sh', ['-c', 'tar -cf data.tar -T /dev/null; tar -C ../small.tree/DEBIAN -cf control.tar ./control'], {
    cwd: tree,
  });
  execFileSync('ar', ['rc', '../empty.deb', 'debian-binary', 'control.tar', 'data.tar'], { cwd: tree });
  await using reader = new DebReader(on, { folder });
  assert.deepEqual(await reader.read('empty.deb', 'fsys', (archive) => readTar(archive)), []);
  assert.ok((await reader.read('small.deb', 'fsys', core)).equals(core(ofDpkg('small'))));
});

test('what is no package is refused as dpkg-deb says it, and the others are read', async () => {
  writeFileSync(join(folder, 'text.deb'), 'no package');
  writeFileSync(join(folder, 'cut.deb'), readFileSync(join(folder, 'large.deb')));
  truncateSync(join(folder, 'cut.deb'), 1_000_000);
  await using reader = new DebReader(on, { folder });
  const names = ['text', 'small', 'cut', 'small', 'none', 'small'];
  const all = await Promise.allSettled(names.map((name) => reader.read(`${name}.deb`, 'fsys', core)));
  for (const [at, name] of names.entries()) {
    const each = all[at];
    if (name === 'small') assert.ok(each?.status === 'fulfilled' && each.value.equals(core(ofDpkg('small'))));
    else assert.ok(each?.status === 'rejected' && each.reason instanceof CommandError, name);
    if (each?.status === 'rejected') assert.match(String(each.reason), new RegExp(`dpkg-deb.* ${name}\\.deb`));
  }
});

test('what a reader of the archive throws comes to who asked', async () => {
  await using reader = new DebReader(on, { folder });
  const bad = reader.read('small.deb', 'fsys', () => {
    throw new RangeError('not this one');
  });
  await assert.rejects(bad, /not this one/);
  assert.ok((await reader.read('small.deb', 'fsys', core)).equals(core(ofDpkg('small'))));
});

test('an abort ends it, for those that wait too', async () => {
  const stop = new AbortController();
  await using reader = new DebReader(on, { folder, signal: stop.signal });
  const all = ['large', 'large', 'large', 'small', 'small'].map((name) => reader.read(`${name}.deb`, 'fsys', core));
  stop.abort(new Error('enough'));
  const ended = await Promise.race([Promise.allSettled(all), sleep(20_000, undefined, { ref: false })]);
  assert.ok(Array.isArray(ended) && ended.every(({ status }) => status === 'rejected'));
});
