import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chooseEncoding, describeEncoding } from './encoding.ts';

test('a slow wire is worth packing tighter, a fast one is not', () => {
  assert.deepEqual(chooseEncoding('100M'), { root: 'zstd-19', node: 'zstd-19' });
  assert.deepEqual(chooseEncoding('1G'), { root: 'lz4hc', node: 'lz4hc' });
  assert.deepEqual(chooseEncoding('10G'), { root: 'lz4hc', node: 'lz4hc' });
});

test('without a wire an image is packed at once', () => {
  assert.deepEqual(chooseEncoding(undefined), { root: 'zstd-3', node: 'lz4hc' });
});

test('what was chosen is told with what the other would cost', () => {
  assert.equal(
    describeEncoding('100M')[0],
    'Root packed with zstd-19: 100 MB of it over 100M, and to read, take a host 2847 ms; with lz4hc 3830 ms',
  );
  assert.match(describeEncoding(undefined)[0] ?? '', /--wire/);
});
