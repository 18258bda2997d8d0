import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { ImageFormatError, isWhiteout } from './image-entry.ts';
import { readSquashfs } from './squashfs.ts';

const read = (name: string): Uint8Array => readFileSync(join(import.meta.dirname, 'testdata', `${name}.squashfs`));

const EXPECTED = [
  'directory 755 0:0 0 /',
  'symlink 777 0:0 7 /bin -> usr/bin',
  'block-device 640 0:0 0 /disk 259:300',
  'directory 755 0:0 0 /etc',
  'character-device 0 0:0 0 /etc/gone 0:0',
  'file 640 0:42 6 /etc/hello',
  'file 640 0:42 6 /etc/hello-again',
  'directory 755 0:0 0 /etc/skel',
  'character-device 644 0:0 0 /null 1:3',
  'fifo 600 0:0 0 /pipe',
  'directory 755 0:0 0 /usr',
  'directory 755 0:0 0 /usr/bin',
  'file 644 0:0 0 /usr/bin/empty',
  'file 644 0:0 262148 /usr/bin/hole',
  'file 4755 0:0 266590 /usr/bin/large',
  'file 644 0:0 266590 /usr/bin/same',
  'symlink 777 0:0 12 /usr/hello -> ../etc/hello',
  'directory 755 0:0 0 /usr/share',
  'directory 755 0:0 0 /usr/share/many',
];

for (const name of ['lz4', 'zstd', 'gzip']) {
  test(`readSquashfs() reads names, kinds, owners, targets and devices packed with ${name}`, () => {
    const { compression, entries } = readSquashfs(read(name));
    assert.equal(compression, name);
    const shown = entries.map(({ kind, mode, uid, gid, sizeBytes, path, target, device }) =>
      [kind, mode.toString(8), `${uid}:${gid}`, sizeBytes, `/${path}`, target && `-> ${target}`, device?.join(':')]
        .filter((word) => word !== undefined)
        .join(' '),
    );
    assert.deepEqual(
      shown.filter((line) => !line.includes('/file-')),
      EXPECTED,
    );
    assert.equal(shown.length, EXPECTED.length + 40);
  });

  test(`readSquashfs() reads content packed with ${name}: blocks, fragments, holes`, () => {
    const { entries } = readSquashfs(read(name));
    const content = (path: string): Uint8Array => {
      const entry = entries.find((each) => each.path === path);
      assert.ok(entry, path);
      return entry.content();
    };
    const digest = (path: string): string => createHash('sha256').update(content(path)).digest('hex');
    const large = 'a89c134a9fbc28298543893ab974468b8161fd426528c5682237ada801ad5f24';
    assert.equal(digest('usr/bin/large'), large);
    assert.equal(digest('usr/bin/same'), large);
    assert.equal(digest('usr/bin/hole'), '9e359528ea9e5773342b6c70f2bbeddc271a8aeac8faf7042ab41c355c4c59f1');
    assert.equal(content('usr/bin/empty').length, 0);
    assert.equal(Buffer.from(content('etc/hello-again')).toString(), 'hello\n');
    for (let n = 0; n < 40; n += 1) {
      const path = `usr/share/many/file-${String(n).padStart(2, '0')}-${'n'.repeat(60)}`;
      assert.equal(Buffer.from(content(path)).toString(), `${n}\n`.repeat(n));
    }
  });
}

test('readSquashfs() accounts for every byte, and counts what comes twice once', () => {
  for (const name of ['lz4', 'zstd', 'gzip']) {
    const image = read(name);
    const { entries, overheadBytes } = readSquashfs(image);
    const stored = (path: string): number => entries.find((each) => each.path === path)?.storedBytes ?? -1;
    assert.equal(overheadBytes + entries.reduce((sum, entry) => sum + entry.storedBytes, 0), image.length);
    assert.ok(stored('usr/bin/large') > 1000);
    assert.equal(stored('usr/bin/same'), 0);
    assert.equal(stored('etc/hello-again'), 0);
  }
});

test('storedDigest() is the same for the same content, stored in the same way', () => {
  const digest = (name: string, path: string): string | undefined =>
    readSquashfs(read(name))
      .entries.find((each) => each.path === path)
      ?.storedDigest();
  assert.equal(digest('lz4', 'usr/bin/large'), digest('lz4', 'usr/bin/same'));
  assert.equal(digest('lz4', 'etc/hello'), digest('lz4', 'etc/hello-again'));
  assert.notEqual(digest('lz4', 'usr/bin/large'), digest('zstd', 'usr/bin/large'));
  assert.notEqual(digest('lz4', 'etc/hello'), digest('lz4', 'usr/bin/hole'));
});

test('readSquashfs() knows what overlayfs marks, and other extended attributes', () => {
  const { entries } = readSquashfs(read('zstd'));
  const of = (path: string) => entries.find((each) => each.path === path);
  assert.deepEqual(
    entries.filter(isWhiteout).map(({ path }) => path),
    ['etc/gone'],
  );
  assert.deepEqual(
    entries.filter(({ opaque }) => opaque).map(({ path }) => path),
    ['etc/skel'],
  );
  assert.equal(of('etc/skel')?.xattrs, undefined);
  assert.deepEqual(of('usr/bin/large')?.xattrs, { 'security.capability': '0100000200200000000000000000000000000000' });
  assert.deepEqual(of('usr/bin/empty')?.xattrs, { 'user.note': '6e'.repeat(300) });
});

test('readSquashfs() says which packing it cannot read, and that a file is cut short', () => {
  assert.throws(() => readSquashfs(read('xz')), /packed with xz/);
  assert.throws(() => readSquashfs(read('lz4').subarray(0, 5000)), /5000 of its \d+ bytes are there/);
  assert.throws(() => readSquashfs(new Uint8Array(4096)), /no superblock/);
});

test('readSquashfs() reads what is not packed, and refuses folders in a circle', () => {
  const image = Buffer.from(read('plain'));
  const { entries } = readSquashfs(image);
  assert.deepEqual(
    entries.map(({ path }) => path),
    ['', 'aaaa', 'aaaa/bbbb', 'aaaa/bbbb/cccc'],
  );
  assert.equal(Buffer.from(entries[3]?.content() ?? []).toString(), 'hi\n');
  // A directory entry is: offset of the inode in its block, number, type, length of the name, name.
  const offsetOf = (name: string): number => image.indexOf(name) - 8;
  image.writeUInt16LE(image.readUInt16LE(offsetOf('aaaa')), offsetOf('bbbb'));
  assert.throws(() => readSquashfs(image), /\/aaaa\/bbbb is a loop/);
});

test('readSquashfs() ends with ImageFormatError, whatever byte is altered', () => {
  const image = read('lz4');
  fc.assert(
    fc.property(fc.nat(image.length - 1), fc.integer({ min: 1, max: 255 }), (at, change) => {
      const altered = Uint8Array.from(image);
      altered[at] = (altered[at] ?? 0) ^ change;
      try {
        const { entries } = readSquashfs(altered);
        assert.ok(entries.length < 1_000_000);
      } catch (error) {
        assert.ok(error instanceof ImageFormatError, String(error));
      }
    }),
    { numRuns: 150 },
  );
});
