/**
 * What is measured: the runs of bench.py, each with the servers that it compares, all interleaved in it.
 *
 * The sizes are those of the goals; `quick` takes smaller files and fewer rounds, for a look and not for a verdict.
 */

/** Our server, with each way to send (`tftp/server.ts`). */
export const DRIVERS = ['dgram', 'gso'] as const;
export type Driver = (typeof DRIVERS)[number];

/** The servers that ours is compared with, by bench.py's names. */
export type Peer = 'tftpd-hpa' | 'dnsmasq' | 'atftpd';

/** One run of bench.py. */
export interface Measurement {
  readonly name: MeasurementName;
  readonly peers: readonly Peer[];
  /** the command of bench.py and its options, without servers and folders */
  readonly argv: readonly string[];
  /** the link is an emulated one: our client is measured too, started in its far end */
  readonly ownClient?: true;
}

export const MEASUREMENT_NAMES = [
  'download',
  'lockstep',
  'clients',
  'upload',
  'open',
  'churn',
  'crowd',
  'loss-lockstep',
  'loss-window',
  'loss-own',
  'double',
  'double-window',
  'flood',
] as const;
export type MeasurementName = (typeof MEASUREMENT_NAMES)[number];

/** How much is measured. */
export interface Extent {
  readonly quick: boolean;
  /** the whole million transfers */
  readonly full: boolean;
  /** default: 5, quick 3 */
  readonly rounds: number | undefined;
}

const MIB = 1024 * 1024;

/** The delay is one way. */
const RTT_20_MS = '--delay 10';
/** Our server collects its garbage before its memory is read. */
const SETTLE = '--settle-signal USR2';

/** The runs, in the order of the goals' table. */
export function planMeasurements({ quick, full, rounds: asked }: Extent): readonly Measurement[] {
  const rounds = asked ?? (quick ? 3 : 5);
  /** for what is slow, and steady enough for a look */
  const few = Math.min(rounds, quick ? 2 : 5);
  const best = '--blk 1468 --win 1,64 --best';
  return [
    {
      name: 'download',
      peers: ['tftpd-hpa', 'dnsmasq', 'atftpd'],
      argv: words(`throughput ${best} --size ${(quick ? 32 : 256) * MIB} --rounds ${rounds}`),
    },
    {
      name: 'lockstep',
      peers: ['tftpd-hpa'],
      argv: words(`throughput --blk 512,1468 --win 1 --size ${(quick ? 4 : 16) * MIB} --rounds ${rounds}`),
    },
    {
      name: 'clients',
      peers: ['tftpd-hpa', 'dnsmasq'],
      argv: words(
        `concurrency ${best} --clients 256 --transfers 256 --each ${quick ? MIB / 4 : MIB} --rounds ${rounds}`,
      ),
    },
    {
      name: 'upload',
      peers: ['atftpd'],
      argv: words(`upload --blk 1468 --win 16 --clients 16 --each ${(quick ? 2 : 8) * MIB} --rounds ${rounds}`),
    },
    { name: 'open', peers: [], argv: words(`hold --count ${quick ? 500 : 1000} --rounds ${few} ${SETTLE}`) },
    { name: 'churn', peers: [], argv: words(`churn --count ${churnCount({ quick, full })} --deadline 1800 ${SETTLE}`) },
    {
      name: 'crowd',
      peers: [],
      argv: words(
        `concurrency --spread --blk 1468 --win 64 --clients 4096 --transfers 4096 --each 65536 --rounds ${quick ? 1 : few}`,
      ),
    },
    {
      name: 'loss-lockstep',
      peers: [],
      argv: words(`loss ${RTT_20_MS} --blk 1468 --win 1 --loss 0,1,5 --each ${MIB / 4} --rounds ${few} --parallel 6`),
    },
    { name: 'loss-window', peers: [], argv: lossWindow(few) },
    { name: 'loss-own', peers: [], argv: lossWindow(few), ownClient: true },
    { name: 'double', peers: [], argv: doubled(1, quick ? MIB / 4 : MIB, few) },
    { name: 'double-window', peers: [], argv: doubled(64, 4 * MIB, few), ownClient: true },
    {
      name: 'flood',
      peers: [],
      argv: words(
        `flood --transfers 5 --blk 1468 --win 64 --rate 20000 --deadline 30 --limit 40 --each ${MIB} --rounds ${quick ? 1 : few}`,
      ),
    },
  ];
}

/** Transfers between two looks at the server's memory, after as many as its heap needs to find its size. */
const churnCount = ({ quick, full }: Pick<Extent, 'quick' | 'full'>): number => {
  if (full) return 1_000_000;
  return quick ? 20_000 : 100_000;
};

const lossWindow = (rounds: number): readonly string[] =>
  words(`loss ${RTT_20_MS} --blk 1468 --win 64 --loss 1,5 --each ${4 * MIB} --rounds ${rounds} --parallel 2`);

const doubled = (windowsize: number, bytes: number, rounds: number): readonly string[] =>
  words(
    `loss --delay 5 --blk 1468 --win ${windowsize} --loss 0 --dup 100 --reorder 5 --each ${bytes} --rounds ${rounds} --parallel 4`,
  );

const words = (text: string): readonly string[] => text.split(' ');
