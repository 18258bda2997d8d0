/**
 * Where the seconds of a boot over the network went, from power-on: found in what the lab served, what the console said and what the
 * host says of itself. Pure.
 */
import { findMilestones } from '../../lab/boot-chart.ts';
import type { GuestEvent, LabEvent } from '../../lab/event.ts';
import type { StatusReading } from '../../lab/status.ts';

/** A phase, ended by what it is named after; seconds since power-on. */
export interface PxePhase {
  readonly name: string;
  readonly end: number;
}

/** What a boot left. */
export interface PxeRecord {
  readonly powerOnMs: number;
  readonly lab: readonly LabEvent[];
  readonly guest: readonly GuestEvent[];
  readonly status?: StatusReading;
}

/**
 * Finds the phases, in the order in which they came. A boot program that comes over TFTP asks DHCP again, so there may be two phases
 * of DHCP; what was not seen leaves its time to the phase after it.
 */
export function findPxePhases(record: PxeRecord): readonly PxePhase[] {
  const { powerOnMs, lab, guest } = record;
  const milestones = findMilestones({ powerOnMs, lab, guest, status: record.status });
  const downloadStart = milestones['download-start'] ?? Infinity;
  const ends: { readonly name: string; readonly atMs: number }[] = [];
  // Until the large files: a request of DHCP, and the first file after it.
  let isAsking = false;
  for (const event of lab.flatMap(startOf).sort((a, b) => a.atMs - b.atMs)) {
    if (event.atMs >= downloadStart || event.atMs < powerOnMs) continue;
    if (event.isDhcp === isAsking) continue;
    isAsking = event.isDhcp;
    if (event.isDhcp) ends.push({ name: ends.length === 0 ? 'firmware' : 'boot program', atMs: event.atMs });
    else ends.push({ name: 'DHCP', atMs: event.atMs });
  }
  const multiUser = guest.find((event) => event.source === 'console' && /Reached target .*multi-user/.test(event.line));
  const later = [
    { name: 'script', atMs: milestones['download-start'] },
    { name: 'download', atMs: milestones['download-end'] },
    { name: 'kernel', atMs: milestones.init },
    { name: 'init', atMs: milestones.userspace },
    { name: 'multi-user', atMs: multiUser?.atMs },
    { name: 'monitor ready', atMs: milestones['monitor-ready'] },
    { name: 'toolchain ready', atMs: milestones['toolchain-ready'] },
    { name: 'agent ready', atMs: milestones['agent-ready'] },
  ];
  const known = later.flatMap(({ name, atMs }) => (atMs === undefined ? [] : [{ name, atMs }]));
  return [...ends, ...known]
    .sort((a, b) => a.atMs - b.atMs)
    .map(({ name, atMs }) => ({ name, end: (atMs - powerOnMs) / 1000 }));
}

/** The events that count: the first question of DHCP, and the beginning of a file. */
function startOf(event: LabEvent): { readonly atMs: number; readonly isDhcp: boolean }[] {
  if (event.source === 'dhcp') return event.message === 'DISCOVER' ? [{ atMs: event.atMs, isDhcp: true }] : [];
  if (event.source !== 'tftp' && event.source !== 'http') return [];
  return [{ atMs: event.atMs - event.durationMs, isDhcp: false }];
}
