import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readFigures } from './stamps.ts';

const ANSWERS = {
  programs: 'CPUUsageNSec=940000000\n\nCPUUsageNSec=[not set]\n\nCPUUsageNSec=60000000\n',
  manager: [
    'UserspaceTimestampMonotonic=5002000',
    'GeneratorsFinishTimestampMonotonic=5500000',
    'UnitsLoadFinishTimestampMonotonic=5600000',
    'FinishTimestampMonotonic=9500000',
    '',
  ].join('\n'),
  kernel: '[    1.250000] Run /init as init process\n',
  status: '{"events":[{"name":"monitor-start","uptimeMs":8000},{"name":"monitor-ready","uptimeMs":9000}]}',
  memory: 'MemTotal:        2000000 kB\nMemFree:          900000 kB\nMemAvailable:    1500000 kB\n',
  failed: '',
};

test('phases end where the guest says, in the order in which they came', () => {
  const { phases, programs, memory, failed } = readFigures(ANSWERS);
  assert.deepEqual(phases, [
    { name: 'kernel', end: 1.25 },
    { name: 'init', end: 5.002 },
    { name: 'generators', end: 5.5 },
    { name: 'units loaded', end: 5.6 },
    { name: 'monitor ready', end: 9 },
    { name: 'multi-user', end: 9.5 },
  ]);
  assert.equal(programs, 1);
  assert.equal(memory, 512);
  assert.deepEqual(failed, []);
});

test('an agent is ready when its toolchain is', () => {
  const events = ['monitor-start', 'toolchain-ready:default', 'monitor-ready', 'agent-ready:default'];
  const status = JSON.stringify({ events: events.map((name, index) => ({ name, uptimeMs: 9000 + index * 1000 })) });
  const { phases } = readFigures({ ...ANSWERS, status });
  assert.deepEqual(phases.slice(-4), [
    { name: 'multi-user', end: 9.5 },
    { name: 'toolchain ready', end: 10 },
    { name: 'monitor ready', end: 11 },
    { name: 'agent ready', end: 12 },
  ]);
});

test('a host without a monitor has one phase less; units that failed are named', () => {
  const { phases, failed } = readFigures({
    ...ANSWERS,
    status: '',
    failed: 'a.service loaded failed failed A thing\n',
  });
  assert.equal(phases.at(-1)?.name, 'multi-user');
  assert.deepEqual(failed, ['a.service']);
});

test('an answer that is missing is named', () => {
  assert.throws(() => readFigures({ ...ANSWERS, kernel: '' }), /when init ran/);
  assert.throws(() => readFigures({ ...ANSWERS, manager: 'FinishTimestampMonotonic=0\n' }), /UserspaceTimestamp/);
});
