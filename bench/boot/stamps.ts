/**
 * Where the instructions of a boot went: read out of what a booted guest says of itself. Pure.
 *
 * The guest's clock counts instructions (QEMU's `-icount`), 1 ns each, from its first instruction; so its microseconds are
 * thousands of instructions.
 */

/** What is asked of the guest, once it has reached multi-user: lines for its shell, by the name of the answer. */
export const QUESTIONS = {
  programs:
    "systemctl show --property=CPUUsageNSec buildos-monitor.service buildos-helper.service 'buildos-agent@*.service'",
  manager:
    'systemctl show --property=UserspaceTimestampMonotonic,GeneratorsFinishTimestampMonotonic,UnitsLoadFinishTimestampMonotonic,FinishTimestampMonotonic',
  kernel: "dmesg | grep -F 'Run /init as init process'",
  status: 'cat /build/tftp/status.json 2>/dev/null || true',
  memory: 'cat /proc/meminfo',
  failed: 'systemctl --failed --no-legend --plain',
} as const;

/** What ends a phase, of the events in a host's own account; on a host without a monitor, or without an agent, it is not there. */
const EVENTS: readonly { readonly phase: EventPhase; readonly event: RegExp }[] = [
  { phase: 'monitor ready', event: /^monitor-ready$/ },
  { phase: 'toolchain ready', event: /^toolchain-ready:/ },
  { phase: 'agent ready', event: /^agent-ready:/ },
];

export type Answers = Readonly<Record<keyof typeof QUESTIONS, string>>;

type EventPhase = 'monitor ready' | 'toolchain ready' | 'agent ready';

/** A phase of the boot, ended by what it is named after; in 10⁹ instructions since the first. */
export interface Phase {
  readonly name: 'kernel' | 'init' | 'generators' | 'units loaded' | 'multi-user' | EventPhase;
  readonly end: number;
}

/** One boot. */
export interface BootFigures {
  /** In the order in which they came. */
  readonly phases: readonly Phase[];
  /** What units that are programs of Node have used so far, with all that they have started; in 10⁹ instructions. */
  readonly programs: number;
  /** Memory that is not available to programs after the boot, in MB. */
  readonly memory: number;
  /** Units that failed. */
  readonly failed: readonly string[];
}

/**
 * Reads the answers.
 *
 * @throws {RangeError} naming what the guest did not say
 */
export function readFigures(answers: Answers): BootFigures {
  const manager = (name: string): number =>
    numberIn(answers.manager, new RegExp(`^${name}Monotonic=(\\d+)$`, 'm'), name) / 1e3;
  const memory = (name: string): number => numberIn(answers.memory, new RegExp(`^${name}: +(\\d+) kB$`, 'm'), name);
  const ends: Phase[] = [
    { name: 'kernel', end: numberIn(answers.kernel, /^\[ *([\d.]+)\]/m, 'when init ran') * 1e3 },
    { name: 'init', end: manager('UserspaceTimestamp') },
    { name: 'generators', end: manager('GeneratorsFinishTimestamp') },
    { name: 'units loaded', end: manager('UnitsLoadFinishTimestamp') },
    { name: 'multi-user', end: manager('FinishTimestamp') },
    ...eventsIn(answers.status),
  ];
  return {
    phases: ends.map(({ name, end }) => ({ name, end: end / 1e3 })).sort((a, b) => a.end - b.end),
    programs: sumCpuUsages(answers.programs) / 1e9,
    memory: ((memory('MemTotal') - memory('MemAvailable')) * 1024) / 1e6,
    failed: answers.failed.split('\n').flatMap((line) => line.trim().split(' ')[0] || []),
  };
}

function numberIn(text: string, pattern: RegExp, what: string): number {
  const found = pattern.exec(text)?.[1];
  if (found === undefined)
    throw new RangeError(`Cannot read ${what} in what the guest says: ${JSON.stringify(text.slice(0, 200))}`);
  return Number(found);
}

/** Nanoseconds, as `systemctl show` has them; of a unit that never ran "[not set]". */
export const sumCpuUsages = (cpuUsages: string): number =>
  [...cpuUsages.matchAll(/^CPUUsageNSec=(\d+)$/gm)].reduce((sum, [, usage]) => sum + Number(usage), 0);

function eventsIn(status: string): Phase[] {
  const all = [...status.matchAll(/"name":\s*"([^"]+)",\s*"uptimeMs":\s*(\d+)/g)];
  return EVENTS.flatMap(({ phase, event }) => {
    const found = all.find(([, name = '']) => event.test(name))?.[2];
    return found === undefined ? [] : [{ name: phase, end: Number(found) }];
  });
}
