import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { MachineHeader } from '../manifests/machine.ts';
import type { Task } from '../manifests/task.ts';
import { chooseTask, judgeResult, matchesMachine, planExpiry } from './plan.ts';
import type { QueuedTask } from './plan.ts';

const task = (machine: string, more: Partial<Task> = {}): Task => ({
  name: 'hello',
  version: '2.10',
  repositoryUrl: 'http://x/y',
  machine,
  target: 'x86_64-linux-gnu',
  ...more,
});

const queue = (...tasks: readonly Task[]): QueuedTask[] =>
  tasks.map((each, index) => ({ id: String(index + 1), task: each }));

const machine = (name: string, more: Partial<MachineHeader> = {}): MachineHeader => ({
  id: '1',
  name,
  summary: name,
  ...more,
});

test('a machine is meant by its name or by its first dash components', () => {
  assert.ok(matchesMachine('linux_debian_13', 'linux_debian_13'));
  assert.ok(matchesMachine('linux_debian_13', 'linux_debian_13-gcc_14'));
  assert.ok(matchesMachine('linux_debian_13-gcc_14', 'linux_debian_13-gcc_14-x'));
  assert.ok(!matchesMachine('linux_debian_1', 'linux_debian_13'));
  assert.ok(!matchesMachine('linux_debian_13-gcc', 'linux_debian_13-gcc_14'));
  assert.ok(!matchesMachine('linux_debian_13-gcc_14', 'linux_debian_13'));
});

test('chooseTask() gives the oldest task that fits, with the exact name of the machine', () => {
  const offer = { machines: [machine('linux_debian_13-gcc_14')] };
  const choice = chooseTask(queue(task('windows'), task('linux_debian_13'), task('linux_debian_13-gcc_14')), offer);
  assert.equal(choice?.id, '2');
  assert.equal(choice.task.machine, 'linux_debian_13-gcc_14');
  assert.equal(chooseTask(queue(task('windows')), offer), undefined);
  assert.equal(chooseTask([], offer), undefined);
  assert.equal(chooseTask(queue(task('linux')), { machines: [] }), undefined);
});

test('chooseTask() prefers the machine with the very name', () => {
  const offer = { machines: [machine('linux-gcc'), machine('linux')] };
  assert.equal(chooseTask(queue(task('linux')), offer)?.task.machine, 'linux');
});

test('chooseTask() reads the queue no further than it must', () => {
  function* tasks(): Generator<QueuedTask> {
    yield { id: '1', task: task('linux') };
    throw new Error('read too far');
  }
  assert.equal(chooseTask(tasks(), { machines: [machine('linux')] })?.id, '1');
});

test('auxiliary machines are for auxiliary-machine only, and all must be offered', () => {
  const build = machine('linux');
  const database = machine('postgresql-17', { role: 'auxiliary' });
  assert.equal(chooseTask(queue(task('postgresql')), { machines: [build, database] }), undefined);
  const needs = queue(task('linux', { auxiliaryMachines: [{ name: 'db', machine: 'postgresql' }] }));
  assert.deepEqual(chooseTask(needs, { machines: [build, database] })?.task.auxiliaryMachines, [
    { name: 'db', machine: 'postgresql-17' },
  ]);
  assert.equal(chooseTask(needs, { machines: [build] }), undefined);
});

test('interactive tasks go to agents that take them', () => {
  const tasks = queue(task('linux', { interactive: 'error' }), task('linux', { interactive: 'none' }));
  const machines = [machine('linux')];
  assert.equal(chooseTask(tasks, { machines })?.id, '2');
  assert.equal(chooseTask(tasks, { machines, interactiveMode: 'false' })?.id, '2');
  assert.equal(chooseTask(tasks, { machines, interactiveMode: 'true' })?.id, '1');
  assert.equal(chooseTask(tasks.toReversed(), { machines, interactiveMode: 'both' })?.id, '2');
});

test('judgeResult() takes a result once, and a late one while it is of use', () => {
  assert.equal(judgeResult({ taskState: 'claimed' }, 'a'), 'accept');
  assert.equal(judgeResult({ taskState: 'done', outcome: 'result', digest: 'a' }, 'a'), 'repeat');
  assert.equal(judgeResult({ taskState: 'done', outcome: 'result', digest: 'a' }, 'b'), 'conflict');
  assert.equal(judgeResult({ taskState: 'queued', outcome: 'interrupt', digest: 'a' }, 'a'), 'repeat');
  assert.equal(judgeResult({ taskState: 'queued', outcome: 'interrupt', digest: 'a' }, 'b'), 'conflict');
  assert.equal(judgeResult({ taskState: 'queued', outcome: 'timeout' }, 'a'), 'accept');
  assert.equal(judgeResult({ taskState: 'given-up', outcome: 'timeout' }, 'a'), 'accept');
  assert.equal(judgeResult({ taskState: 'claimed', outcome: 'timeout' }, 'a'), 'expired');
  assert.equal(judgeResult({ taskState: 'done', outcome: 'timeout' }, 'a'), 'expired');
});

test('planExpiry() puts overdue tasks back in the queue until the attempts are used up', () => {
  const claims = [
    { taskId: '1', session: 'a', claimedMs: 1000, attempts: 1 },
    { taskId: '2', session: 'b', claimedMs: 1000, attempts: 3 },
    { taskId: '3', session: 'c', claimedMs: 1001, attempts: 1 },
  ];
  assert.deepEqual(planExpiry(claims, { nowMs: 2000, timeoutMs: 1000, maxAttempts: 3 }), [
    { taskId: '1', session: 'a', state: 'queued' },
    { taskId: '2', session: 'b', state: 'given-up' },
  ]);
});
