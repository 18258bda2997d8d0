/** The goals of the pipeline: those of the specification in seconds, and how often a peer's time ours goes into. */

/** What is measured; a name for each way to build. */
export type Build =
  | 'cold'
  | 'warm'
  | 'file'
  | 'property'
  | 'package'
  | 'nothing'
  | 'mmdebstrap'
  | 'mkosi'
  | 'mkosi-file';

/** Seconds of each build, by round. */
export type Samples = Readonly<Partial<Record<Build, readonly number[]>>>;

/** A row of the table. */
export interface Goal {
  readonly what: string;
  readonly unit: 's' | '×';
  readonly better: 'less' | 'more';
  /** Ratios alone have one: seconds depend on the machine. */
  readonly floor?: number;
  readonly goal: number;
  readonly value: (samples: Samples) => number | undefined;
}

/** The median; undefined without samples. */
export function median(values: readonly number[] | undefined): number | undefined {
  const sorted = (values ?? []).toSorted((a, b) => a - b);
  const [low, high] = [sorted[(sorted.length - 1) >> 1], sorted[sorted.length >> 1]];
  return low === undefined || high === undefined ? undefined : (low + high) / 2;
}

/** Of mkosi's warm build on the machine that the goals in seconds were set on. */
const MKOSI_SECONDS = 18.1;

/** How many times as long mkosi takes here as where the goals in seconds were set. */
export function slownessOf(samples: Samples): number | undefined {
  const here = median(samples.mkosi);
  return here === undefined ? undefined : here / MKOSI_SECONDS;
}

const seconds =
  (build: Build): Goal['value'] =>
  (samples) =>
    median(samples[build]);

const times =
  (peer: Build, build: Build): Goal['value'] =>
  (samples) => {
    const [theirs, ours] = [median(samples[peer]), median(samples[build])];
    return theirs === undefined || ours === undefined ? undefined : theirs / ours;
  };

/** In the order of the table. */
export const GOALS: readonly Goal[] = [
  { what: 'cold: packages from a folder, by a lock', unit: 's', better: 'less', goal: 10, value: seconds('cold') },
  { what: 'warm: packages are here, nothing else', unit: 's', better: 'less', goal: 8, value: seconds('warm') },
  { what: 'one of our files changed', unit: 's', better: 'less', goal: 1, value: seconds('file') },
  // Ours: the specification has none.
  { what: 'one property changed', unit: 's', better: 'less', goal: 2, value: seconds('property') },
  { what: 'one package changed', unit: 's', better: 'less', goal: 5, value: seconds('package') },
  { what: 'nothing changed', unit: 's', better: 'less', goal: 0.5, value: seconds('nothing') },
  {
    what: 'warm: mmdebstrap, cpio, zstd -3',
    unit: '×',
    better: 'more',
    floor: 1,
    goal: 1.5,
    value: times('mmdebstrap', 'warm'),
  },
  { what: 'warm: mkosi', unit: '×', better: 'more', floor: 1.5, goal: 2.2, value: times('mkosi', 'warm') },
  {
    what: 'one file changed: mkosi, incremental',
    unit: '×',
    better: 'more',
    floor: 1,
    goal: 2.4,
    value: times('mkosi-file', 'file'),
  },
  {
    what: 'one property changed: mkosi, incremental',
    unit: '×',
    better: 'more',
    floor: 1,
    goal: 1.5,
    value: times('mkosi-file', 'property'),
  },
];

export type Verdict = 'goal' | 'floor' | 'MISSED' | 'short' | 'unmeasured';

/** What was reached of a goal. */
export function judge(goal: Goal, samples: Samples): { readonly value: number | undefined; readonly verdict: Verdict } {
  const value = goal.value(samples);
  if (value === undefined) return { value, verdict: 'unmeasured' };
  const reaches = (limit: number): boolean => (goal.better === 'less' ? value <= limit : value >= limit);
  if (reaches(goal.goal)) return { value, verdict: 'goal' };
  if (goal.floor === undefined) return { value, verdict: 'short' };
  return { value, verdict: reaches(goal.floor) ? 'floor' : 'MISSED' };
}
