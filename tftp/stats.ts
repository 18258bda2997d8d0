/**
 * Counts what servers did, from their events, and writes it as text for Prometheus (exposition format 0.0.4). Feed one object
 * from as many servers as there are: `serveFolder({ …, ...stats.listeners })`.
 *
 * Labels are of a few fixed values; never a name of a file or an address, of which the network could make up any number.
 */
import type { TransferEvent } from './transfer-event.ts';

/** Upper bounds of the duration histogram, in seconds: a small file on a LAN to an image over a slow line. */
const DURATION_BOUNDS_S = [0.01, 0.1, 1, 10, 60, 300] as const;
/** TFTP error codes that have a meaning (RFC 1350, 2347); others are counted together. */
const ERROR_CODE_MAX = 8;

const DIRECTIONS = ['read', 'write'] as const;
type Direction = (typeof DIRECTIONS)[number];
const RESULTS = ['done', 'failed', 'refused'] as const;
/** `refused`: no transfer came of the request. */
export type CountedResult = (typeof RESULTS)[number];

/** Counters of one direction, seen from the client. */
export interface DirectionStats {
  readonly results: Readonly<Record<CountedResult, number>>;
  /** bytes that came through, of failed transfers too */
  readonly bytes: number;
  readonly blocks: number;
  /** packets that were sent again */
  readonly repeats: number;
  /** how many transfers took how long: one number per bound, and one for longer ones; refused requests are left out */
  readonly durations: readonly number[];
  readonly durationSeconds: number;
  /** smoothed round trips that were measured */
  readonly rttCount: number;
  readonly rttSeconds: number;
}

/** All counters at one moment. */
export interface StatsSnapshot {
  readonly read: DirectionStats;
  readonly write: DirectionStats;
  /** failures and refusals by who ended them and TFTP error code (`0` … `8`, `other`) */
  readonly errors: Readonly<Record<'client' | 'server', Readonly<Record<string, number>>>>;
  /** transfers that run now; a server that repeats its last ACK only is through */
  readonly open: number;
  /** most that ran at once */
  readonly peak: number;
}

/** Counts transfers. */
export class TransferStats {
  readonly #directions: Readonly<Record<Direction, MutableDirection>> = {
    read: emptyDirection(),
    write: emptyDirection(),
  };
  readonly #errors: Readonly<Record<'client' | 'server', Record<string, number>>> = { client: {}, server: {} };
  #open = 0;
  #peak = 0;

  /** What a server is given: the two events that are counted. */
  get listeners(): { readonly onBegin: () => void; readonly onTransfer: (event: TransferEvent) => void } {
    return { onBegin: () => this.begin(), onTransfer: (event) => this.add(event) };
  }

  /** A transfer has begun. */
  begin(): void {
    this.#open += 1;
    this.#peak = Math.max(this.#peak, this.#open);
  }

  /** A transfer has ended, or a request was refused. */
  add(event: TransferEvent): void {
    if (event.begun) this.#open -= 1;
    const counted = this.#directions[event.direction];
    counted.results[event.begun ? event.result : 'refused'] += 1;
    counted.bytes += event.bytes;
    counted.blocks += event.blocks;
    counted.repeats += event.repeats;
    if (event.begun) {
      const seconds = event.durationMs / 1000;
      const bucket = DURATION_BOUNDS_S.findIndex((bound) => seconds <= bound);
      const index = bucket === -1 ? DURATION_BOUNDS_S.length : bucket;
      counted.durations[index] = (counted.durations[index] ?? 0) + 1;
      counted.durationSeconds += seconds;
    }
    if (event.rttMs !== undefined) {
      counted.rttCount += 1;
      counted.rttSeconds += event.rttMs / 1000;
    }
    if (event.result === 'failed') {
      const { errorCode = 0, endedBy = 'server' } = event;
      const code = errorCode <= ERROR_CODE_MAX ? String(errorCode) : 'other';
      this.#errors[endedBy][code] = (this.#errors[endedBy][code] ?? 0) + 1;
    }
  }

  /** The counters now; they do not change with later events. */
  snapshot(): StatsSnapshot {
    return structuredClone({ ...this.#directions, errors: this.#errors, open: this.#open, peak: this.#peak });
  }
}

interface MutableDirection {
  results: Record<CountedResult, number>;
  bytes: number;
  blocks: number;
  repeats: number;
  durations: number[];
  durationSeconds: number;
  rttCount: number;
  rttSeconds: number;
}

function emptyDirection(): MutableDirection {
  return {
    results: { done: 0, failed: 0, refused: 0 },
    bytes: 0,
    blocks: 0,
    repeats: 0,
    durations: Array.from({ length: DURATION_BOUNDS_S.length + 1 }, () => 0),
    durationSeconds: 0,
    rttCount: 0,
    rttSeconds: 0,
  };
}

/** One line of a metric: what follows its name, labels, value. */
interface Sample {
  readonly suffix?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly value: number;
}

/** The counters as Prometheus text, version 0.0.4: serve it as `text/plain; version=0.0.4`. */
export function formatPrometheus(stats: StatsSnapshot): string {
  const each = (pick: (counted: DirectionStats) => number): Sample[] =>
    DIRECTIONS.map((direction) => ({ labels: { direction }, value: pick(stats[direction]) }));
  return [
    formatMetric(
      'tftp_requests_total',
      'counter',
      'Requests by how they ended: done, failed (a transfer that broke off), refused (no transfer came of it).',
      DIRECTIONS.flatMap((direction) =>
        RESULTS.map((result) => ({ labels: { direction, result }, value: stats[direction].results[result] })),
      ),
    ),
    formatMetric(
      'tftp_errors_total',
      'counter',
      'Failed and refused requests by who ended them and TFTP error code.',
      (['client', 'server'] as const).flatMap((by) =>
        Object.entries(stats.errors[by]).map(([code, value]) => ({ labels: { by, code }, value })),
      ),
    ),
    formatMetric(
      'tftp_bytes_total',
      'counter',
      'Bytes of files that came through.',
      each(({ bytes }) => bytes),
    ),
    formatMetric(
      'tftp_blocks_total',
      'counter',
      'DATA blocks that came through.',
      each(({ blocks }) => blocks),
    ),
    formatMetric(
      'tftp_repeats_total',
      'counter',
      'Packets that were sent again.',
      each(({ repeats }) => repeats),
    ),
    formatMetric(
      'tftp_transfer_duration_seconds',
      'histogram',
      'How long transfers took.',
      DIRECTIONS.flatMap((direction) => durationSamples(direction, stats[direction])),
    ),
    formatMetric(
      'tftp_rtt_seconds',
      'summary',
      'Round trips, one smoothed value a transfer.',
      DIRECTIONS.flatMap((direction) => [
        { suffix: '_sum', labels: { direction }, value: stats[direction].rttSeconds },
        { suffix: '_count', labels: { direction }, value: stats[direction].rttCount },
      ]),
    ),
    formatMetric('tftp_transfers_open', 'gauge', 'Transfers that run now.', [{ value: stats.open }]),
    formatMetric('tftp_transfers_peak', 'gauge', 'Most transfers that ran at once.', [{ value: stats.peak }]),
  ].join('');
}

function durationSamples(direction: Direction, counted: DirectionStats): Sample[] {
  let sum = 0;
  const buckets = counted.durations.map((count, index) => {
    sum += count;
    return { suffix: '_bucket', labels: { direction, le: String(DURATION_BOUNDS_S[index] ?? '+Inf') }, value: sum };
  });
  return [
    ...buckets,
    { suffix: '_sum', labels: { direction }, value: counted.durationSeconds },
    { suffix: '_count', labels: { direction }, value: sum },
  ];
}

function formatMetric(name: string, type: string, help: string, samples: readonly Sample[]): string {
  const lines = samples.map(({ suffix = '', labels = {}, value }) => {
    const pairs = Object.entries(labels).map(([label, text]) => `${label}="${text}"`);
    return `${name}${suffix}${pairs.length > 0 ? `{${pairs.join(',')}}` : ''} ${value}\n`;
  });
  return `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n${lines.join('')}`;
}

/** The counters for a person, a few lines. */
export function describeStats(stats: StatsSnapshot): string {
  const lines = DIRECTIONS.map((direction) => {
    const { results, bytes, repeats } = stats[direction];
    const { done, failed, refused } = results;
    return `${direction}s: ${done} done, ${failed} failed, ${refused} refused, ${bytes} bytes, ${repeats} packets repeated`;
  });
  const errors = (['client', 'server'] as const).flatMap((by) =>
    Object.entries(stats.errors[by]).map(([code, count]) => `${count} × ERROR ${code} by the ${by}`),
  );
  if (errors.length > 0) lines.push(`errors: ${errors.join(', ')}`);
  lines.push(`open now: ${stats.open}, at most ${stats.peak}`);
  return lines.join('\n');
}
