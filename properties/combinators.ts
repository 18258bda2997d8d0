/** Properties made of properties: sequences, the opposite, requirements, what follows a change. */
import {
  type Outcome,
  type PropertyApplication,
  type Walk,
  FailedChangeError,
  applicationDigest,
  defineCombinator,
  describeApplication,
} from './property.ts';

/** All of them, in order; a failure does not keep the others from being tried. Unapplied in reverse. */
export const seq: (...children: PropertyApplication[]) => PropertyApplication = defineCombinator<PropertyApplication[]>(
  {
    id: 'seq',
    holdsWithChildren: true,
    describe: (...children) => listOf(children),
    children: (...children) => children,
    apply: (walk, ...children) => tryAll(children, (child) => walk.apply(child)),
    unapply: (walk, ...children) => tryAll(children.toReversed(), (child) => walk.unapply(child)),
  },
);

/** All of them, in order, up to the first failure. Unapplied in reverse. */
export const eseq: (...children: PropertyApplication[]) => PropertyApplication = defineCombinator<
  PropertyApplication[]
>({
  id: 'eseq',
  holdsWithChildren: true,
  describe: (...children) => listOf(children),
  children: (...children) => children,
  apply: (walk, ...children) => untilFailure(walk, children, (child) => walk.apply(child)),
  unapply: (walk, ...children) => untilFailure(walk, children.toReversed(), (child) => walk.unapply(child)),
});

/** The opposite of a property: it is taken back, and its static facts do not hold. */
export const unapplied: (child: PropertyApplication) => PropertyApplication = defineCombinator<[PropertyApplication]>({
  id: 'unapplied',
  describe: (child) => `not: ${describeApplication(child)}`,
  children: (child) => [child],
  attrsFrom: () => [],
  plan: (walk, child) => walk.planUnapplied(child),
  apply: (walk, child) => walk.unapply(child),
  unapply: (walk, child) => walk.apply(child),
});

/** A property under another name for logs and plans. */
export const describe: (text: string, child: PropertyApplication) => PropertyApplication = defineCombinator<
  [string, PropertyApplication]
>({
  id: 'describe',
  holdsWithChildren: true,
  describe: (text) => text,
  children: (_text, child) => [child],
  apply: (walk, _text, child) => walk.apply(child),
  unapply: (walk, _text, child) => walk.unapply(child),
});

/** A property and what has to hold before it; if a requirement fails, it is not tried. Unapplied in reverse. */
export const withRequirements: (
  child: PropertyApplication,
  ...requirements: PropertyApplication[]
) => PropertyApplication = defineCombinator<[PropertyApplication, ...PropertyApplication[]]>({
  id: 'withRequirements',
  holdsWithChildren: true,
  describe: (child) => describeApplication(child),
  children: (child, ...requirements) => [...requirements, child],
  apply: (walk, child, ...requirements) => untilFailure(walk, [...requirements, child], (one) => walk.apply(one)),
  unapply: (walk, child, ...requirements) =>
    untilFailure(walk, [child, ...requirements.toReversed()], (one) => walk.unapply(one)),
});

/** Where debts of onChange are written down. */
const DEBTS = '/var/lib/buildos/debts';

/**
 * When the first property changed something, the others are applied too, then and there.
 *
 * Durable: that they are owed is written down before the change, and a run that finds a debt pays it. So a power cut
 * between the change and what follows loses nothing.
 */
export const onChange: (child: PropertyApplication, ...then: PropertyApplication[]) => PropertyApplication =
  defineCombinator<[PropertyApplication, ...PropertyApplication[]]>({
    id: 'onChange',
    describe: (child, ...then) =>
      `${describeApplication(child)} (on change: ${then.map(describeApplication).join(', ')})`,
    children: (child, ...then) => [child, ...then],
    facts: (child, ...then) => [{ fact: 'file', path: debtOf(child, then) }],
    plan: async (walk, child, ...then) => {
      const planned = [...(await walk.plan(child))];
      const follows =
        walk.facts.file(debtOf(child, then)) !== undefined || planned.some(({ state }) => state === 'change');
      for (const one of follows ? then : []) planned.push(...(await walk.plan(one)));
      return planned;
    },
    apply: (walk, child, ...then) =>
      applyWithDebt(
        walk,
        child,
        then,
        (one) => walk.apply(one),
        (one) => walk.holds(one),
      ),
    unapply: (walk, child, ...then) =>
      applyWithDebt(
        walk,
        child,
        then,
        (one) => walk.unapply(one),
        async () => false,
      ),
  });

async function applyWithDebt(
  walk: Walk,
  child: PropertyApplication,
  then: readonly PropertyApplication[],
  change: (child: PropertyApplication) => Promise<Outcome>,
  mayStay: (child: PropertyApplication) => Promise<boolean>,
): Promise<Outcome> {
  const debt = debtOf(child, then);
  const owed = walk.host.facts.file(debt) !== undefined;
  // What holds already will not change, so nothing is owed; the child is still walked, to be in the report.
  if (!owed && (await mayStay(child))) return await change(child);
  if (!owed) await walk.host.run(['sh', '-c', 'mkdir -p "$1" && : > "$2" && sync "$2"', 'owe', DEBTS, debt]);
  const outcome = await change(child);
  if (outcome === 'changed' || owed) await untilFailure(walk, then, (one) => walk.apply(one));
  await walk.host.run(['sh', '-c', 'rm -f -- "$2"; rmdir --ignore-fail-on-non-empty -- "$1"', 'paid', DEBTS, debt]);
  return outcome === 'changed' || owed ? 'changed' : 'no-change';
}

const debtOf = (child: PropertyApplication, then: readonly PropertyApplication[]): string =>
  `${DEBTS}/${applicationDigest({ p: 'onChange', a: [child, ...then].map(({ p, a }) => ({ p, a })) }).slice(0, 32)}`;

/** All children; the failures of some are one failure at the end. */
async function tryAll(
  children: readonly PropertyApplication[],
  act: (child: PropertyApplication) => Promise<Outcome>,
): Promise<Outcome> {
  const errors: unknown[] = [];
  let changed = false;
  for (const child of children) {
    try {
      changed = (await act(child)) === 'changed' || changed;
    } catch (error) {
      errors.push(error);
    }
  }
  if (errors.length === 0) return changed ? 'changed' : 'no-change';
  const messages = errors.map((error) => (error instanceof Error ? error.message : String(error)));
  throw new FailedChangeError(messages.join('\n'), { cause: errors[0] });
}

async function untilFailure(
  walk: Walk,
  children: readonly PropertyApplication[],
  act: (child: PropertyApplication) => Promise<Outcome>,
): Promise<Outcome> {
  let changed = false;
  for (const [index, child] of children.entries()) {
    try {
      changed = (await act(child)) === 'changed' || changed;
    } catch (error) {
      for (const left of children.slice(index + 1)) walk.skip(left);
      throw error;
    }
  }
  return changed ? 'changed' : 'no-change';
}

const listOf = (children: readonly PropertyApplication[]): string => children.map(describeApplication).join('; ');
