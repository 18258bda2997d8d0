/** What a host remembers, and what of that is taken back when it left the definition. */
import assert from 'node:assert/strict';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { openLocal } from '../connections/local.ts';
import { has, note, poke, toyDefinition } from './_toy.ts';
import * as apt from './apt.ts';
import { describe, eseq, onChange, unapplied } from './combinators.ts';
import { deploy } from './deploy.ts';
import * as file from './file.ts';
import { type Leaving, memoryPath, planLeaving } from './memory.ts';
import { planHost } from './plan.ts';
import { type PropertyApplication, describeApplication, registeredIds } from './property.ts';
import * as systemd from './systemd.ts';

const QUICK = { timeout: 20_000 };
const { uid, gid } = userInfo();
const owner = `${uid}:${gid}`;

function scratch(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'buildos-memory-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

function leaving(before: readonly PropertyApplication[], now: readonly PropertyApplication[]): Leaving {
  return planLeaving({ digest: '', applied: before }, toyDefinition(...now));
}

const UNIT = '[Service]\nExecStart=/bin/true\n';
const SOURCE = { source: '/a', sha256: '0'.repeat(64) };

/** Before, now, what is taken back, how many warnings. */
const TABLE: readonly (readonly [
  name: string,
  before: readonly PropertyApplication[],
  now: readonly PropertyApplication[],
  unapplied: readonly string[],
  warnings?: number,
])[] = [
  ['what stays is not taken back', [has('a', '1')], [has('a', '1')], []],
  ['the order does not count', [has('a', '1'), has('b', '1')], [has('b', '1'), has('a', '1')], []],
  ['what left is, the last first', [has('a', '1'), has('b', '1')], [], ['b=1', 'a=1']],
  ['another value of the same thing is no loss', [has('a', '1')], [has('a', '2')], []],
  ['one name of a list', [apt.installed(['aa', 'bb'])], [apt.installed(['aa'])], ['packages: bb']],
  ['a package in another list', [apt.installed(['aa', 'bb'])], [apt.installed(['bb']), apt.installed(['aa'])], []],
  ['installed that is to be removed', [apt.installed(['aa'])], [apt.removed(['aa'])], []],
  ['a line of a file', [file.hasLines('/f', ['a', 'b'])], [file.hasLines('/f', ['b'])], ['/f has the line "a"']],
  [
    'a unit that became a file',
    [systemd.unit('a.service', UNIT)],
    [file.hasContent('/etc/systemd/system/a.service', 'x')],
    [],
  ],
  [
    'a file of the controller that moved there',
    [file.hasFile('/f', SOURCE)],
    [file.hasFile('/f', { ...SOURCE, source: '/b' })],
    [],
  ],
  ['through combinators', [describe('x', eseq(has('a', '1'), has('b', '1')))], [has('b', '1')], ['a=1']],
  ['what follows a change is no thing of its own', [onChange(has('a', '1'), poke('b'))], [has('a', '1')], []],
  ['a change and its follow-up', [onChange(has('a', '1'), poke('b'))], [], ['a=1 (on change: poke b)']],
  ['static facts', [note('x')], [], []],
  ['what was taken back stays so', [unapplied(has('a', '1'))], [], []],
  ['what has no way back', [poke('a')], [], [], 1],
  ['what is not known any more', [{ p: 'gone.property', a: ['x'] }], [], [], 1],
  ['what is called differently now', [{ p: 'file.hasContent', a: [5] }], [], [], 1],
];

for (const [name, before, now, taken, warnings = 0] of TABLE) {
  test(`leaving: ${name}`, () => {
    const found = leaving(before, now);
    assert.deepEqual(found.unapply.map(describeApplication), taken);
    assert.equal(found.warnings.length, warnings, found.warnings.join('\n'));
  });
}

test('a deploy remembers, a plan shows what left, the next deploy takes it back', QUICK, async (t) => {
  const folder = scratch(t);
  const state = join(folder, 'state');
  const path = (name: string): string => join(folder, name);
  const one = file.hasContent(path('one'), '1', { owner });
  const two = file.hasContent(path('two'), '2', { owner });
  const local = openLocal();
  await deploy(toyDefinition(one, two), local, { state });
  const memory = memoryPath(state, 'toy');
  const { ino, mode } = statSync(memory);
  assert.equal(mode & 0o777, 0o600);
  await deploy(toyDefinition(one, two), local, { state });
  assert.equal(statSync(memory).ino, ino); // nothing new to remember

  const plan = await planHost(toyDefinition(one), local, { state });
  assert.equal(plan.outcome, 'pending');
  assert.deepEqual(
    plan.left.map(({ action, state: found, description }) => [action, found, description]),
    [['unapply', 'change', `not: ${path('two')} has its content`]],
  );
  assert.ok(existsSync(path('two')));
  const report = await deploy(toyDefinition(one), local, { state });
  assert.deepEqual(
    report.left.map(({ outcome }) => outcome),
    ['changed'],
  );
  assert.deepEqual([existsSync(path('one')), existsSync(path('two'))], [true, false]);
  assert.equal((await planHost(toyDefinition(one), local, { state })).outcome, 'ok');
});

test('what could not be taken back is tried again', QUICK, async (t) => {
  const folder = scratch(t);
  const state = join(folder, 'state');
  const local = openLocal();
  const definition = toyDefinition(file.symlink(join(folder, 'l'), 'x'), file.directory(join(folder, 'd'), { owner }));
  await deploy(definition, local, { state });
  // The link became a directory, which unapply leaves alone; then a link again.
  const stuck = { ...toyDefinition(), properties: [] };
  await deploy({ ...definition, properties: [...definition.properties, failing] }, local, { state });
  assert.deepEqual(
    (await deploy(stuck, local, { state })).left.map(({ outcome }) => outcome),
    ['failed', 'changed', 'changed'],
  );
  assert.deepEqual((await planHost(stuck, local, { state })).left.length, 1);
});

const failing: PropertyApplication = file.hasContent('/proc/version', 'x', { owner });

test('a run that dies after its first line of memory has forgotten nothing', QUICK, async (t) => {
  const folder = scratch(t);
  const state = join(folder, 'state');
  const local = openLocal();
  const old = file.hasContent(join(folder, 'old'), '1', { owner });
  await deploy(toyDefinition(old), local, { state });
  const control = new AbortController();
  const now = file.hasContent(join(folder, 'new'), '1', { owner });
  await deploy(toyDefinition(now), local, { state, signal: control.signal, onProgress: () => control.abort() });
  const { applied }: { applied: PropertyApplication[] } = JSON.parse(readFileSync(memoryPath(state, 'toy'), 'utf8'));
  assert.deepEqual(applied, [old, now]);
});

test('a memory that makes no sense is told, with its path', QUICK, async (t) => {
  const state = scratch(t);
  const local = openLocal();
  await deploy(toyDefinition(note('x')), local, { state });
  assert.deepEqual(readdirSync(join(state, 'properties')), ['toy.json']);
  writeFileSync(memoryPath(state, 'toy'), '{');
  await assert.rejects(
    deploy(toyDefinition(note('x')), local, { state }),
    /Cannot read what was applied before from .*toy\.json/,
  );
});

test('what left is taken back although no module of the definition has it any more', QUICK, async (t) => {
  const state = scratch(t);
  const job = { p: 'cron.job', a: ['x', { schedule: '@daily', command: 'true' }] };
  const applied = [{ p: 'describe', a: ['a job', job] }];
  mkdirSync(join(state, 'properties'), { recursive: true });
  writeFileSync(memoryPath(state, 'toy'), JSON.stringify({ format: 1, host: 'toy', digest: '', applied }));
  assert.ok(!registeredIds().includes('cron.job'));
  const { left, warnings } = await planHost(toyDefinition(), openLocal(), { state });
  assert.deepEqual(
    left.map(({ application }) => application.p),
    ['file.hasContent'],
  );
  assert.deepEqual(warnings, []);
});
