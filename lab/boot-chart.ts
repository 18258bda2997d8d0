/**
 * The boot chart: from power-on to a result, on one clock, as text bars and as SVG. Pure.
 *
 * Milestones come from three sides: what the lab served (DHCP, TFTP, HTTP), what the guest's console said, and the host's own events
 * in its status, which count from the kernel's start. A phase lasts from one milestone to the next; a milestone that was not seen
 * leaves its time to the phase after it.
 */
import type { GuestEvent, LabEvent } from './event.ts';
import type { StatusReading } from './status.ts';

/** In the order in which they usually happen. Each ends a phase, except the first. */
const MILESTONES = [
  { name: 'power-on', phase: '' },
  { name: 'download-start', phase: 'firmware, NBP' },
  { name: 'download-end', phase: 'download' },
  { name: 'init', phase: 'kernel' },
  { name: 'userspace', phase: 'init' },
  { name: 'monitor-start', phase: 'userspace' },
  { name: 'monitor-ready', phase: 'monitor ready' },
  { name: 'toolchain-ready', phase: 'toolchain ready' },
  { name: 'agent-ready', phase: 'agent ready' },
  { name: 'task-claimed', phase: 'task claimed' },
  { name: 'job-started', phase: 'job started' },
  { name: 'result', phase: 'result' },
] as const;

export type MilestoneName = (typeof MILESTONES)[number]['name'];

/** When something happened, in milliseconds since 1970. */
export type Milestones = Readonly<Partial<Record<MilestoneName, number>>>;

/** A bar of the chart; times in milliseconds since power-on. */
export interface Phase {
  readonly name: string;
  readonly startMs: number;
  readonly endMs: number;
}

/** What the milestones are found in. Only what lies between the two times counts: one boot of a guest that may boot again. */
export interface BootRecord {
  readonly powerOnMs: number;
  /** The next power-on or reset; default: no end. */
  readonly untilMs?: number;
  readonly lab: readonly LabEvent[];
  readonly guest: readonly GuestEvent[];
  readonly status?: StatusReading | undefined;
}

/** Finds the milestones of one boot. */
export function findMilestones(record: BootRecord): Milestones {
  const isHere = ({ atMs }: { readonly atMs: number }): boolean =>
    atMs >= record.powerOnMs && atMs < (record.untilMs ?? Infinity);
  const console = record.guest.filter(isHere).filter((event) => event.source === 'console');
  const lineAt = (pattern: RegExp): number | undefined => console.find((event) => pattern.test(event.line))?.atMs;

  const init = lineAt(/Build OS \S+: stage 1$/) ?? lineAt(/Run \/init as init process/);
  // Downloads end before the kernel says anything; later requests are the monitor's.
  const kernelSpeaks = lineAt(/Linux version/) ?? init ?? Infinity;
  const downloads = record.lab
    .filter(isHere)
    .filter((event) => event.source === 'http' && event.status < 300 && event.atMs <= kernelSpeaks)
    .filter((event) => event.source === 'http' && /buildos-(image|initrd)$/.test(event.path));
  const first = downloads[0];
  const found: Partial<Record<MilestoneName, number | undefined>> = {
    'power-on': record.powerOnMs,
    'download-start': first?.source === 'http' ? first.atMs - first.durationMs : undefined,
    'download-end': downloads.at(-1)?.atMs,
    init,
    userspace: lineAt(/stage 1 done/) ?? lineAt(/systemd\[1\]: systemd .* running in system mode/),
    ...milestonesOfStatus(record.status),
  };
  const entries = MILESTONES.flatMap(({ name }) => {
    const atMs = found[name];
    return atMs === undefined ? [] : [[name, Math.round(atMs)] as const];
  });
  return Object.fromEntries(entries);
}

/** The phases between the milestones that are there, in the order in which they came. */
export function findPhases(milestones: Milestones): readonly Phase[] {
  const powerOn = milestones['power-on'] ?? Math.min(...Object.values(milestones));
  const phases: Phase[] = [];
  let startMs = 0;
  const reached = MILESTONES.flatMap(({ name, phase }) => {
    const atMs = milestones[name];
    return atMs === undefined || phase === '' ? [] : [{ phase, endMs: Math.max(0, atMs - powerOn) }];
  });
  for (const { phase, endMs } of reached.sort((a, b) => a.endMs - b.endMs)) {
    phases.push({ name: phase, startMs, endMs });
    startMs = endMs;
  }
  return phases;
}

/**
 * The chart for a terminal: a line a phase.
 *
 *     firmware, NBP    ███                              0.9 s     0.9
 *     download            █                             0.4 s     1.3
 *
 * @param columns - width of a line, at least 60
 */
export function formatChart(phases: readonly Phase[], columns = 78): string {
  const width = columns - NAME_COLUMNS - 20;
  const total = phases.at(-1)?.endMs ?? 0;
  const column = (ms: number): number => (total === 0 ? 0 : Math.round((ms / total) * width));
  return phases
    .map(({ name, startMs, endMs }) => {
      const from = Math.min(column(startMs), width - 1);
      const bar = ' '.repeat(from) + '█'.repeat(Math.max(1, column(endMs) - from));
      return `${name.padEnd(NAME_COLUMNS)}${bar.padEnd(width)} ${seconds(endMs - startMs).padStart(7)} s ${seconds(endMs).padStart(8)}`;
    })
    .join('\n');
}

/** The chart as a picture of its own: no scripts, no fonts to load. */
export function formatChartSvg(phases: readonly Phase[], title: string): string {
  const total = Math.max(1, phases.at(-1)?.endMs ?? 0);
  const x = (ms: number): number => Math.round((SVG.left + (ms / total) * SVG.bars) * 10) / 10;
  const height = SVG.top + phases.length * SVG.row + 24;
  const rows = phases.flatMap(({ name, startMs, endMs }, index) => {
    const y = SVG.top + index * SVG.row;
    const middle = y + SVG.row / 2 + 4;
    const width = Math.max(1, x(endMs) - x(startMs));
    const label = `${seconds(endMs - startMs)} s`;
    const fits = x(endMs) + 60 < SVG.width;
    return [
      `<text x="${SVG.left - 8}" y="${middle}" text-anchor="end">${escapeXml(name)}</text>`,
      `<rect x="${x(startMs)}" y="${y + 3}" width="${width}" height="${SVG.row - 6}" fill="${COLOURS[index % COLOURS.length]}"/>`,
      fits
        ? `<text x="${x(endMs) + 5}" y="${middle}">${label}</text>`
        : `<text x="${x(startMs) - 5}" y="${middle}" text-anchor="end">${label}</text>`,
    ];
  });
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${SVG.width}" height="${height}" font-family="sans-serif" font-size="12">`,
    `<rect width="100%" height="100%" fill="white"/>`,
    `<text x="8" y="20" font-size="15" font-weight="bold">${escapeXml(title)}</text>`,
    ...rows,
    `<text x="${x(total)}" y="${height - 8}" text-anchor="end">${seconds(total)} s</text>`,
    '</svg>',
    '',
  ].join('\n');
}

/** The host's events, moved to this machine's clock. Of a name with `:<toolchain>` behind it the first counts. */
function milestonesOfStatus(status: StatusReading | undefined): Partial<Record<string, number>> {
  if (status === undefined) return {};
  const kernelStartMs = status.readAtMs - status.uptimeMs;
  const found: Partial<Record<string, number>> = {};
  for (const { name, uptimeMs } of status.events) {
    const bare = name.split(':')[0] ?? name;
    found[bare] ??= kernelStartMs + uptimeMs;
  }
  return found;
}

const NAME_COLUMNS = 17;
const SVG = { width: 860, left: 130, bars: 640, top: 34, row: 24 } as const;
/** One for each phase, told apart by people who see colours differently too (Okabe and Ito). */
const COLOURS = ['#0072B2', '#E69F00', '#009E73', '#CC79A7', '#56B4E9', '#D55E00', '#F0E442', '#999999'] as const;

const seconds = (ms: number): string => (ms / 1000).toFixed(1);

const escapeXml = (text: string): string =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');
