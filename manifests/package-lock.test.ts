import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  compareLocks,
  formatPackageLock,
  type LockedPackage,
  type PackageLock,
  parsePackageLock,
} from './package-lock.ts';

const packageOf = (name: string, version: string, source = 0): LockedPackage => ({
  name,
  version,
  architecture: 'amd64',
  source,
  path: `pool/${name}_${version}.deb`,
  sizeBytes: 10,
  sha256: Buffer.from(`${name}${version}`).toString('hex').padEnd(64, '0').slice(0, 64),
});

const lockOf = (packages: readonly LockedPackage[]): PackageLock => ({
  format: 1,
  suite: 'trixie',
  architecture: 'amd64',
  requested: ['less'],
  sources: ['trixie', 'trixie-security'].map((suite) => ({
    uri: 'http://deb.debian.org/debian',
    suite,
    components: ['main'],
    releaseSha256: 'ab'.repeat(32),
    releaseDate: '2026-09-12T07:55:41.000Z',
  })),
  packages,
});

test('a lock survives being written and read', () => {
  for (const lock of [lockOf([]), lockOf([packageOf('less', '1:2-3+b1'), packageOf('libc6', '2.41-12+deb13u4', 1)])]) {
    assert.deepEqual(parsePackageLock(formatPackageLock(lock)), lock);
  }
});

test('a package has a line of its own, so that differences can be read', () => {
  const lines = formatPackageLock(lockOf([packageOf('less', '1'), packageOf('libc6', '2')])).split('\n');
  assert.equal(lines.filter((line) => /^ {4}\{"name":"(less|libc6)"/.test(line)).length, 2);
});

test('what could lead elsewhere, or means nothing, is refused with its place', () => {
  const good = packageOf('less', '1');
  const bad: readonly Partial<LockedPackage>[] = [
    { path: '../etc/passwd' },
    { path: '/etc/passwd' },
    { name: 'Less' },
    { name: '-o' },
    { version: 'a b' },
    { sha256: 'AB' },
    { source: 2 },
    { sizeBytes: 0 },
  ];
  for (const change of bad) {
    const text = formatPackageLock(lockOf([{ ...good, ...change }]));
    assert.throws(() => parsePackageLock(text, { name: 'x.lock.json' }), { name: 'ManifestError' }, text);
  }
  assert.throws(() => parsePackageLock(formatPackageLock(lockOf([good, good]))), /twice/);
  assert.throws(() => parsePackageLock('{'), { name: 'ManifestError' });
});

test('compareLocks() tells what came, went and changed, and which of it is security', () => {
  const before = lockOf([packageOf('a', '1'), packageOf('b', '1'), packageOf('c', '1'), packageOf('d', '1')]);
  const after = lockOf([packageOf('a', '1'), packageOf('b', '2'), packageOf('c', '2', 1), packageOf('e', '1')]);
  assert.deepEqual(compareLocks(before, after), {
    added: [packageOf('e', '1')],
    removed: [packageOf('d', '1')],
    changed: [
      { name: 'b', from: '1', to: '2', security: false },
      { name: 'c', from: '1', to: '2', security: true },
    ],
  });
});
