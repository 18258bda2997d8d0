/** The images that are measured. Where a budget is exceeded on purpose, it is raised here, in the commit that explains why. */
import type { Hardware } from '../../image/module-classes.ts';
import type { Wire } from '../../properties/image.ts';
import type { BudgetName, Figures } from './budgets.ts';

/** An image, what its boot may cost, and what it is to cost. */
export interface Profile {
  readonly name: string;
  readonly summary: string;
  /** A name of `buildos host list`. */
  readonly host: string;
  readonly hardware: Hardware;
  /** What it is packed for; default: for no wire in particular, at once. */
  readonly wire?: Wire;
  /** Kernel arguments of the same image without Node: units that are programs of Node are not started. */
  readonly withoutNode: readonly string[];
  /** It is booted once more, with a toolchain, until its agent is ready. */
  readonly hasAgent: boolean;
  /** Measured, rounded up: what is reached is kept. */
  readonly budgets: Figures;
  /** Of the first step and of the last, without Node: what Node costs is measured. */
  readonly goals: Readonly<Partial<Record<BudgetName, readonly [first: number, last: number]>>>;
}

export const PROFILES: readonly Profile[] = [
  {
    name: 'vm',
    summary: 'Debian, systemd and sshd for virtual machines',
    host: 'minimal',
    hardware: 'vm',
    wire: '100M',
    withoutNode: [],
    hasAgent: false,
    budgets: { init: 3.05, 'multi-user': 5.95, size: 73.6, memory: 256 },
    goals: { size: [38, 32], 'multi-user': [5.6, 4.5], memory: [280, 200] },
  },
  {
    name: 'vm-1g',
    summary: 'the same, packed for a wire of 1 Gb/s',
    host: 'minimal',
    hardware: 'vm',
    wire: '1G',
    withoutNode: [],
    hasAgent: false,
    budgets: { init: 1.85, 'multi-user': 3.8, size: 102.5, memory: 260 },
    goals: { 'multi-user': [5.6, 4.5], memory: [280, 200] },
  },
  {
    name: 'server',
    summary: 'the same as vm for server hardware',
    host: 'minimal-server',
    hardware: 'server',
    wire: '100M',
    withoutNode: [],
    hasAgent: false,
    budgets: { init: 3.2, 'multi-user': 6.1, size: 93.5, memory: 276 },
    goals: { size: [75, 60], 'multi-user': [5.6, 4.5], memory: [280, 200] },
  },
  {
    name: 'build-host',
    summary: 'the build host for server hardware: compiler, containers, monitor',
    host: 'build-host',
    hardware: 'server',
    withoutNode: ['systemd.mask=buildos-monitor.service', 'systemd.mask=buildos-tftp.socket'],
    hasAgent: true,
    budgets: { init: 2.25, 'multi-user': 6, agent: 7.75, size: 180, memory: 380 },
    goals: { agent: [5, 2.5], 'multi-user': [5.6, 4.5], memory: [280, 200] },
  },
];
