/** The rules of properties, a row each: what a definition has, what the host says, what comes of it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { has, note, poke, toyDefinition, toyHost } from './_toy.ts';
import {
  concurrently,
  definePropertyList,
  eseq,
  eseqUntil,
  reapplied,
  seq,
  unapplied,
  withUnapply,
} from './combinators.ts';
import { type DeployReport, checkReport, deploy } from './deploy.ts';
import { planHost } from './plan.ts';
import {
  AbortedChangeError,
  FailedChangeError,
  NotReversibleError,
  type Outcome,
  type PropertyApplication,
  type PropertyDefinition,
  defineProperty,
} from './property.ts';
import type { PropertyResult } from './attempt.ts';

const ALONE = { memory: 'none' } as const;

let made = 0;
const calls: string[] = [];

/** A property with these parts; `calls` has what was called. */
function property(parts: Partial<PropertyDefinition<[]>>): PropertyApplication {
  const id = `rules.p${made++}`;
  return defineProperty<[]>({ id, kind: 'posix', describe: () => 'it', ...parts })();
}

const called =
  <T>(name: string, result: T) =>
  (): T => (calls.push(name), result);
const throwing = (name: string, error: Error) => (): never => {
  calls.push(name);
  throw error;
};

async function run(application: PropertyApplication): Promise<DeployReport> {
  calls.length = 0;
  return await deploy(toyDefinition(application), toyHost().connection, ALONE);
}

interface Rule {
  readonly name: string;
  readonly parts: Partial<PropertyDefinition<[]>>;
  readonly action?: 'unapply';
  readonly outcome: DeployReport['outcome'];
  readonly calls: readonly string[];
}

const apply = (outcome?: Outcome): (() => Outcome | void) => called('apply', outcome);
const check = (holds: boolean): (() => boolean) => called('check', holds);
const unapply = called('unapply', undefined);

const RULES: readonly Rule[] = [
  { name: 'check true: not applied', parts: { check: check(true), apply: apply() }, outcome: 'ok', calls: ['check'] },
  {
    name: 'check false: applied',
    parts: { check: check(false), apply: apply() },
    outcome: 'changed',
    calls: ['check', 'apply'],
  },
  { name: 'no check: applied', parts: { apply: apply() }, outcome: 'changed', calls: ['apply'] },
  { name: 'nothing returned: changed', parts: { apply: apply(undefined) }, outcome: 'changed', calls: ['apply'] },
  { name: 'changed returned', parts: { apply: apply('changed') }, outcome: 'changed', calls: ['apply'] },
  { name: 'no-change returned', parts: { apply: apply('no-change') }, outcome: 'ok', calls: ['apply'] },
  { name: 'only static facts: no change', parts: { hostattrs: () => ({}) }, outcome: 'ok', calls: [] },
  {
    name: 'only static facts, unapplied: no change',
    parts: { hostattrs: () => ({}) },
    action: 'unapply',
    outcome: 'ok',
    calls: [],
  },
  {
    name: 'a failed change',
    parts: { apply: throwing('apply', new FailedChangeError('no')) },
    outcome: 'failed',
    calls: ['apply'],
  },
  {
    name: 'a change given up',
    parts: { apply: throwing('apply', new AbortedChangeError('no')) },
    outcome: 'aborted',
    calls: ['apply'],
  },
  {
    name: 'a check that fails: not applied',
    parts: { check: throwing('check', new FailedChangeError('no')), apply: apply() },
    outcome: 'failed',
    calls: ['check'],
  },
  { name: 'unapply', parts: { apply: apply(), unapply }, action: 'unapply', outcome: 'changed', calls: ['unapply'] },
  {
    name: 'taken back already: unapply is not called',
    parts: { apply: apply(), unapply, checkUnapplied: called('checkUnapplied', true) },
    action: 'unapply',
    outcome: 'ok',
    calls: ['checkUnapplied'],
  },
  { name: 'no unapply', parts: { apply: apply() }, action: 'unapply', outcome: 'failed', calls: [] },
];

for (const { name, parts, action, outcome, calls: expected } of RULES) {
  test(`rule: ${name}`, async () => {
    const one = property(parts);
    const report = await run(action === 'unapply' ? unapplied(one) : one);
    assert.equal(report.outcome, outcome);
    assert.deepEqual(calls, expected);
  });
}

test('no unapply is a NotReversibleError that names the property, and a plan knows', async () => {
  for (const wrap of [unapplied, (one: PropertyApplication) => unapplied(eseq(has('a', '1'), one)), reapplied]) {
    const definition = toyDefinition(wrap(poke('x')));
    await assert.rejects(
      planHost(definition, toyHost().connection, ALONE),
      (error) => error instanceof NotReversibleError && error.id === 'toy.poke',
    );
  }
});

test('a sequence that cannot be taken back whole is not taken back at all', async () => {
  const host = toyHost({ a: '1' });
  const report = await deploy(toyDefinition(unapplied(eseq(poke('b'), has('a', '1')))), host.connection, ALONE);
  assert.equal(report.outcome, 'failed');
  assert.deepEqual(host.ran, []);
});

/** A result as a line: outcome and description, children in brackets. */
function show({ outcome, description, children }: PropertyResult): string {
  return `${outcome} ${description}${children.length === 0 ? '' : ` [${children.map(show).join(', ')}]`}`;
}

const gaveUp = property({
  describe: () => 'gave up',
  apply: throwing('gave up', new AbortedChangeError('surely nothing')),
});
const again = property({ describe: () => 'again', apply: apply(), unapply });
const list = definePropertyList<[value: string]>({
  id: 'rules.list',
  properties: (value) => [has('a', value), has('b', value)],
});

const COMBINED: readonly (readonly [name: string, make: () => PropertyApplication, shown: string, outcome: string])[] =
  [
    [
      'seq goes on',
      () => seq(has('broken', '1'), has('a', '1')),
      'failed broken=1; a=1 [failed broken=1, changed a=1]',
      'failed',
    ],
    [
      'eseq stops',
      () => eseq(has('broken', '1'), has('a', '1')),
      'failed broken=1; a=1 [failed broken=1, skipped a=1]',
      'failed',
    ],
    ['a property list stops', () => list('1'), 'changed a=1; b=1 [changed a=1, changed b=1]', 'changed'],
    [
      'eseqUntil aborted: the rest is skipped and all is well',
      () => eseqUntil('aborted', has('a', '1'), gaveUp, has('b', '1')),
      'changed a=1; gave up; b=1 [changed a=1, aborted gave up, skipped b=1]',
      'changed',
    ],
    [
      'eseqUntil aborted: a failure is one',
      () => eseqUntil('aborted', has('broken', '1'), has('b', '1')),
      'failed broken=1; b=1 [failed broken=1, skipped b=1]',
      'failed',
    ],
    [
      'eseqUntil failed: a failure ends it',
      () => eseqUntil('failed', has('broken', '1'), has('b', '1')),
      'ok broken=1; b=1 [failed broken=1, skipped b=1]',
      'ok',
    ],
    ['given up alone: aborted', () => eseq(gaveUp), 'aborted gave up [aborted gave up]', 'aborted'],
    [
      'given up after a change: failed, since something changed',
      () => eseq(has('a', '1'), gaveUp),
      'failed a=1; gave up [changed a=1, aborted gave up]',
      'failed',
    ],
    [
      'concurrently tries all, and keeps their order',
      () => concurrently(has('a', '1'), has('broken', '1'), has('b', '1')),
      'failed a=1; broken=1; b=1 [changed a=1, failed broken=1, changed b=1]',
      'failed',
    ],
    [
      'reapplied takes back first',
      () => reapplied(again),
      'changed again: again [changed not: again, changed again]',
      'changed',
    ],
    [
      'withUnapply applies the other one to take it back',
      () => unapplied(withUnapply(poke('a'), has('b', '1'))),
      'changed not: poke a [changed not: poke a [changed b=1]]',
      'changed',
    ],
    ['static facts alone change nothing', () => seq(note('x')), 'ok note x [ok note x]', 'ok'],
  ];

for (const [name, make, shown, outcome] of COMBINED) {
  test(`combined: ${name}`, async () => {
    const report = await deploy(toyDefinition(make()), toyHost().connection, ALONE);
    assert.deepEqual(report.results.map(show), [shown]);
    assert.equal(report.outcome, outcome);
  });
}

test('"ok" is said only when nothing failed', async () => {
  const report = await deploy(toyDefinition(note('x'), has('broken', '1')), toyHost().connection, ALONE);
  assert.equal(report.outcome, 'failed');
  assert.throws(() => checkReport(report), /1 properties failed/);
});
