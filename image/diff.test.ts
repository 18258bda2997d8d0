import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type DiffFile, type DiffSide, diffImages } from './diff.ts';
import { formatDiff } from './diff-report.ts';

const file = (more: Partial<DiffFile> & { readonly text?: string } = {}): DiffFile => ({
  kind: 'file',
  mode: 0o644,
  uid: 0,
  gid: 0,
  sizeBytes: 6,
  partSha256: 'one',
  storedDigest: () => more.text ?? 'a',
  digest: () => (more.text ?? 'a').repeat(64),
  ...more,
});

const SIDE: DiffSide = {
  name: 'one',
  packages: [
    { name: 'bash', version: '5.2', sha256: 'x' },
    { name: 'less', version: '668-1' },
  ],
  kernelVersion: '6.12.48',
  nodeVersion: '26.10.0',
  kernelArgs: ['panic=30'],
  properties: [
    { p: 'apt.installed', a: [['bash', 'less']] },
    { p: 'file.hasContent', a: ['/etc/motd', 'one\ntwo\n'] },
  ],
  files: new Map([
    ['/etc/motd', file()],
    ['/usr/bin/less', file({ mode: 0o755 })],
  ]),
  parts: [{ name: 'layer 1', storedBytes: 4096, sha256: 'one' }],
  packageBytes: new Map([['less', 1000]]),
  published: ['a', 'b'],
};

const report = (to: Partial<DiffSide>): readonly string[] =>
  formatDiff(diffImages(SIDE, { ...SIDE, name: 'other', published: ['a', 'c'], ...to }), { files: 3 }).slice(1);

test('diffImages() says that images are the same, bit for bit', () => {
  const diff = diffImages(SIDE, SIDE);
  assert.equal(diff.same, true);
  assert.equal(diff.identical, true);
  assert.deepEqual(formatDiff(diff, { files: 3 }), ['one -> one', 'kernel and initrd are the same, bit for bit']);
});

test('diffImages() tells when nothing but the packing differs', () => {
  assert.deepEqual(report({}), ['nothing but the packing differs']);
  assert.equal(diffImages(SIDE, { ...SIDE, published: ['c'] }).same, false);
});

test('diffImages() compares packages, also those built again under the same version', () => {
  const packages = [
    { name: 'bash', version: '5.2', sha256: 'y' },
    { name: 'nano', version: '8' },
  ];
  assert.deepEqual(report({ packages, packageBytes: new Map([['nano', 2048]]) }), [
    'packages',
    '  ~ bash  5.2, built again  (±0 bytes)',
    '  - less  668-1  (-1000 bytes)',
    '  + nano  8  (+2.0 KiB)',
  ]);
});

test('diffImages() compares kernel, Node, kernel options and sizes', () => {
  const to = {
    kernelVersion: '6.12.57',
    kernelArgs: ['quiet', 'panic=10'],
    parts: [{ name: 'layer 1', storedBytes: 8192, sha256: 'two' }],
  };
  assert.deepEqual(report(to), [
    'kernel and Node',
    '  ~ Linux  6.12.48 -> 6.12.57',
    'kernel options',
    '  - panic=30',
    '  + quiet',
    '  + panic=10',
    'sizes',
    '  ~ in all  4.0 KiB -> 8.0 KiB  (+4.0 KiB)',
    '  ~ layer 1  4.0 KiB -> 8.0 KiB  (+4.0 KiB)',
  ]);
});

test('diffImages() tells which packages take more or less under the same version, the most first', () => {
  const packageBytes = new Map([
    ['bash', 4000],
    ['less', 3048],
  ]);
  assert.deepEqual(report({ packageBytes }), [
    'sizes of packages of the same version',
    '  + bash  0 bytes -> 3.9 KiB  (+3.9 KiB)',
    '  ~ less  1000 bytes -> 3.0 KiB  (+2.0 KiB)',
  ]);
});

test('diffImages() compares properties by their subject, and shows what of them is different', () => {
  const properties = [
    { p: 'apt.installed', a: [['bash', 'nano']] },
    { p: 'file.hasContent', a: ['/etc/motd', 'one\nthree\n'] },
    { p: 'user.present', a: [{ name: 'build', uid: 1000 }] },
  ];
  assert.deepEqual(report({ properties }), [
    'properties',
    '  ~ apt.installed',
    '      - less',
    '      + nano',
    '  ~ file.hasContent /etc/motd',
    '      - two',
    '      + three',
    '  + user.present build',
  ]);
});

test('diffImages() compares files: mode, owner, size, content; the rest of a long list is counted', () => {
  const files = new Map<string, DiffFile>([
    ['/etc/motd', file({ partSha256: 'two', text: 'b' })],
    ['/usr/bin/less', file({ mode: 0o4755, uid: 7, sizeBytes: 9 })],
    ['/usr/bin/new', { ...file({ kind: 'symlink' }), target: 'less' }],
    ['/usr/bin/newer', file()],
  ]);
  assert.deepEqual(report({ files }), [
    'files: 2 added, 2 changed',
    '  ~ /etc/motd  SHA-256 aaaaaaaaaaaa… -> bbbbbbbbbbbb…',
    '  ~ /usr/bin/less  mode 0755 -> 4755, owner 0:0 -> 7:0, size 6 -> 9',
    '  + /usr/bin/new  symlink 0644 0:0 to less',
    '  … and 1 more; --files N or --json shows them',
  ]);
});

test('diffImages() reads no content in parts that are the same', () => {
  const files = new Map([
    ['/etc/motd', file({ storedDigest: () => assert.fail('read') })],
    ['/usr/bin/less', file({ mode: 0o755 })],
  ]);
  assert.deepEqual(report({ files }), ['nothing but the packing differs']);
});

test('diffImages() unpacks no content that is stored the same, and no difference where it is only stored otherwise', () => {
  const files = (more: Partial<DiffFile>): ReadonlyMap<string, DiffFile> =>
    new Map([
      ['/etc/motd', file({ partSha256: 'two', ...more })],
      ['/usr/bin/less', file({ mode: 0o755 })],
    ]);
  assert.deepEqual(report({ files: files({ digest: () => assert.fail('unpacked') }) }), [
    'nothing but the packing differs',
  ]);
  assert.deepEqual(report({ files: files({ storedDigest: () => 'otherwise' }) }), ['nothing but the packing differs']);
});

test('diffImages() compares what is known of both: locks by their packages', () => {
  const lock: DiffSide = { name: 'a.lock.json', packages: SIDE.packages };
  const diff = diffImages(lock, SIDE);
  assert.equal(diff.same, true);
  assert.equal(diff.files, undefined);
  assert.deepEqual(formatDiff(diff, { files: 1 }).slice(1), ['the same packages; there are no bits to compare']);
});
