/** What is kept of a package, and that nothing wrong is ever taken from it. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmodSync, linkSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync } from 'node:fs';
import { symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { after, test } from 'node:test';
import type { Connection } from '../connections/connection.ts';
import { openLocal } from '../connections/local.ts';
import type { PackageIndex } from './package-content.ts';
import { END_OF_ARCHIVE, readTar } from './tar-members.ts';
import { PackageCache, removeOldPackages } from './unpacked-package.ts';

const folder = mkdtempSync(join(tmpdir(), 'buildos-unpacked-'));
after(() => rmSync(folder, { recursive: true }));

/** Shells that call dpkg-deb, which is what is to be saved. */
let calls = 0;
const local = openLocal();
const on: Connection = {
  ...local,
  run: async (argv, options) => {
    calls += 1;
    return await local.run(argv, options);
  },
};

/** As a build does, and waits until it is kept. */
async function openPackage(
  deb: string,
  form = 'f',
): Promise<{ readonly index: PackageIndex; readonly tar: Uint8Array }> {
  await using packages = new PackageCache(on, { folder: dirname(deb), form });
  const { index, readTar: read } = await packages.get(basename(deb)).open();
  return { index, tar: await read() };
}

/** @returns the .deb, in a folder of its own */
function makeDeb(files: Readonly<Record<string, string>>, control: Readonly<Record<string, string>> = {}): string {
  const at = mkdtempSync(join(folder, 'deb-'));
  const tree = join(at, 'tree');
  const write = (path: string, text: string): void => {
    mkdirSync(join(tree, dirname(path)), { recursive: true, mode: 0o755 });
    writeFileSync(join(tree, path), text);
    if (/(inst|rm)$/.test(path)) chmodSync(join(tree, path), 0o755);
  };
  for (const [path, text] of Object.entries(files)) write(path, text);
  const fields = 'Package: pack\nVersion: 1\nArchitecture: amd64\nMulti-Arch: same\nMaintainer: m <m@example.org>\n';
  write('DEBIAN/control', `${fields}Description: test\n`);
  for (const [name, text] of Object.entries(control)) write(`DEBIAN/${name}`, text);
  if (files['usr/share/doc/pack/changelog'] !== undefined) {
    symlinkSync('other', join(tree, 'usr/share/doc/way'));
    linkSync(join(tree, 'usr/bin/pack'), join(tree, 'usr/bin/twin'));
    linkSync(join(tree, 'usr/share/doc/pack/linked'), join(tree, 'usr/share/pack'));
  }
  const deb = join(at, 'package.deb');
  execFileSync('dpkg-deb', ['--root-owner-group', '-Znone', '--build', tree, deb], { stdio: 'ignore' });
  return deb;
}

const FILES = {
  'usr/bin/pack': 'pack',
  'usr/share/doc/pack/changelog': 'news',
  'usr/share/doc/pack/copyright': 'free',
  'usr/share/doc/pack/linked': 'not only documentation',
  'usr/share/doc/empty/more/notes': 'notes',
  'usr/share/man/man1/pack.1': 'manual',
  'usr/share/locale/de/LC_MESSAGES/pack.mo': 'deutsch',
  'etc/pack.conf': 'a = 1\n',
};

test('a package without documentation, with its part of the database', async () => {
  const deb = makeDeb(FILES, { conffiles: '/etc/pack.conf\n', postinst: '#!/bin/sh\n', triggers: 'interest /x\n' });
  const { index, tar } = await openPackage(deb);
  const paths = readTar(Buffer.concat([tar, END_OF_ARCHIVE])).map(({ path, mode }) => `${path} ${mode.toString(8)}`);
  assert.deepEqual(
    paths.filter((path) => path.startsWith('usr/share/doc')),
    [
      'usr/share/doc 755',
      'usr/share/doc/pack 755',
      'usr/share/doc/pack/copyright 644',
      'usr/share/doc/pack/linked 644',
      'usr/share/doc/way 777',
    ],
  );
  assert.deepEqual(
    paths.filter((path) => /^usr\/(bin\/|share\/(man|locale))/.test(path)),
    ['usr/bin/pack 644', 'usr/bin/twin 644', 'usr/share/locale 755', 'usr/share/man 755'],
  );
  assert.deepEqual(
    paths.filter((path) => path.startsWith('var/')),
    ['conffiles 644', 'postinst 755', 'triggers 644', 'list 644'].map((each) => `var/lib/dpkg/info/pack:amd64.${each}`),
  );
  assert.equal(index.id, 'pack:amd64');
  const md5 = createHash('md5').update(FILES['etc/pack.conf']).digest('hex');
  assert.deepEqual(index.conffiles, [{ path: '/etc/pack.conf', md5 }]);
  const changelog = index.members.find(({ path }) => path === 'usr/share/doc/pack/changelog');
  assert.equal(changelog?.leftOut, true);
  assert.equal(
    index.members.some(({ path }) => path.includes('/man/')),
    false,
  );
});

test('it is unpacked once, and again when what is kept is cut, altered or of other code', async () => {
  const deb = makeDeb(FILES);
  const wanted = await openPackage(deb);
  const file = join(dirname(deb), 'package.f.unpacked');
  const good = readFileSync(file);
  const callsFor = async (form = 'f'): Promise<number> => {
    const before = calls;
    const { index, tar } = await openPackage(deb, form);
    assert.deepEqual(index, wanted.index);
    assert.ok(Buffer.from(tar).equals(wanted.tar));
    return calls - before;
  };
  assert.equal(await callsFor(), 0);
  for (const length of [0, 10, 32, 40, good.length - 1]) {
    truncateSync(file, length);
    assert.equal(await callsFor(), 1, `cut to ${length}`);
    assert.ok(readFileSync(file).equals(good));
  }
  for (const at of [0, 33, good.length - 5]) {
    const altered = Buffer.from(good);
    altered[at] = (altered[at] ?? 0) ^ 1;
    writeFileSync(file, altered);
    assert.equal(await callsFor(), 1, `altered at ${at}`);
  }
  assert.equal(await callsFor('other'), 1);
  assert.deepEqual(readdirSync(dirname(deb)).toSorted(), [
    'package.deb',
    'package.f.unpacked',
    'package.other.unpacked',
    'tree',
  ]);
});

test('a package that moves files of others away is left to dpkg', async () => {
  const deb = makeDeb(FILES, { preinst: '#!/bin/sh\ndpkg-divert --rename /bin/x\n' });
  const { index, tar } = await openPackage(deb);
  assert.deepEqual([index.diverts, tar.length, index.members], [true, 0, []]);
});

test('removeOldPackages() keeps what was used, and of the rest the newest', async () => {
  const at = mkdtempSync(join(folder, 'old-'));
  const now = 1_800_000_000;
  const make = (name: string, mebibytes: number, timeSeconds: number): void => {
    writeFileSync(join(at, name), '');
    truncateSync(join(at, name), mebibytes * 2 ** 20);
    utimesSync(join(at, name), timeSeconds, timeSeconds);
  };
  make('a.f.unpacked', 900, now);
  make('b.f.unpacked', 900, now - 10);
  make('c.f.unpacked', 200, now - 20);
  make('d.deb', 900, now - 30);
  await removeOldPackages(at, { sinceMs: (now - 5) * 1000 });
  assert.deepEqual(readdirSync(at).toSorted(), ['a.f.unpacked', 'b.f.unpacked', 'd.deb']);
});
