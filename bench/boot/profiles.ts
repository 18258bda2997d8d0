/** The images that are measured. Where a budget is exceeded on purpose, it is raised here, in the commit that explains why. */
import type { Hardware } from '../../image/module-classes.ts';
import type { BudgetName, Figures } from './budgets.ts';

/** An image, what its boot may cost, and what it is to cost. */
export interface Profile {
  readonly name: string;
  readonly summary: string;
  /** A name of `buildos host list`. */
  readonly host: string;
  readonly hardware: Hardware;
  /** Measured with `--effort quick`, rounded up: what is reached is kept. */
  readonly budgets: Figures;
  readonly goals: Readonly<Partial<Record<BudgetName, number>>>;
}

/**
 * The goals are "and Node". What it adds, estimated from the sizes and the kernel's own stamps: MB packed, 10⁹ instructions to unpack
 * (1.7) and to start (0.6), MB held in RAM.
 */
const NODE = { size: 37, boot: 2.3, memory: 116 } as const;

export const PROFILES: readonly Profile[] = [
  {
    name: 'vm',
    summary: 'Debian, systemd and sshd for virtual machines, with Node',
    host: 'minimal',
    hardware: 'vm',
    budgets: { init: 4.7, 'multi-user': 7.6, size: 119, memory: 338 },
    goals: { size: 38 + NODE.size, 'multi-user': 5.6 + NODE.boot, memory: 280 + NODE.memory },
  },
  {
    name: 'server',
    summary: 'the same for server hardware',
    host: 'minimal-server',
    hardware: 'server',
    budgets: { init: 5, 'multi-user': 7.8, size: 160, memory: 382 },
    goals: { size: 75 + NODE.size, 'multi-user': 5.6 + NODE.boot, memory: 280 + NODE.memory },
  },
  {
    name: 'build-host',
    summary: 'the build host for server hardware: compiler, containers, monitor, with Node',
    host: 'build-host',
    hardware: 'server',
    budgets: { init: 5.1, 'multi-user': 12, size: 222, memory: 495 },
    goals: {},
  },
];
