/** What a boot may cost: a budget for each image, which CI keeps; and the goals that it is on its way to. */
import type { BuiltImage } from '../../image/built-image.ts';
import type { BootFigures, Phase } from './stamps.ts';

/** What is counted. */
const BUDGET_NAMES = ['init', 'multi-user', 'agent', 'size', 'memory'] as const;
export type BudgetName = (typeof BUDGET_NAMES)[number];

/** How it is written. */
export const UNITS: Readonly<Record<BudgetName, { readonly what: string; readonly unit: string }>> = {
  init: { what: 'kernel and init', unit: '10⁹ instructions' },
  'multi-user': { what: 'to multi-user', unit: '10⁹ instructions' },
  agent: { what: 'to agent', unit: '10⁹ instructions' },
  size: { what: 'kernel and initrd', unit: 'MB' },
  memory: { what: 'memory in use after the boot', unit: 'MB' },
};

/** More than this above the budget fails. */
const TOLERANCE = 0.03;

/** Figures of one image; those that it has. */
export type Figures = Readonly<Partial<Record<BudgetName, number>>>;

/** What was reached, beside the budget. */
export interface Judgement {
  readonly name: BudgetName;
  readonly reached: number;
  readonly budget: number;
  readonly isExceeded: boolean;
}

/** The figures that have a budget. */
export function figuresOf(image: Pick<BuiltImage, 'sizes'>, boot: BootFigures): Figures {
  const agent = endOf(boot, 'agent ready');
  return {
    init: endOf(boot, 'init') ?? Number.NaN,
    'multi-user': endOf(boot, 'multi-user') ?? Number.NaN,
    ...(agent !== undefined && { agent }),
    size: (image.sizes.kernel + image.sizes.initrd) / 1e6,
    memory: boot.memory,
  };
}

/** When a phase ended; undefined when the boot had none of that name. */
export function endOf({ phases }: BootFigures, name: Phase['name']): number | undefined {
  return phases.find((phase) => phase.name === name)?.end;
}

/** Compares what has a budget. What could not be measured is exceeded, too. */
export function judgeBudgets(figures: Figures, budgets: Figures): readonly Judgement[] {
  return BUDGET_NAMES.flatMap((name) => {
    const budget = budgets[name];
    if (budget === undefined) return [];
    const reached = figures[name] ?? Number.NaN;
    return [{ name, reached, budget, isExceeded: !(reached <= budget * (1 + TOLERANCE)) }];
  });
}
