/** The images that are measured. Where a budget is exceeded on purpose, it is raised here, in the commit that explains why. */
import type { Hardware } from '../../image/kernel-modules.ts';
import type { BudgetName, Figures } from './budgets.ts';

/** An image, what its boot may cost, and what it is to cost. */
export interface Profile {
  readonly name: string;
  readonly summary: string;
  /** A name of `buildos host list`. */
  readonly host: string;
  readonly hardware: Hardware;
  /** Measured, rounded up: what is reached is kept. */
  readonly budgets: Figures;
  readonly goals: Readonly<Partial<Record<BudgetName, number>>>;
}

export const PROFILES: readonly Profile[] = [
  {
    name: 'vm',
    summary: 'Debian, systemd and sshd for virtual machines, with Node',
    host: 'minimal',
    hardware: 'vm',
    budgets: { init: 9, 'multi-user': 20, size: 100, memory: 500 },
    goals: { size: 38 + 37, 'multi-user': 5.6, memory: 280 + 111 },
  },
  {
    name: 'build-host',
    summary: 'the build host for server hardware: compiler, containers, monitor, with Node',
    host: 'build-host',
    hardware: 'server',
    budgets: { init: 9, 'multi-user': 20, size: 250, memory: 600 },
    goals: {},
  },
];
