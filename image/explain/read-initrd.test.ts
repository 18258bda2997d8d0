import assert from 'node:assert/strict';
import { test } from 'node:test';
import { constants, zstdCompressSync } from 'node:zlib';
import * as fc from 'fast-check';
import { encodeCpio } from '../cpio.ts';
import { packStage1, packSystem } from '../initrd.ts';
import { ImageFormatError } from './image-entry.ts';
import { endOfFrame, readInitrd } from './read-initrd.ts';

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

async function initrd(): Promise<Uint8Array> {
  const stage1 = await packStage1({
    firstSteps: bytes('#!/bin/busybox sh\n'.repeat(50)),
    rescue: bytes('rescue'),
    init: bytes('init'),
    payload: { buildId: 'x', layers: [] },
    modules: [{ name: 'loop.ko', content: bytes('module') }],
  });
  return Buffer.concat([stage1, ...packSystem({ name: 'layer-1.squashfs', squashfs: bytes('not really one') })]);
}

test('readInitrd() finds the segments that the pipeline writes, and what is in them', async () => {
  const packed = await initrd();
  const segments = readInitrd(packed);
  assert.deepEqual(
    segments.map(({ compression }) => compression),
    ['zstd', 'none'],
  );
  const init = segments[0]?.entries.find(({ path }) => path === 'init');
  assert.equal(init?.mode, 0o755);
  assert.equal(Buffer.from(init?.content() ?? []).toString(), '#!/bin/busybox sh\n'.repeat(50));
  assert.equal(segments[1]?.entries.find(({ kind }) => kind === 'file')?.path, 'buildos/layer-1.squashfs');
  let all = 0;
  for (const { bytes: stretch, entries, overheadBytes } of segments) {
    assert.equal(
      entries.reduce((sum, entry) => sum + entry.storedBytes, overheadBytes),
      stretch.length,
    );
    all += stretch.length;
  }
  assert.equal(all, packed.length);
});

test('readInitrd() reads devices and links', () => {
  const archive = encodeCpio([
    { kind: 'character-device', path: 'dev/console', mode: 0o600, major: 5, minor: 1 },
    { kind: 'symlink', path: 'bin/sh', target: 'busybox' },
  ]);
  const [segment] = readInitrd(archive);
  const shown = segment?.entries.map(({ kind, path, device, target }) => [
    kind,
    path,
    device?.join(':') ?? target ?? '',
  ]);
  assert.deepEqual(shown, [
    ['directory', 'dev', ''],
    ['character-device', 'dev/console', '5:1'],
    ['directory', 'bin', ''],
    ['symlink', 'bin/sh', 'busybox'],
  ]);
});

test('readInitrd() refuses what is cut short, at every byte', async () => {
  const packed = await initrd();
  const whole = readInitrd(packed).length;
  for (let length = 1; length < packed.length; length += 7) {
    try {
      assert.ok(readInitrd(packed.subarray(0, length)).length < whole, `cut to ${length}`);
    } catch (error) {
      assert.ok(error instanceof ImageFormatError, `cut to ${length}: ${String(error)}`);
    }
  }
  assert.throws(() => readInitrd(bytes('#!/bin/sh\n'.repeat(20))), /no cpio header/);
});

test('endOfFrame() finds the end of a zstd frame, whatever was packed how', () => {
  // Blocks of one byte that repeats.
  const zeros = zstdCompressSync(new Uint8Array(1_000_000));
  assert.equal(endOfFrame(new DataView(zeros.buffer, zeros.byteOffset, zeros.length), 0), zeros.length);
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 300 }),
      fc.integer({ min: 1, max: 3000 }),
      fc.integer({ min: 1, max: 9 }),
      fc.boolean(),
      (pattern, times, level, checksum) => {
        const content = Buffer.concat(Array.from({ length: times }, () => pattern));
        const frame = zstdCompressSync(content, {
          params: { [constants.ZSTD_c_compressionLevel]: level, [constants.ZSTD_c_checksumFlag]: checksum ? 1 : 0 },
        });
        const followed = Buffer.concat([Buffer.alloc(3), frame, Buffer.from('more')]);
        const view = new DataView(followed.buffer, followed.byteOffset, followed.length);
        assert.equal(endOfFrame(view, 3), 3 + frame.length);
      },
    ),
    { numRuns: 60 },
  );
});
