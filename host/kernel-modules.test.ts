import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseModuleList } from './kernel-modules.ts';

test('parseModuleList() keeps the order and leaves out comments and empty lines', () => {
  assert.deepEqual(parseModuleList('# load\nloop.ko\n\n  squashfs.ko \n'), ['loop.ko', 'squashfs.ko']);
});
