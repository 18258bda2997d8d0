/**
 * The goals of the TFTP server and client, each with how it is computed from the samples: ratios within one run, medians of its
 * rounds. The floor is for both drivers; the goal is for the accelerator, where there is one.
 */
import { type Driver, type MeasurementName, type Peer, DRIVERS } from './plan.ts';
import { type Sample, countFailures, median, select } from './samples.ts';

/** A row of the table. */
export interface Goal {
  /** for `--only` */
  readonly name: string;
  /** what is measured, for a person */
  readonly what: string;
  readonly from: MeasurementName;
  readonly unit: '×' | 's' | 's/GB' | 'KB' | 'MB' | '%' | '';
  /** whether more or less is wanted */
  readonly better: 'more' | 'less';
  readonly floor?: number;
  readonly goal?: number;
  /** undefined: cannot be told from these samples */
  readonly value: (samples: readonly Sample[], driver: Driver) => number | undefined;
}

/**
 * `goal`: reached; `floor`: the floor is met, the goal is not; `short`: a goal without a floor is not reached; `MISSED`: the floor;
 * `failed`: transfers failed, so that there is no figure; `unmeasured`: nobody asked for it, or a peer had no figure.
 */
export type Verdict = 'goal' | 'floor' | 'MISSED' | 'failed' | 'unmeasured' | 'short';

/** A row with what was reached. */
export interface Reached {
  readonly goal: Goal;
  readonly values: Readonly<Partial<Record<Driver, number>>>;
  readonly verdict: Verdict;
}

export type Samples = Readonly<Partial<Record<MeasurementName, readonly Sample[]>>>;

/** How many times the peer's throughput, both at their best for the block size. */
const timesPeer =
  (peer: Peer, where: Readonly<Record<string, number>> = {}): Goal['value'] =>
  (samples, driver) => {
    const theirs = select(samples, peer, where);
    const [a, b] = [median(select(samples, driver, where), 'MBps'), median(theirs, 'MBps')];
    return a === undefined || b === undefined || b === 0 || countFailures(theirs) > 0 ? undefined : a / b;
  };

const medianOf =
  (field: string, where: Readonly<Record<string, number>> = {}): Goal['value'] =>
  (samples, driver) =>
    median(select(samples, driver, where), field);

/** How many times as long as without loss. */
const timesLossFree =
  (loss: number): Goal['value'] =>
  (samples, driver) => {
    const [a, b] = [medianOf('seconds', { loss })(samples, driver), medianOf('seconds', { loss: 0 })(samples, driver)];
    return a === undefined || b === undefined || b === 0 ? undefined : a / b;
  };

/** The median of a figure that is computed within each sample. */
const medianWith =
  (compute: (values: Sample['values']) => number | undefined): Goal['value'] =>
  (samples, driver) => {
    const computed = select(samples, driver).flatMap((sample) => {
      const value = compute(sample.values);
      return value === undefined ? [] : [{ server: driver, values: { value } }];
    });
    return median(computed, 'value');
  };

/** What the resident memory grew by; a server that shrank has not leaked. */
const growth = medianWith(({ rss_before_MB: before, rss_after_MB: after }) =>
  before === undefined || after === undefined ? undefined : Math.max(0, after - before),
);

/** DATA beyond the blocks of the file, in percent. */
const extraData = medianWith(({ extra_data: extra, data_packets: all }) =>
  extra === undefined || all === undefined || all <= extra ? undefined : (extra / (all - extra)) * 100,
);

const timesQuiet = medianWith(({ p50_ms: busy, quiet_p50_ms: quiet }) =>
  busy === undefined || !quiet ? undefined : busy / quiet,
);

const atRtt = 'RTT 20 ms:';

export const GOALS: readonly Goal[] = [
  ...(
    [
      ['tftpd-hpa', 3, 15],
      ['dnsmasq', 2.5, 12],
      ['atftpd', 1.3, 6],
    ] as const
  ).map(([peer, floor, goal]): Goal => ({
    name: `download-${peer}`,
    what: `one read, 1468 × 64, against ${peer}${peer === 'atftpd' ? ' 1468 × 64' : ' at its best'}`,
    from: 'download',
    unit: '×',
    better: 'more',
    floor,
    goal,
    value: timesPeer(peer),
  })),
  ...[512, 1468].map((b): Goal => ({
    name: `lockstep-${b}`,
    what: `one read in lock-step, ${b}, against tftpd-hpa`,
    from: 'lockstep',
    unit: '×',
    better: 'more',
    floor: 0.9,
    goal: 1.1,
    value: timesPeer('tftpd-hpa', { b }),
  })),
  ...(
    [
      ['tftpd-hpa', 4, 15],
      ['dnsmasq', 2, 8],
    ] as const
  ).map(([peer, floor, goal]): Goal => ({
    name: `clients-${peer}`,
    what: `256 clients, 1468 × 64, against ${peer}`,
    from: 'clients',
    unit: '×',
    better: 'more',
    floor,
    goal,
    value: timesPeer(peer),
  })),
  {
    name: 'upload',
    what: '16 uploads, 1468 × 16, against atftpd',
    from: 'upload',
    unit: '×',
    better: 'more',
    floor: 1,
    goal: 1.5,
    value: timesPeer('atftpd'),
  },
  {
    name: 'cpu',
    what: 'server CPU at 1468 × 64',
    from: 'download',
    unit: 's/GB',
    better: 'less',
    floor: 2.5,
    goal: 0.5,
    value: medianOf('server_cpu_s_per_GB'),
  },
  {
    name: 'memory-open',
    what: 'memory of an open transfer',
    from: 'open',
    unit: 'KB',
    better: 'less',
    floor: 40,
    goal: 12,
    value: medianOf('KB_each'),
  },
  {
    name: 'memory-busy',
    what: 'server with 256 busy transfers',
    from: 'clients',
    unit: 'MB',
    better: 'less',
    floor: 90,
    goal: 60,
    value: medianOf('server_rss_MB'),
  },
  {
    name: 'memory-after',
    what: 'server after a million transfers (--full), more by',
    from: 'churn',
    unit: 'MB',
    better: 'less',
    floor: 5,
    goal: 2,
    value: growth,
  },
  {
    name: 'crowd',
    what: '4096 clients at once, 64 KB each: failures',
    from: 'crowd',
    unit: '',
    better: 'less',
    floor: 0,
    goal: 0,
    value: (samples, driver) => {
      const ours = select(samples, driver);
      return ours.length === 0 ? undefined : countFailures(ours);
    },
  },
  ...(
    [
      [1, 1.15, 1.08],
      [5, 1.35, 1.25],
    ] as const
  ).map(([loss, floor, goal]): Goal => ({
    name: `loss-lockstep-${loss}`,
    what: `${atRtt} lock-step, 256 KB, ${loss} % loss against none`,
    from: 'loss-lockstep',
    unit: '×',
    better: 'less',
    floor,
    goal,
    value: timesLossFree(loss),
  })),
  ...(
    [
      ['loss-window', 'any client', 1, 1.6, 1.3],
      ['loss-window', 'any client', 5, 3, 2.5],
      ['loss-own', 'our client', 1, 1.4, 1.1],
      ['loss-own', 'our client', 5, 2, 1.5],
    ] as const
  ).map(([from, client, loss, floor, goal]): Goal => ({
    name: `${from}-${loss}`,
    what: `${atRtt} 1468 × 64, 4 MB, ${loss} % loss, ${client}`,
    from,
    unit: 's',
    better: 'less',
    floor,
    goal,
    value: medianOf('seconds', { loss }),
  })),
  {
    name: 'double',
    what: 'all doubled, 5 % reordered, lock-step: extra DATA',
    from: 'double',
    unit: '%',
    better: 'less',
    floor: 1,
    goal: 0,
    value: extraData,
  },
  {
    name: 'double-window',
    what: 'the same, 1468 × 64, our client',
    from: 'double-window',
    unit: '%',
    better: 'less',
    floor: 1,
    goal: 0,
    value: extraData,
  },
  {
    name: 'flood',
    what: '1 MB read during 20 000 forged RRQ/s',
    from: 'flood',
    unit: 's',
    better: 'less',
    floor: 2,
    value: medianWith(({ p50_ms: ms }) => (ms === undefined ? undefined : ms / 1000)),
  },
  {
    name: 'flood-quiet',
    what: 'the same, against a quiet time',
    from: 'flood',
    unit: '×',
    better: 'less',
    goal: 1.2,
    value: timesQuiet,
  },
];

/**
 * Fills in a row.
 *
 * @param goal - the row
 * @param samples - all that were taken
 * @param drivers - those of our server that were measured
 */
export function judge(goal: Goal, samples: Samples, drivers: readonly Driver[] = DRIVERS): Reached {
  const taken = samples[goal.from] ?? [];
  const values: Partial<Record<Driver, number>> = {};
  let failed = false;
  for (const driver of drivers) {
    // A figure of transfers that failed is none, unless failures are the figure.
    if (goal.name !== 'crowd' && countFailures(select(taken, driver)) > 0) failed = true;
    const value = goal.value(taken, driver);
    if (value !== undefined) values[driver] = value;
  }
  return { goal, values, verdict: failed ? 'failed' : decide(goal, drivers, values) };
}

/** Whether a row keeps the bench from ending with status 0. */
export function isMissed({ verdict }: Reached): boolean {
  return verdict === 'MISSED' || verdict === 'failed';
}

function decide(goal: Goal, drivers: readonly Driver[], values: Reached['values']): Verdict {
  const found = drivers.flatMap((driver) => values[driver] ?? []);
  if (found.length < drivers.length || drivers.length === 0) return 'unmeasured';
  const meets = (value: number, limit: number): boolean => (goal.better === 'more' ? value >= limit : value <= limit);
  if (found.some((value) => goal.floor !== undefined && !meets(value, goal.floor))) return 'MISSED';
  const best = values.gso ?? values.dgram;
  if (best !== undefined && goal.goal !== undefined && meets(best, goal.goal)) return 'goal';
  return goal.floor === undefined ? 'short' : 'floor';
}
