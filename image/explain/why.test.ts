import assert from 'node:assert/strict';
import { test } from 'node:test';
import { groupOrigins, type Origin } from '../trace.ts';
import { layersOf } from './_parts.ts';
import { accountFor, packageBytes, totals } from './account.ts';
import { mergeLayers } from './image-parts.ts';
import { Origins } from './origins.ts';
import { drawMap } from './size-map-svg.ts';
import { formatMapPage } from './size-map-html.ts';
import { sizeTree } from './size-map.ts';
import { explainPath, formatWhy } from './why.ts';

const less: Origin = { kind: 'package', name: 'less', version: '668-1', how: 'shipped' };
const property: Origin = { kind: 'property', p: 'file.hasContent', description: '/etc/motd has its <content>' };
const absent: Origin = { kind: 'property', p: 'file.absent', description: '/etc/old is absent' };

const PARTS = layersOf(
  [
    'usr/',
    'usr/bin/',
    'usr/bin/less=100',
    'bin>usr/bin',
    'usr/sbin>/bin',
    'etc/',
    'etc/motd=5',
    'etc/old=7',
    'usr/lib/modules/6/kernel/fs/btrfs/btrfs.ko=50',
  ],
  ['etc/', 'etc/motd=3', '-etc/old'],
);

const ROOT = mergeLayers(PARTS);

const ORIGINS = new Origins({
  kernelVersion: '6',
  nodeVersion: '26.0.0',
  contents: {
    format: 1,
    layers: [
      groupOrigins(
        [
          'usr',
          'usr/bin',
          'usr/bin/less',
          'bin',
          'usr/sbin',
          'etc',
          'etc/motd',
          'etc/old',
          'usr/share/man/less.1',
          'usr/lib/modules/6/kernel/fs/nfs/nfs.ko.xz',
          'usr/lib/modules/6/kernel/fs/btrfs/btrfs.ko.xz',
        ].map((path) => [path, less] as const),
      ),
      groupOrigins([
        ['etc', property],
        ['etc/motd', property],
        ['etc/old', absent],
      ]),
    ],
  },
});

const properties = [{ p: 'image.excludes', a: [['boot/*', 'usr/share/{man,info}']] }];

const why = (path: string): string[] =>
  formatWhy(explainPath(path, { parts: PARTS, root: ROOT, origins: ORIGINS, properties }));

test('explainPath() follows links of folders to the file, and says which package it is of', () => {
  assert.deepEqual(why('/bin/less'), [
    '/usr/bin/less',
    '  through the link /bin -> usr/bin',
    '  file 0644, owner 0:0, 200 bytes, 100 in the image, in layer 1',
    '  from package less 668-1',
  ]);
});

test('explainPath() follows a link that begins at the root', () => {
  assert.deepEqual(why('/usr/sbin/less').slice(0, 3), [
    '/usr/bin/less',
    '  through the link /usr/sbin -> /bin',
    '  through the link /bin -> usr/bin',
  ]);
});

test('explainPath() says what a layer above has changed, and what is below it unseen', () => {
  assert.deepEqual(why('/etc/motd'), [
    '/etc/motd',
    '  file 0644, owner 0:0, 6 bytes, 3 in the image, in layer 2',
    '  from property file.hasContent: /etc/motd has its <content>',
    '  layer 1 has another below it, unseen: file 0644, owner 0:0, 10 bytes, 5 in the image, from package less 668-1',
  ]);
});

test('explainPath() says what removed a file, what left it out, and that it never was there', () => {
  assert.equal(why('/etc/old')[2], '  by property file.absent: /etc/old is absent');
  assert.deepEqual(why('/usr/share/man/less.1').slice(1), [
    '  is not in the image: left out when it was packed (image.excludes "usr/share/{man,info}")',
    '  from package less 668-1',
  ]);
  assert.match(why('/usr/lib/modules/6/kernel/fs/nfs/nfs.ko')[1] ?? '', /those of the hardware profile are kept/);
  assert.deepEqual(why('/nowhere').slice(1), ['  is not in the image, and was not there when it was made']);
});

test('explainPath() sums up a folder, which comes from the lowest layer that has it', () => {
  assert.deepEqual(why('/etc/').slice(2), ['  1 file in it: 6 bytes, 3 in the image', '  from package less 668-1']);
});

test('accountFor() has every byte once, by package, property and class of kernel modules', () => {
  const items = accountFor(PARTS, ROOT, ORIGINS);
  const stored = PARTS.reduce((sum, part) => sum + part.storedBytes, 0);
  assert.equal(
    items.reduce((sum, item) => sum + item.storedBytes, 0),
    stored,
  );
  const rows = totals(items, ({ group, name }) => `${group} ${name}`).map(
    ({ name, storedBytes }) => `${name}: ${storedBytes}`,
  );
  assert.deepEqual(rows, [
    'packages less: 112',
    'kernel modules: filesystems: 50',
    'form layer 1: 10',
    'form layer 2: 10',
    'properties /etc/motd has its <content>: 3',
    'properties /etc/old is absent: 0',
  ]);
  assert.deepEqual([...packageBytes(PARTS, ORIGINS)], [['less', 162]]);
});

test('drawMap() draws every file with an area in proportion; names of files do no harm', () => {
  const svg = drawMap(sizeTree(accountFor(PARTS, ROOT, ORIGINS), 'an "image" & more'), { standalone: true });
  const area = (path: string): number => {
    const [, width, height] = new RegExp(`width="([\\d.]+)" height="([\\d.]+)"><title>${path}:`).exec(svg) ?? [];
    return Number(width) * Number(height);
  };
  assert.ok(Math.abs(area('/usr/bin/less') / area('/etc/old') - 100 / 7) < 0.05);
  assert.match(svg, /aria-label="Size map of an &quot;image&quot; &amp; more: 185 bytes"/);
  assert.match(svg, /&lt;content&gt;/);
  assert.doesNotMatch(svg, /<content>/);
});

test('formatMapPage() has the map, a table of the same, and loads nothing', () => {
  const page = formatMapPage(accountFor(PARTS, ROOT, ORIGINS), { title: '<b>', lines: ['a & b'] });
  assert.match(page, /<h1>&lt;b&gt;<\/h1>\n<p>a &amp; b<\/p>/);
  assert.match(page, /<th scope="row">less<\/th><td>packages<\/td><td class="number">112 bytes<\/td>/);
  assert.doesNotMatch(page.replaceAll('http://www.w3.org/2000/svg', ''), /https?:\/\/|src=|href=|url\(|@import/);
});
