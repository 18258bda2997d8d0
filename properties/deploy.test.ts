import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Connection } from '../connections/connection.ts';
import type { HostDefinition } from './host-definition.ts';
import { has, inProcess, note, poke, toyDefinition, toyHost } from './_toy.ts';
import { eseq, onChange, seq, unapplied, withRequirements, describe } from './combinators.ts';
import {
  DeployError,
  type DeployOptions,
  type DeployReport,
  checkReport,
  deploy as deployWithMemory,
  failures,
} from './deploy.ts';
import { planHost } from './plan.ts';
import { InapplicablePropertyError, NotReversibleError, type PropertyApplication, defineProperty } from './property.ts';
import type { PlannedProperty } from './walk.ts';
import type { PropertyResult } from './attempt.ts';
import type { DeployProgress } from './run.ts';

/** A toy host has no files, so no memory. */
async function deploy(
  definition: HostDefinition,
  connection: Connection,
  options: DeployOptions = {},
): Promise<DeployReport> {
  return await deployWithMemory(definition, connection, { ...options, memory: 'none' });
}

async function planDeploy(definition: HostDefinition, connection: Connection): Promise<readonly PlannedProperty[]> {
  return (await planHost(definition, connection, { memory: 'none' })).properties;
}

/** A result as a line: outcome and description, children in brackets. */
function show({ outcome, description, children }: PropertyResult): string {
  return `${outcome} ${description}${children.length === 0 ? '' : ` [${children.map(show).join(', ')}]`}`;
}

async function deployed(host: ReturnType<typeof toyHost>, ...properties: PropertyApplication[]): Promise<string[]> {
  return (await deploy(toyDefinition(...properties), host.connection)).results.map(show);
}

test('a property is applied once, and then holds', async () => {
  const host = toyHost();
  assert.deepEqual(await deployed(host, has('a', '1')), ['changed a=1']);
  assert.deepEqual(await deployed(host, has('a', '1')), ['ok a=1']);
  assert.deepEqual(host.ran, ['get a', 'set a 1', 'get a']);
});

test('only static facts: no change, and nothing is run', async () => {
  const host = toyHost();
  assert.deepEqual(await deployed(host, note('quiet')), ['ok note quiet']);
  assert.deepEqual(host.ran, []);
});

test('the top level goes on after a failure, and the report names it', async () => {
  const host = toyHost();
  const report = await deploy(toyDefinition(has('broken', '1'), has('b', '2')), host.connection);
  assert.deepEqual(report.results.map(show), ['failed broken=1', 'changed b=2']);
  assert.equal(report.outcome, 'failed');
  assert.throws(
    () => checkReport(report),
    (error) =>
      error instanceof DeployError &&
      /1 properties failed\n- broken=1: .*set broken 1[\s\S]*it broke/.test(error.message),
  );
});

test('eseq stops at a failure, seq does not; what was not tried is skipped', async () => {
  assert.deepEqual(await deployed(toyHost(), eseq(has('a', '1'), has('broken', '1'), has('c', '3'))), [
    'failed a=1; broken=1; c=3 [changed a=1, failed broken=1, skipped c=3]',
  ]);
  assert.deepEqual(await deployed(toyHost(), seq(has('broken', '1'), has('c', '3'))), [
    'failed broken=1; c=3 [failed broken=1, changed c=3]',
  ]);
});

test('failures() names the innermost', async () => {
  const report = await deploy(
    toyDefinition(describe('all', eseq(has('broken', '1'))), has('a', '1')),
    toyHost().connection,
  );
  assert.deepEqual(
    failures(report).map(({ description }) => description),
    ['broken=1'],
  );
});

test('a sequence is unapplied in reverse', async () => {
  const host = toyHost({ a: '1', b: '2' });
  await deployed(host, unapplied(seq(has('a', '1'), has('b', '2'))));
  assert.deepEqual(host.ran, ['get b', 'delete b', 'get a', 'delete a']);
  assert.deepEqual(await deployed(host, unapplied(seq(has('a', '1'), has('b', '2')))), [
    'ok not: a=1; b=2 [ok not: a=1; b=2 [ok not: b=2, ok not: a=1]]',
  ]);
});

test('unapplied twice is applied', async () => {
  const host = toyHost();
  await deployed(host, unapplied(unapplied(has('a', '1'))));
  assert.equal(host.values.get('a'), '1');
});

test('what has no way back is found when planning', async () => {
  const host = toyHost();
  await assert.rejects(
    planDeploy(toyDefinition(unapplied(seq(has('a', '1'), poke('b')))), host.connection),
    NotReversibleError,
  );
  assert.deepEqual(await deployed(host, unapplied(poke('b'))), ['failed not: poke b [failed not: poke b]']);
});

test('a requirement that fails keeps the property from being tried', async () => {
  const host = toyHost();
  assert.deepEqual(await deployed(host, withRequirements(has('a', '1'), has('b', '2'), has('broken', '3'))), [
    'failed a=1 [changed b=2, failed broken=3, skipped a=1]',
  ]);
});

test('a plan changes nothing and tells what is so, what would change, and what only applying tells', async () => {
  const host = toyHost({ a: '1', d: '4' });
  const definition = toyDefinition(
    has('a', '1'),
    seq(has('b', '2'), poke('c')),
    unapplied(has('d', '4')),
    unapplied(has('e', '5')),
    note('n'),
  );
  const planned = await planDeploy(definition, host.connection);
  assert.deepEqual(
    planned.map(({ state, description, lines }) => [state, description, ...lines].join(' | ')),
    ['ok | a=1', 'change | b=2 | set b to 2', 'unknown | poke c', 'change | not: d=4', 'ok | not: e=5', 'ok | note n'],
  );
  assert.deepEqual(
    [...host.values],
    [
      ['a', '1'],
      ['d', '4'],
    ],
  );
});

test('native over a posix chain is refused before anything is run', async () => {
  const host = toyHost();
  await assert.rejects(
    deploy(toyDefinition(has('a', '1'), seq(inProcess())), host.connection),
    InapplicablePropertyError,
  );
  assert.deepEqual(host.ran, []);
  assert.equal((await deploy(toyDefinition(inProcess()), toyHost({}, 'native').connection)).outcome, 'ok');
});

test('an abort ends the running property; the others are skipped', async () => {
  const control = new AbortController();
  setTimeout(() => control.abort(), 20);
  const definition = toyDefinition(has('a', '1'), eseq(poke('slow'), poke('b')), has('c', '3'));
  const report = await deploy(definition, toyHost().connection, { signal: control.signal });
  assert.deepEqual(report.results.map(show), [
    'changed a=1',
    'aborted poke slow; poke b [aborted poke slow, skipped poke b]',
    'skipped c=3',
  ]);
  assert.equal(report.outcome, 'aborted');
});

test('progress tells the start and the end of each property, and lines between', async () => {
  const seen: string[] = [];
  const talk = defineProperty<[]>({
    id: 'test.talk',
    kind: 'posix',
    describe: () => 'talk',
    apply: (host) => host.progress('hello'),
  });
  const onProgress = (progress: DeployProgress): void => {
    if (progress.kind === 'line') seen.push(progress.line);
    else if (progress.kind === 'started') seen.push(`${progress.depth}/${progress.index} ${progress.description}`);
    else seen.push(`${progress.depth} ${progress.result.outcome}`);
  };
  await deploy(toyDefinition(note('n'), describe('a talk', talk())), toyHost().connection, { onProgress });
  assert.deepEqual(seen, ['0/0 note n', '0 ok', '0/1 a talk', '1/0 talk', 'hello', '1 changed', '0 changed']);
});

test('a source with another digest is refused', async () => {
  const needs = defineProperty<[]>({
    id: 'test.needs',
    kind: 'posix',
    describe: () => 'needs',
    apply: async (host) => void (await host.readSource({ source: import.meta.filename, sha256: '0'.repeat(64) })),
  });
  const report = await deploy(toyDefinition(needs()), toyHost().connection);
  assert.match(report.results[0]?.error?.message ?? '', /its SHA-256 is [0-9a-f]{64}, and the definition says 0000/);
});

test('onChange describes what follows', () => {
  assert.equal(onChange(has('a', '1'), poke('b')).p, 'onChange');
});
