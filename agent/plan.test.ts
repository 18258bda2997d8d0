import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatResult, parseResult } from '../manifests/result.ts';
import type { Task } from '../manifests/task.ts';
import { chooseMachine, makeResult, planPrune, planRecovery, resultId, withoutUpload } from './plan.ts';
import type { Ending } from './plan.ts';
import { resultRecord } from './record.ts';
import type { TaskRecord } from './record.ts';

const TASK: Task = {
  name: 'hello',
  version: '2.10',
  repositoryUrl: 'http://mirror.test/hello.tar.gz',
  machine: 'linux_debian_13-gcc_14',
  target: 'x86_64-linux-gnu',
};
const RECORD: TaskRecord = {
  build: 'default-1',
  session: 'pkg/hello/2.10/1',
  resultUrl: 'http://controller.test/?result',
  uploadUrls: {},
  priority: '0',
  startedMs: 0,
  task: '',
};

const machine = (name: string) =>
  ({ volume: 'default', manifest: { id: '1', name, summary: name, type: 'nspawn' } }) as const;

test('chooseMachine() takes the name, else the first dash components', () => {
  const machines = [machine('linux-gcc_14-x'), machine('linux-gcc_14'), machine('linux2-gcc_14')];
  assert.equal(chooseMachine(machines, 'linux-gcc_14')?.manifest.name, 'linux-gcc_14');
  assert.equal(chooseMachine(machines, 'linux')?.manifest.name, 'linux-gcc_14-x');
  assert.equal(chooseMachine(machines, 'linux-gcc'), undefined);
});

test('makeResult() passes on what the machine wrote', () => {
  const result = {
    name: 'hello',
    version: '2.10',
    status: 'warning',
    operations: [{ operation: 'build', status: 'warning', log: 'a warning\n' }],
  } as const;
  assert.deepEqual(makeResult(TASK, { kind: 'result', text: formatResult(result) }, ''), result);
});

const ENDINGS: readonly (readonly [string, Ending, string, RegExp])[] = [
  ['a silent machine', { kind: 'silent', seconds: 180 }, 'abnormal', /did not ask for its task within 180 s/],
  ['the time limit', { kind: 'timeout', seconds: 3600 }, 'abort', /no result after 3600 s/],
  [
    'a killed worker',
    { kind: 'ended', end: { result: 'signal', status: 9 }, asked: true },
    'abnormal',
    /killed by signal 9/,
  ],
  [
    'a machine out of memory',
    { kind: 'ended', end: { result: 'oom-kill', status: 0 }, asked: false },
    'abnormal',
    /ran out of memory[^]*not asked/,
  ],
  [
    'a failed start',
    { kind: 'failed', message: 'no space', hint: 'free some' },
    'abnormal',
    /no space\nhint: free some/,
  ],
  ['garbage', { kind: 'result', text: 'junk' }, 'abnormal', /a result that is none: .*line 1/],
  [
    'the result of another task',
    { kind: 'result', text: ': 1\nname: x\nversion: 1\nstatus: success\n' },
    'abnormal',
    /result of x 1, which was not its task/,
  ],
];
for (const [what, ending, status, message] of ENDINGS) {
  test(`makeResult() says what happened: ${what}`, () => {
    const result = makeResult(TASK, ending, 'last words\n');
    assert.equal(result.status, status);
    assert.match(result.operations[0]?.log ?? '', message);
    assert.match(result.operations[0]?.log ?? '', /last words/);
    assert.deepEqual(parseResult(formatResult(result)).status, status);
  });
}

test('makeResult() gives an interrupted task back without operations', () => {
  assert.deepEqual(makeResult(TASK, { kind: 'interrupted' }, 'x'), {
    name: 'hello',
    version: '2.10',
    status: 'interrupt',
    operations: [],
  });
});

test('withoutUpload() is no success any more', () => {
  const result = withoutUpload({ name: 'a', version: '1', status: 'success', operations: [] }, 'disk full');
  assert.equal(result.status, 'abnormal');
  assert.equal(result.operations.at(-1)?.log, 'disk full');
});

test('resultId() is a plain name, and another one for each session', () => {
  assert.match(resultId('pkg/hello/2.10/1'), /^pkg-hello-2-10-1-[0-9a-f]{16}$/);
  assert.notEqual(resultId('a/b'), resultId('a-b'));
  assert.match(resultId('///'), /^[0-9a-f]{16}$/);
  assert.match(resultId('x'.repeat(500)), /^[A-Za-z0-9-]{1,64}$/);
});

test('planRecovery() gives back what ran, and forgets what has its result', () => {
  const other = { ...RECORD, build: 'default-2', session: 'two' };
  assert.deepEqual(
    planRecovery([RECORD, other], [resultRecord(other, 'x')]).map(({ kind, record }) => `${kind} ${record.build}`),
    ['interrupt default-1', 'forget default-2'],
  );
});

test('planPrune() keeps the newest folders and those of running builds', () => {
  const found = Array.from({ length: 12 }, (_, index) => ({ build: `default-${index + 1}`, number: index + 1 }));
  assert.deepEqual(planPrune(found, new Set(['default-1'])), ['default-4', 'default-3', 'default-2']);
});
