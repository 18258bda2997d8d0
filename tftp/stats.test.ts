/** Counters and their text, from made-up events; the text is read back by a parser of Prometheus' rules. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { TransferEvent } from './transfer-event.ts';
import { TransferStats, describeStats, formatPrometheus } from './stats.ts';

const EVENT: TransferEvent = {
  peer: '192.0.2.7',
  port: 2070,
  direction: 'read',
  name: 'linux',
  mode: 'octet',
  asked: {},
  options: [],
  granted: {},
  bytes: 1000,
  blocks: 2,
  repeats: 1,
  rttMs: 20,
  durationMs: 500,
  result: 'done',
  begun: true,
};
const REFUSED: Partial<TransferEvent> = {
  bytes: 0,
  blocks: 0,
  repeats: 0,
  durationMs: 0,
  result: 'failed',
  begun: false,
  endedBy: 'server',
  error: 'file not found',
  errorCode: 1,
};

function count(...events: readonly Partial<TransferEvent>[]): TransferStats {
  const stats = new TransferStats();
  for (const event of events) {
    if (event.begun !== false) stats.begin();
    stats.add({ ...EVENT, ...event });
  }
  return stats;
}

test('counts by direction, result, error code and who ended it', () => {
  const stats = count(
    {},
    { direction: 'write', bytes: 5 },
    REFUSED,
    { result: 'failed', endedBy: 'client', errorCode: 0 },
    { result: 'failed', endedBy: 'client', errorCode: 4711 },
  ).snapshot();
  assert.deepEqual(stats.read.results, { done: 1, failed: 2, refused: 1 });
  assert.deepEqual(stats.write.results, { done: 1, failed: 0, refused: 0 });
  assert.deepEqual([stats.read.bytes, stats.write.bytes, stats.read.repeats], [3000, 5, 3]);
  assert.deepEqual(stats.errors, { client: { 0: 1, other: 1 }, server: { 1: 1 } });
});

test('knows how many run now and at most; a refused request runs never', () => {
  const stats = new TransferStats();
  const { onBegin, onTransfer } = stats.listeners;
  onBegin();
  onBegin();
  onTransfer({ ...EVENT, ...REFUSED });
  onTransfer(EVENT);
  const before = stats.snapshot();
  onTransfer(EVENT);
  assert.deepEqual([before.open, before.peak], [1, 2]);
  assert.deepEqual([stats.snapshot().open, stats.snapshot().peak], [0, 2]);
});

/** A sample of the text format. */
interface Sample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

const SUFFIXES: Readonly<Record<string, readonly string[]>> = {
  counter: [''],
  gauge: [''],
  histogram: ['_bucket', '_sum', '_count'],
  summary: ['_sum', '_count'],
};

/** Reads the text format 0.0.4, as strictly as promtool: HELP and TYPE before samples, once a metric, no sample twice. */
function parsePrometheus(text: string): {
  readonly types: ReadonlyMap<string, string>;
  readonly samples: readonly Sample[];
} {
  assert.ok(text.endsWith('\n'));
  const types = new Map<string, string>();
  const helped = new Set<string>();
  const samples: Sample[] = [];
  const seen = new Set<string>();
  let current = '';
  for (const line of text.slice(0, -1).split('\n')) {
    const help = /^# HELP ([a-z_]+) (\S.*)$/.exec(line);
    const type = /^# TYPE ([a-z_]+) (counter|gauge|histogram|summary)$/.exec(line);
    if (help !== null) {
      assert.ok(!helped.has(help[1] ?? ''), line);
      helped.add(help[1] ?? '');
    } else if (type !== null) {
      current = type[1] ?? '';
      assert.ok(helped.has(current) && !types.has(current), line);
      types.set(current, type[2] ?? '');
      if (type[2] === 'counter') assert.match(current, /_total$/);
    } else {
      const [, name = '', , labelText = '', value = ''] =
        /^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{([^}]*)\})? ([0-9.e+-]+)$/.exec(line) ?? assert.fail(`no sample: ${line}`);
      assert.ok(!seen.has(line.slice(0, line.lastIndexOf(' '))), `twice: ${line}`);
      seen.add(line.slice(0, line.lastIndexOf(' ')));
      const suffixes = SUFFIXES[types.get(current) ?? ''] ?? [];
      assert.ok(
        suffixes.some((suffix) => name === current + suffix),
        `${name} stands below ${current}`,
      );
      const labels: Record<string, string> = {};
      for (const pair of labelText === '' ? [] : labelText.split(',')) {
        const [, label = '', text = ''] = /^([a-zA-Z_][a-zA-Z0-9_]*)="([^"\\]*)"$/.exec(pair) ?? assert.fail(pair);
        labels[label] = text;
      }
      samples.push({ name, labels, value: Number(value) });
    }
  }
  assert.deepEqual([...helped], [...types.keys()]);
  return { types, samples };
}

const valueOf = (samples: readonly Sample[], name: string, labels: Readonly<Record<string, string>> = {}): unknown =>
  samples.find(
    (sample) => sample.name === name && Object.entries(labels).every(([label, text]) => sample.labels[label] === text),
  )?.value;

test('the Prometheus text is well formed, and says what was counted', () => {
  const stats = count({}, { durationMs: 5 }, { durationMs: 10_000_000 }, REFUSED, { direction: 'write' });
  const { samples, types } = parsePrometheus(formatPrometheus(stats.snapshot()));
  const read = { direction: 'read' };
  assert.equal(valueOf(samples, 'tftp_requests_total', { ...read, result: 'done' }), 3);
  assert.equal(valueOf(samples, 'tftp_requests_total', { ...read, result: 'refused' }), 1);
  assert.equal(valueOf(samples, 'tftp_errors_total', { by: 'server', code: '1' }), 1);
  assert.equal(valueOf(samples, 'tftp_bytes_total', read), 3000);
  const buckets = samples.filter(({ name, labels }) => name.endsWith('_bucket') && labels['direction'] === 'read');
  assert.deepEqual(
    buckets.map(({ labels, value }) => `${labels['le']}: ${value}`),
    ['0.01: 1', '0.1: 1', '1: 2', '10: 2', '60: 2', '300: 2', '+Inf: 3'],
  );
  assert.equal(valueOf(samples, 'tftp_transfer_duration_seconds_count', read), 3);
  assert.equal(valueOf(samples, 'tftp_transfers_peak'), 1);
  assert.equal(types.get('tftp_rtt_seconds'), 'summary');
  // Nothing counted yet is a page, too.
  parsePrometheus(formatPrometheus(new TransferStats().snapshot()));
});

test('labels stay few, whatever the network asks for', () => {
  const stats = new TransferStats();
  for (let index = 0; index < 5000; index += 1) {
    stats.add({ ...EVENT, ...REFUSED, name: `x${index}`, peer: `10.0.${index >> 8}.${index & 255}`, errorCode: index });
  }
  const { samples } = parsePrometheus(formatPrometheus(stats.snapshot()));
  assert.ok(samples.length < 60, `${samples.length} samples`);
});

test('the summary for a person names what happened', () => {
  assert.equal(
    describeStats(count({}, REFUSED).snapshot()),
    [
      'reads: 1 done, 0 failed, 1 refused, 1000 bytes, 1 packets repeated',
      'writes: 0 done, 0 failed, 0 refused, 0 bytes, 0 packets repeated',
      'errors: 1 × ERROR 1 by the server',
      'open now: 0, at most 1',
    ].join('\n'),
  );
});
