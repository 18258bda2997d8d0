import assert from 'node:assert/strict';
import { test } from 'node:test';
import { HOST_TIMES, pauseMs, settingsFor } from './settings.ts';

const NONE = { controllers: [], controllerTrust: [], interactive: 'false' } as const;
const SMALL = { cpus: 2, memoryMiB: 2048, tftpBytes: 512 * 1024 * 1024, agents: 1 };

test('settingsFor() gives one machine most of a small host', () => {
  const { instances, limits, quotas } = settingsFor(NONE, SMALL, HOST_TIMES);
  assert.deepEqual([instances, limits.cpus, limits.memoryMiB], [1, 2, 1280]);
  assert.equal(quotas.logBytes, 64 * 1024 * 1024);
  assert.equal(quotas.uploadBytes, 256 * 1024 * 1024);
});

test('settingsFor() divides a large host', () => {
  const size = { cpus: 32, memoryMiB: 131_072, tftpBytes: 2 ** 30, agents: 2 };
  const { instances, limits } = settingsFor(NONE, size, HOST_TIMES);
  assert.deepEqual([instances, limits.cpus], [8, 2]);
  assert.ok(limits.memoryMiB * instances * size.agents <= size.memoryMiB);
});

test('settingsFor() follows the options, but not past the memory there is', () => {
  const { instances, limits } = settingsFor({ ...NONE, instances: 3, ncpu: 5, ramMiB: 99_999 }, SMALL, HOST_TIMES);
  assert.deepEqual([instances, limits.cpus, limits.memoryMiB], [3, 5, 2048]);
});

test('pauseMs() grows to its end, spread by a quarter', () => {
  assert.deepEqual(
    [1, 2, 3, 100].map((count) => pauseMs([1000, 5000], count, 0.5)),
    [1000, 1500, 2250, 5000],
  );
  assert.equal(pauseMs([1000, 5000], 1, 0), 750);
  assert.equal(pauseMs([1000, 5000], 1, 1), 1250);
});
