import assert from 'node:assert/strict';
import { test } from 'node:test';
import { findMilestones, findPhases, formatChart, formatChartSvg } from './boot-chart.ts';
import type { LabEvent } from './event.ts';

const http = (path: string, atMs: number, durationMs: number): LabEvent => ({
  source: 'http',
  atMs,
  durationMs,
  method: 'GET',
  path,
  status: 200,
  bytes: 1,
  peer: '10.77.0.11',
  complete: true,
});

const RECORD = {
  powerOnMs: 1000,
  lab: [
    http('/buildos-image', 500, 1),
    http('/boot.ipxe', 1900, 10),
    http('/versions/1/buildos-image', 2200, 200),
    http('/versions/1/buildos-initrd', 2600, 300),
    // What the host looks at later is no download of a boot.
    http('/current/buildos-image', 9000, 1),
  ],
  guest: [
    { source: 'console', atMs: 5000, line: 'Build OS 1f0c: stage 1' },
    { source: 'console', atMs: 20_000, line: 'Build OS 2222: stage 1' },
    {
      source: 'console',
      atMs: 6000,
      line: 'Build OS 1f0c: stage 1 done 3.4 s after the kernel started (Node 0.5 s, init 0.5 s)',
    },
  ] as const,
  status: {
    buildId: '1f0c',
    state: 'ready',
    status: 'ready',
    tasks: [],
    uptimeMs: 10_000,
    readAtMs: 12_700,
    toolchains: {},
    events: [
      { name: 'monitor-ready', uptimeMs: 6300 },
      { name: 'agent-ready:default', uptimeMs: 8300 },
    ],
  },
};

test('milestones come from the lab, the console and the host’s own clock', () => {
  assert.deepEqual(findMilestones(RECORD), {
    'power-on': 1000,
    'download-start': 2000,
    'download-end': 2600,
    init: 5000,
    userspace: 6000,
    'monitor-ready': 9000,
    'agent-ready': 11_000,
  });
});

test('a second boot has its own milestones', () => {
  const second = findMilestones({ ...RECORD, powerOnMs: 19_000, status: undefined });
  assert.deepEqual(second, { 'power-on': 19_000, init: 20_000 });
  const done = { source: 'console', atMs: 21_000, line: 'Build OS 2222: stage 1 done' } as const;
  const stuck = { ...RECORD, guest: [...RECORD.guest.slice(0, 2), done], status: undefined };
  assert.equal(findMilestones({ ...stuck, untilMs: 19_000 }).userspace, undefined);
});

test('a phase lasts until the next milestone that was seen', () => {
  assert.deepEqual(findPhases(findMilestones(RECORD)), [
    { name: 'firmware, NBP', startMs: 0, endMs: 1000 },
    { name: 'download', startMs: 1000, endMs: 1600 },
    { name: 'kernel', startMs: 1600, endMs: 4000 },
    { name: 'init', startMs: 4000, endMs: 5000 },
    { name: 'monitor ready', startMs: 5000, endMs: 8000 },
    { name: 'agent ready', startMs: 8000, endMs: 10_000 },
  ]);
  // Whichever was first.
  assert.deepEqual(findPhases({ 'power-on': 1000, 'monitor-ready': 4000, 'toolchain-ready': 3000 }), [
    { name: 'toolchain ready', startMs: 0, endMs: 2000 },
    { name: 'monitor ready', startMs: 2000, endMs: 3000 },
  ]);
});

test('formatChart() draws a line a phase, none wider than asked', () => {
  const lines = formatChart(findPhases(findMilestones(RECORD)), 60).split('\n');
  assert.deepEqual(lines, [
    'firmware, NBP    ██                          1.0 s      1.0',
    'download           ██                        0.6 s      1.6',
    'kernel               █████                   2.4 s      4.0',
    'init                      ███                1.0 s      5.0',
    'monitor ready                ██████          3.0 s      8.0',
    'agent ready                        █████     2.0 s     10.0',
  ]);
  assert.equal(formatChart([]), '');
});

test('formatChartSvg() escapes what it is given', () => {
  const svg = formatChartSvg([{ name: 'a<b', startMs: 0, endMs: 5 }], 'x & "y"');
  assert.match(svg, /a&lt;b/);
  assert.match(svg, /x &amp; &quot;y&quot;/);
  assert.match(formatChartSvg([], 't'), /^<svg /);
});
