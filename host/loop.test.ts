import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseLoops } from './loop.ts';

test('parseLoops() reads what losetup says', () => {
  const answer = '{"loopdevices":[{"name":"/dev/loop0","back-file":"/a b.img","ro":true},{"name":"/dev/loop1"}]}';
  assert.deepEqual(parseLoops(answer), [{ device: '/dev/loop0', file: '/a b.img', readOnly: true }]);
  assert.deepEqual(parseLoops('\n'), []);
  assert.deepEqual(parseLoops('[]'), []);
});
