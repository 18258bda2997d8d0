import assert from 'node:assert/strict';
import { test } from 'node:test';
import { planBoot, planCleanUp } from './plan.ts';
import { describe } from './step.ts';

test('planBoot() snapshots, then starts with the limits', () => {
  const steps = planBoot({
    build: 'default-1',
    machine: {
      volume: 'default',
      manifest: { id: 'x', name: 'linux_debian_13-gcc_14', summary: 'Debian', type: 'nspawn' },
    },
    toolchain: 'default',
    place: { address: '169.254.78.32', port: 20_000 },
    limits: { cpus: 2, memoryMiB: 1024, tasksMax: 4096, timeoutSeconds: 3600 },
  });
  assert.deepEqual(steps.map(describe), [
    'snapshot default/linux_debian_13-gcc_14 as default-1',
    'start default-1 at 169.254.78.32, TFTP port 20000, 2 CPUs, 1024 MiB, at most 3600 s',
  ]);
});

test('planCleanUp() ends what is ours, wherever it is, and nothing else', () => {
  const nothing = { snapshot: false, netns: false, link: false };
  const steps = planCleanUp(
    [
      { build: 'default-1', volume: 'fast', unit: 'active', snapshot: true, netns: true, link: true },
      { ...nothing, build: 'other-1', unit: 'active' },
      { ...nothing, build: 'default-2', netns: true },
    ],
    (build) => build.startsWith('default-'),
    'default',
  );
  assert.deepEqual(steps.map(describe), [
    'stop default-1',
    'delete fast/default-1',
    'stop default-2',
    'delete default/default-2',
  ]);
});
