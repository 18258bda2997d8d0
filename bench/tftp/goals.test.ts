/** The table's computation: bench.py's rows in, values and verdicts out. Figures are made up; nothing is measured. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Goal, GOALS, isMissed, judge } from './goals.ts';
import { MEASUREMENT_NAMES, planMeasurements } from './plan.ts';
import { countFailures, median, parseSamples, select } from './samples.ts';
import { formatTable, formatValue } from './table.ts';

const DONE = { failed: 0, unfinished: 0, verify_errors: 0 };

function goalOf(name: string): Goal {
  const goal = GOALS.find((row) => row.name === name);
  assert.ok(goal, name);
  return goal;
}

/** Rows as bench.py writes them. */
const download = (rates: Readonly<Record<string, readonly number[]>>): ReturnType<typeof parseSamples> =>
  parseSamples({
    args: { what: 'throughput' },
    rows: Object.entries(rates).flatMap(([server, values]) =>
      values.map((MBps, round) => ({
        server,
        round,
        b: 1468,
        w: 64,
        MBps,
        server_cpu_s_per_GB: 2,
        last_error: '',
        ...DONE,
      })),
    ),
    summary: [],
  });

test('parseSamples() keeps server, numbers and the error, and refuses what bench.py did not write', () => {
  const [sample] = parseSamples({ rows: [{ server: 'dgram', MBps: 12.5, neg: '1468x64', last_error: 'timeout' }] });
  assert.deepEqual(sample, { server: 'dgram', values: { MBps: 12.5 }, error: 'timeout' });
  assert.throws(() => parseSamples({ rows: [{ MBps: 1 }] }));
  assert.throws(() => parseSamples([]));
});

test('select() tells settings apart', () => {
  const samples = parseSamples({ rows: [512, 1468].map((b) => ({ server: 'dgram', b })) });
  assert.deepEqual(select(samples, 'dgram', { b: 512 }), [{ server: 'dgram', values: { b: 512 } }]);
  assert.deepEqual(select(samples, 'gso'), []);
});

test('median() is the middle one, or the mean of the middle two', () => {
  const of = (values: readonly number[]): number | undefined =>
    median(parseSamples({ rows: values.map((x) => ({ server: 's', x })) }), 'x');
  assert.equal(of([9, 1, 5]), 5);
  assert.equal(of([9, 1, 5, 6]), 5.5);
  assert.equal(of([]), undefined);
});

test('countFailures() adds what failed, never ended, or was wrong', () => {
  assert.equal(countFailures(parseSamples({ rows: [{ server: 's', failed: 1, unfinished: 2, verify_errors: 4 }] })), 7);
});

test('a ratio is that of the medians, and the driver that is meant to reach the goal decides on it', () => {
  const samples = { download: download({ 'tftpd-hpa': [10, 1000, 10], dgram: [40, 1, 41], gso: [150, 160, 170] }) };
  const reached = judge(goalOf('download-tftpd-hpa'), samples);
  assert.deepEqual(reached.values, { dgram: 4, gso: 16 });
  assert.equal(reached.verdict, 'goal');
  assert.equal(isMissed(reached), false);
});

test('the floor holds for each driver', () => {
  const missed = judge(goalOf('download-tftpd-hpa'), {
    download: download({ 'tftpd-hpa': [10], dgram: [29], gso: [150] }),
  });
  assert.equal(missed.verdict, 'MISSED');
  assert.equal(isMissed(missed), true);
  const met = judge(goalOf('download-tftpd-hpa'), {
    download: download({ 'tftpd-hpa': [10], dgram: [30], gso: [149] }),
  });
  assert.equal(met.verdict, 'floor');
});

test('where less is wanted, the limit itself is met', () => {
  const cpu = judge(goalOf('cpu'), { download: download({ dgram: [1] }) }, ['dgram']);
  assert.deepEqual(cpu.values, { dgram: 2 });
  assert.equal(cpu.verdict, 'floor');
  assert.equal(judge({ ...goalOf('cpu'), goal: 2 }, { download: download({ dgram: [1] }) }, ['dgram']).verdict, 'goal');
  assert.equal(
    judge({ ...goalOf('cpu'), floor: 1.9 }, { download: download({ dgram: [1] }) }, ['dgram']).verdict,
    'MISSED',
  );
});

test('transfers that failed give no verdict but that; failures of the crowd are its figure', () => {
  const rows = [{ server: 'dgram', MBps: 100, ...DONE, failed: 1 }];
  const samples = parseSamples({ rows: [...rows, { server: 'tftpd-hpa', MBps: 1, ...DONE }] });
  const reached = judge(goalOf('download-tftpd-hpa'), { download: samples }, ['dgram']);
  assert.equal(reached.verdict, 'failed');
  assert.equal(isMissed(reached), true);
  const crowd = judge(goalOf('crowd'), { crowd: samples }, ['dgram']);
  assert.deepEqual([crowd.values.dgram, crowd.verdict], [1, 'MISSED']);
});

test('what nobody measured is said to be so, also when only the peer is missing or failed', () => {
  const goal = goalOf('download-tftpd-hpa');
  assert.equal(judge(goal, {}).verdict, 'unmeasured');
  assert.equal(judge(goal, { download: download({ dgram: [100], gso: [100] }) }).verdict, 'unmeasured');
  const failed = parseSamples({
    rows: [
      { server: 'dgram', MBps: 100, ...DONE },
      { server: 'tftpd-hpa', MBps: 0, ...DONE, failed: 1 },
    ],
  });
  assert.equal(judge(goal, { download: failed }, ['dgram']).verdict, 'unmeasured');
});

test('loss is told against loss-free, extra DATA in percent of the file, a flood against the quiet before it', () => {
  const loss = [
    { server: 'dgram', loss: 0, seconds: 4 },
    { server: 'dgram', loss: 1, seconds: 4.4 },
    { server: 'dgram', loss: 5, seconds: 6 },
  ];
  const value = (name: string, rows: readonly object[]): number | undefined =>
    judge(goalOf(name), { [goalOf(name).from]: parseSamples({ rows }) }, ['dgram']).values.dgram;
  assert.equal(value('loss-lockstep-1', loss), 1.1);
  assert.equal(value('loss-lockstep-5', loss), 1.5);
  assert.equal(value('double', [{ server: 'dgram', extra_data: 5, data_packets: 105 }]), 5);
  assert.equal(value('flood', [{ server: 'dgram', p50_ms: 300, quiet_p50_ms: 100 }]), 0.3);
  assert.equal(value('flood-quiet', [{ server: 'dgram', p50_ms: 300, quiet_p50_ms: 100 }]), 3);
  assert.equal(value('memory-after', [{ server: 'dgram', rss_before_MB: 60, rss_after_MB: 61.5 }]), 1.5);
  assert.equal(value('memory-after', [{ server: 'dgram', rss_before_MB: 60, rss_after_MB: 50 }]), 0);
});

test('every row has a name of its own and a measurement that is planned, and every measurement a row', () => {
  assert.equal(new Set(GOALS.map(({ name }) => name)).size, GOALS.length);
  for (const quick of [true, false]) {
    const planned = planMeasurements({ quick, full: false, rounds: undefined }).map(({ name }) => name);
    assert.deepEqual(planned, [...MEASUREMENT_NAMES]);
    assert.deepEqual([...new Set(GOALS.map(({ from }) => from))].toSorted(), planned.toSorted());
  }
});

test('the table has a line a row, with limits, figures and verdict', () => {
  const rows = [judge(goalOf('cpu'), { download: download({ dgram: [1], gso: [1] }) })];
  assert.deepEqual(formatTable(rows, ['dgram', 'gso']).split('\n'), [
    '                              floor        goal   dgram     gso  verdict',
    'server CPU at 1468 × 64  ≤ 2.5 s/GB  ≤ 0.5 s/GB  2 s/GB  2 s/GB  floor',
  ]);
});

test('formatValue() keeps three digits or so', () => {
  assert.equal(formatValue({ unit: '×' }, 9.256), '9.26 ×');
  assert.equal(formatValue({ unit: 'KB' }, 17.34), '17.3 KB');
  assert.equal(formatValue({ unit: '' }, 0), '0');
  assert.equal(formatValue({ unit: 's' }, undefined), '–');
});
