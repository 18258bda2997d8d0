/** A CPU profile in, the functions that took the time out. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { topFunctions } from './profile.ts';

const node = (id: number, functionName: string, url = '', lineNumber = -1): object => ({
  id,
  callFrame: { functionName, url, lineNumber, scriptId: '0', columnNumber: 0 },
});

test('topFunctions() adds the time of each function, wherever it was called from, without the idle time', () => {
  const profile = {
    nodes: [
      node(1, '(root)'),
      node(2, '(idle)'),
      node(3, 'send', 'file:///top/tftp/driver.ts', 11),
      node(4, 'send', 'file:///top/tftp/driver.ts', 11),
      node(5, '', 'node:fs', 0),
    ],
    samples: [2, 3, 4, 5],
    timeDeltas: [9_000_000, 2000, 1000, 1000],
  };
  assert.deepEqual(topFunctions(profile, 10), [
    { name: 'send (driver.ts:12)', ms: 3, share: 0.75 },
    { name: '(anonymous) (node:fs:1)', ms: 1, share: 0.25 },
  ]);
  assert.equal(topFunctions(profile, 1).length, 1);
});

test('topFunctions() refuses what is no profile', () => {
  assert.throws(() => topFunctions({ nodes: [] }, 10));
});
