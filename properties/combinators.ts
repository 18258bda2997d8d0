/** Properties made of properties: sequences, the opposite, requirements, what follows a change. */
import { z } from 'zod';
import { type ArgsOf, arg, restArg } from './args.ts';
import {
  APPLICATION,
  AbortedChangeError,
  FailedChangeError,
  type Outcome,
  type PropertyApplication,
  applicationDigest,
  defineCombinator,
  describeApplication,
} from './property.ts';
import type { Debts, PlanWalk, PlannedProperty, Walk } from './walk.ts';

const CHILD = arg('child', APPLICATION, 'the property');
const CHILDREN = restArg('children', APPLICATION, 'the properties, in order');

/** For examples. */
const MOTD: PropertyApplication = { p: 'file.hasContent', a: ['/etc/motd', 'Welcome\n'] };
const CRON: PropertyApplication = { p: 'file.absent', a: ['/etc/cron.d/e2scrub_all'] };
const SSHD: PropertyApplication = {
  p: 'file.hasContent',
  a: ['/etc/ssh/sshd_config.d/x11.conf', 'X11Forwarding no\n'],
};

/** All of them, in order; a failure does not keep the others from being tried. Unapplied in reverse. */
export const seq: (...children: PropertyApplication[]) => PropertyApplication = defineCombinator<PropertyApplication[]>(
  {
    id: 'seq',
    about: 'All of them, in order; a failure does not keep the others from being tried. Unapplied in reverse.',
    example: [MOTD, CRON],
    args: [CHILDREN],
    transparent: true,
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
  about: 'All of them, in order, up to the first failure. Unapplied in reverse.',
  example: [MOTD, CRON],
  args: [CHILDREN],
  transparent: true,
  describe: (...children) => listOf(children),
  children: (...children) => children,
  apply: (walk, ...children) => untilFailure(walk, children, (child) => walk.apply(child)),
  unapply: (walk, ...children) => untilFailure(walk, children.toReversed(), (child) => walk.unapply(child)),
});

/** A list of properties under a name of its own. */
export interface PropertyList<A extends readonly unknown[]> {
  readonly id: string;
  readonly about?: string;
  readonly example?: A;
  readonly args?: ArgsOf<A>;
  refuse?(...args: A): void;
  /** One line for logs and plans; default what the properties say. */
  describe?(...args: A): string;
  /** What has to hold, in order. Pure. */
  properties(...args: A): readonly PropertyApplication[];
}

/** Defines a property that is a list of others: applied in order up to the first failure, unapplied in reverse. */
export function definePropertyList<A extends readonly unknown[] | []>(
  list: PropertyList<A>,
): (...args: A) => PropertyApplication {
  return defineCombinator<A>({
    ...list,
    transparent: true,
    describe: (...args) => list.describe?.(...args) ?? listOf(list.properties(...args)),
    children: (...args) => list.properties(...args),
    apply: (walk, ...args) => untilFailure(walk, list.properties(...args), (child) => walk.apply(child)),
    unapply: (walk, ...args) =>
      untilFailure(walk, list.properties(...args).toReversed(), (child) => walk.unapply(child)),
  });
}

/** What {@link eseqUntil} takes for an end and not for a failure. */
export type Until = 'aborted' | 'failed';

/** As eseq, but that one of them gives up (or also: fails) is no failure: the rest is skipped. */
export const eseqUntil: (until: Until, ...children: PropertyApplication[]) => PropertyApplication = defineCombinator<
  [until: Until, ...children: PropertyApplication[]]
>({
  id: 'eseqUntil',
  about: 'As eseq, but when one of them gives up without a change (or fails), the rest is skipped and all is well.',
  example: ['aborted', MOTD, CRON],
  args: [arg('until', z.enum(['aborted', 'failed']), 'what ends it without being a failure'), CHILDREN],
  describe: (_until, ...children) => listOf(children),
  children: (_until, ...children) => children,
  apply: async (walk, until, ...children) => {
    let changed = false;
    for (const [index, child] of children.entries()) {
      try {
        changed = (await walk.apply(child)) === 'changed' || changed;
      } catch (error) {
        for (const left of children.slice(index + 1)) walk.skip(left);
        if (walk.aborted || (until === 'aborted' && !(error instanceof AbortedChangeError))) throw error;
        break;
      }
    }
    return changed ? 'changed' : 'no-change';
  },
  unapply: (walk, _until, ...children) => untilFailure(walk, children.toReversed(), (child) => walk.unapply(child)),
});

/** All of them at the same time. A failure does not keep the others from being tried. Unapplied one by one, in reverse. */
export const concurrently: (...children: PropertyApplication[]) => PropertyApplication = defineCombinator<
  PropertyApplication[]
>({
  id: 'concurrently',
  about: 'All of them at the same time; they must not need the same files or locks. Unapplied one by one, in reverse.',
  example: [MOTD, CRON],
  args: [CHILDREN],
  transparent: true,
  describe: (...children) => listOf(children),
  children: (...children) => children,
  apply: async (walk, ...children) => {
    const settled = await Promise.allSettled(children.map((child) => walk.apply(child)));
    return joined(
      settled.map((one) => (one.status === 'fulfilled' ? { outcome: one.value } : { error: one.reason as unknown })),
    );
  },
  unapply: (walk, ...children) => tryAll(children.toReversed(), (child) => walk.unapply(child)),
});

/**
 * The opposite of a property: it is taken back, and its static facts do not hold. When this leaves the definition, the
 * host stays as it is.
 */
export const unapplied: (child: PropertyApplication) => PropertyApplication = defineCombinator<[PropertyApplication]>({
  id: 'unapplied',
  about: 'The opposite of a property: it is taken back, and its static facts do not hold.',
  example: [CRON],
  args: [CHILD],
  describe: (child) => `not: ${describeApplication(child)}`,
  children: (child) => [child],
  attrsFrom: () => [],
  plan: (walk, child) => walk.planUnapplied(child),
  planUnapplied: (walk, child) => walk.plan(child),
  apply: (walk, child) => walk.unapply(child),
  unapply: (walk, child) => walk.apply(child),
  unapplies: () => [],
});

/** A property taken back and applied again each time, such as a service stopped and started. */
export const reapplied: (child: PropertyApplication) => PropertyApplication = defineCombinator<[PropertyApplication]>({
  id: 'reapplied',
  about: 'A property taken back and applied again, each time.',
  example: [{ p: 'systemd.started', a: [['ssh.service']] }],
  args: [CHILD],
  describe: (child) => `again: ${describeApplication(child)}`,
  children: (child) => [child],
  plan: async (walk, child) => {
    await walk.planUnapplied(child); // says so when there is no way back
    const description = `again: ${describeApplication(child)}`;
    return [{ application: child, description, action: 'apply', state: 'change', lines: [] }];
  },
  apply: async (walk, child) => {
    const outcomes = [await walk.unapply(child), await walk.apply(child)];
    return outcomes.includes('changed') ? 'changed' : 'no-change';
  },
  unapply: (walk, child) => walk.unapply(child),
});

/** A property under another name for logs and plans. */
export const describe: (text: string, child: PropertyApplication) => PropertyApplication = defineCombinator<
  [text: string, child: PropertyApplication]
>({
  id: 'describe',
  about: 'A property under another name for logs and plans.',
  example: ['a welcome', MOTD],
  args: [arg('text', z.string(), 'the name'), CHILD],
  transparent: true,
  describe: (text) => text,
  children: (_text, child) => [child],
  apply: (walk, _text, child) => walk.apply(child),
  unapply: (walk, _text, child) => walk.unapply(child),
});

/** A property and what has to hold before it; if a requirement fails, it is not tried. Unapplied in reverse. */
export const withRequirements: (
  child: PropertyApplication,
  ...requirements: PropertyApplication[]
) => PropertyApplication = defineCombinator<[child: PropertyApplication, ...requirements: PropertyApplication[]]>({
  id: 'withRequirements',
  about: 'A property and what has to hold before it; if a requirement fails, it is not tried. Unapplied in reverse.',
  example: [
    { p: 'user.present', a: [{ name: 'web', groups: ['www'] }] },
    { p: 'group.present', a: [{ name: 'www' }] },
  ],
  args: [CHILD, restArg('requirements', APPLICATION, 'what has to hold before')],
  transparent: true,
  describe: (child) => describeApplication(child),
  children: (child, ...requirements) => [...requirements, child],
  apply: (walk, child, ...requirements) => untilFailure(walk, [...requirements, child], (one) => walk.apply(one)),
  unapply: (walk, child, ...requirements) =>
    untilFailure(walk, [child, ...requirements.toReversed()], (one) => walk.unapply(one)),
});

/** A property with another way back: taking it back applies `undo`. */
export const withUnapply: (child: PropertyApplication, undo: PropertyApplication) => PropertyApplication =
  defineCombinator<[child: PropertyApplication, undo: PropertyApplication]>({
    id: 'withUnapply',
    about: 'A property with another way back: taking it back applies the second one.',
    example: [{ p: 'file.absent', a: ['/etc/motd'] }, MOTD],
    args: [CHILD, arg('undo', APPLICATION, 'applied to take it back')],
    describe: (child) => describeApplication(child),
    children: (child, undo) => [child, undo],
    attrsFrom: (child) => [child],
    plan: (walk, child) => walk.plan(child),
    planUnapplied: (walk, _child, undo) => walk.plan(undo),
    apply: (walk, child) => walk.apply(child),
    unapply: (walk, _child, undo) => walk.apply(undo),
    unapplies: () => [],
  });

const THEN = restArg('then', APPLICATION, 'applied after a change');

/**
 * When the first property changed something, the others are applied too, then and there; also when it was taken back.
 *
 * Durable: that they are owed is written down before the change, and a run that finds a debt pays it. So a power cut
 * between the change and what follows loses nothing.
 */
export const onChange: (child: PropertyApplication, ...then: PropertyApplication[]) => PropertyApplication =
  defineCombinator<[child: PropertyApplication, ...then: PropertyApplication[]]>({
    id: 'onChange',
    about:
      'When the first property changed something, or was taken back, the others are applied too. They are owed until they ' +
      'are done: a run that dies in between leaves them to the next.',
    example: [SSHD, { p: 'systemd.reloaded', a: [['ssh.service']] }],
    args: [CHILD, THEN],
    owes: true,
    describe: describeFollowed,
    children: (child, ...then) => [child, ...then],
    plan: planFollowed,
    planUnapplied: async (walk, child, ...then) => planThen(walk, await walk.planUnapplied(child), then, false),
    apply: async (walk, child, ...then) =>
      await withDebt(walk, { debt: debtOf(child, then), follow: then }, 'apply', child),
    unapply: async (walk, child, ...then) =>
      await withDebt(walk, { debt: debtOf(child, then), follow: then }, 'unapply', child),
    unapplies: (child) => [child],
    keeps: (child) => [child],
  });

/** As onChange, but taking the first property back does not let the others follow. */
export const onApplyChange: (child: PropertyApplication, ...then: PropertyApplication[]) => PropertyApplication =
  defineCombinator<[child: PropertyApplication, ...then: PropertyApplication[]]>({
    id: 'onApplyChange',
    about: 'As onChange, but taking the first property back does not let the others follow.',
    example: [SSHD, { p: 'systemd.reloaded', a: [['ssh.service']] }],
    args: [CHILD, THEN],
    owes: true,
    describe: describeFollowed,
    children: (child, ...then) => [child, ...then],
    plan: planFollowed,
    planUnapplied: (walk, child) => walk.planUnapplied(child),
    apply: async (walk, child, ...then) =>
      await withDebt(walk, { debt: debtOf(child, then), follow: then }, 'apply', child),
    unapply: (walk, child) => walk.unapply(child),
    unapplies: (child) => [child],
    keeps: (child) => [child],
  });

/**
 * A property applied when all others were, once however often it was asked for by this key: such as one reboot for many
 * changes. It is owed until it is done.
 */
export const atEnd: (key: string, child: PropertyApplication) => PropertyApplication = defineCombinator<
  [key: string, child: PropertyApplication]
>({
  id: 'atEnd',
  about:
    'A property applied when all others were, once however often it was asked for by this key. Owed until it is done.',
  example: ['reboot', { p: 'reboot.soon', a: [60] }],
  args: [arg('key', z.string().min(1), 'what makes two of them the same'), CHILD],
  owes: true,
  describe: (_key, child) => `at the end: ${describeApplication(child)}`,
  children: (_key, child) => [child],
  plan: async (walk, key, child) => {
    walk.atEnd(key, child);
    return [];
  },
  apply: async (walk, key, child) => {
    await walk.atEnd(key, child);
    return 'no-change';
  },
  unapply: (walk, _key, child) => walk.unapply(child),
});

function describeFollowed(child: PropertyApplication, ...then: PropertyApplication[]): string {
  return `${describeApplication(child)} (on change: ${then.map(describeApplication).join(', ')})`;
}

async function planFollowed(
  walk: PlanWalk,
  child: PropertyApplication,
  ...then: PropertyApplication[]
): Promise<readonly PlannedProperty[]> {
  return await planThen(walk, await walk.plan(child), then, walk.debts.isOwed(debtOf(child, then)));
}

async function planThen(
  walk: PlanWalk,
  first: readonly PlannedProperty[],
  then: readonly PropertyApplication[],
  owed: boolean,
): Promise<readonly PlannedProperty[]> {
  const planned = [...first];
  const follows = owed || first.some(({ state }) => state === 'change');
  for (const one of follows ? then : []) planned.push(...(await walk.plan(one)));
  return planned;
}

async function withDebt(
  walk: Walk,
  { debt, follow }: { readonly debt: string; readonly follow: readonly PropertyApplication[] },
  action: 'apply' | 'unapply',
  child: PropertyApplication,
): Promise<Outcome> {
  const debts: Debts = walk.debts;
  const owed = debts.isOwed(debt);
  // What holds already will not change, so nothing is owed; the child is still walked, to be in the report.
  if (!owed && action === 'apply' && (await walk.holds(child))) return await walk.apply(child);
  await debts.owe(debt);
  let outcome: Outcome;
  try {
    outcome = await walk[action](child);
  } catch (error) {
    // Surely nothing changed, so nothing is owed.
    if (!owed && error instanceof AbortedChangeError && !walk.aborted) await debts.pay(debt);
    throw error;
  }
  if (outcome === 'changed' || owed) await untilFailure(walk, follow, (one) => walk.apply(one));
  await debts.pay(debt);
  return outcome === 'changed' || owed ? 'changed' : 'no-change';
}

function debtOf(child: PropertyApplication, then: readonly PropertyApplication[]): string {
  const a = [child, ...then].map(({ p, a: given }) => ({ p, a: given }));
  return applicationDigest({ p: 'onChange', a }).slice(0, 32);
}

/** All children; the failures of some are one failure at the end. */
async function tryAll(
  children: readonly PropertyApplication[],
  act: (child: PropertyApplication) => Promise<Outcome>,
): Promise<Outcome> {
  const tried: Tried[] = [];
  for (const child of children) {
    try {
      tried.push({ outcome: await act(child) });
    } catch (error) {
      tried.push({ error });
    }
  }
  return joined(tried);
}

type Tried = { readonly outcome: Outcome } | { readonly error: unknown };

/** One outcome of several; what failed is one failure. */
function joined(tried: readonly Tried[]): Outcome {
  const errors = tried.flatMap((one) => ('error' in one ? [one.error] : []));
  if (errors.length === 0)
    return tried.some((one) => 'outcome' in one && one.outcome === 'changed') ? 'changed' : 'no-change';
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
