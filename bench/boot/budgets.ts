/** What a boot may cost: a budget for each image, which CI keeps; and the goals that it is on its way to. */
import type { BuiltImage } from '../../image/built-image.ts';
import type { BootFigures } from './stamps.ts';

/** What is counted. */
const BUDGET_NAMES = ['init', 'multi-user', 'size', 'memory'] as const;
export type BudgetName = (typeof BUDGET_NAMES)[number];

/** How it is written. */
export const UNITS: Readonly<Record<BudgetName, { readonly what: string; readonly unit: string }>> = {
  init: { what: 'kernel and init', unit: '10⁹ instructions' },
  'multi-user': { what: 'to multi-user', unit: '10⁹ instructions' },
  size: { what: 'kernel and initrd', unit: 'MB' },
  memory: { what: 'memory in use after the boot', unit: 'MB' },
};

/** More than this above the budget fails. */
const TOLERANCE = 0.03;

export type Figures = Readonly<Record<BudgetName, number>>;

/** What was reached, beside the budget. */
export interface Judgement {
  readonly name: BudgetName;
  readonly reached: number;
  readonly budget: number;
  readonly isExceeded: boolean;
}

/** The figures that have a budget. */
export function figuresOf(image: Pick<BuiltImage, 'sizes'>, boot: BootFigures): Figures {
  const end = (name: string): number => boot.phases.find((phase) => phase.name === name)?.end ?? Number.NaN;
  return {
    init: end('init'),
    'multi-user': end('multi-user'),
    size: (image.sizes.kernel + image.sizes.initrd) / 1e6,
    memory: boot.memory,
  };
}

/** Compares. What could not be measured is exceeded, too. */
export function judgeBudgets(figures: Figures, budgets: Figures): readonly Judgement[] {
  return BUDGET_NAMES.map((name) => ({
    name,
    reached: figures[name],
    budget: budgets[name],
    isExceeded: !(figures[name] <= budgets[name] * (1 + TOLERANCE)),
  }));
}
