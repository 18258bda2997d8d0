import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { formatTask, parseTask } from './task.ts';
import type { Task } from './task.ts';

const SMALL = ': 1\nname: a\nversion: 1\nrepository-url: http://x/y\nmachine: m\ntarget: t\n';

test('parseTask() reads a task, with the names it does not know', () => {
  const text = readFileSync(join(import.meta.dirname, 'testdata/task.manifest'), 'utf8');
  assert.deepEqual(parseTask(text), {
    name: 'hello',
    version: '2.10',
    repositoryUrl:
      'http://deb.debian.org/debian/pool/main/h/hello/hello_2.10.orig.tar.gz#sha256=31e066137a962676e89f69d1b65382de95a7ef7d914b8cb956f41ea72e0f516b',
    repositoryType: 'archive',
    machine: 'linux_debian_13-gcc_14',
    auxiliaryMachines: [{ name: 'db', machine: 'linux_debian_13-postgresql_17' }],
    target: 'x86_64-linux-gnu',
    targetConfig: '--disable-nls',
    warningRegex: ['^warning:', '[Dd]eprecated'],
    interactive: 'none',
    others: [['later-name', 'kept']],
  });
});

test('parseTask() leaves out what is absent', () => {
  assert.deepEqual(Object.keys(parseTask(SMALL)), ['name', 'version', 'repositoryUrl', 'machine', 'target']);
});

test('parseTask() refuses what is missing, given twice, empty, of several lines or not of its kind', () => {
  assert.throws(() => parseTask(SMALL.replace('version: 1\n', '')), { line: 1, reason: /^"version" is missing/ });
  assert.throws(() => parseTask(`${SMALL}name: b\n`), { line: 7, reason: /given before, on line 2/ });
  assert.throws(() => parseTask(SMALL.replace('version: 1', 'version:')), { line: 3, reason: /a value is expected/ });
  assert.throws(() => parseTask(SMALL.replace(': m', ':\n\\\na\nb\n\\')), { line: 5, reason: /one line is expected/ });
  assert.throws(() => parseTask(`${SMALL}host: yes\n`), {
    line: 7,
    reason: /one of true, false is expected, found "yes"/,
  });
});

const word = fc.string({ minLength: 1, unit: fc.constantFrom('a', '-', '1', '\\', ' ', ':', '#', 'é') });
const text = fc.string({ unit: fc.constantFrom('a', '\n', '\\', ' ') });
const words = fc.array(word, { minLength: 1 });
const task: fc.Arbitrary<Task> = fc.record(
  {
    name: word,
    version: word,
    repositoryUrl: word,
    machine: word,
    target: word,
    repositoryType: word,
    trust: words,
    requires: words,
    tests: words,
    dependencyChecksum: word,
    auxiliaryMachines: fc.uniqueArray(
      fc.record({ name: fc.constantFrom('', 'db', 'mail-1'), machine: word }, { noNullPrototype: true }),
      {
        minLength: 1,
        selector: ({ name }) => name,
      },
    ),
    environment: text,
    targetConfig: text,
    host: fc.boolean(),
    warningRegex: words,
    interactive: word,
    others: fc.array(fc.tuple(fc.constantFrom('x', 'later-name'), text), { minLength: 1 }),
  },
  { requiredKeys: ['name', 'version', 'repositoryUrl', 'machine', 'target'], noNullPrototype: true },
);

test('what formatTask() writes, parseTask() reads back', () => {
  fc.assert(
    fc.property(task, (original) => {
      assert.deepEqual(parseTask(formatTask(original)), original);
    }),
  );
});
