/**
 * The agent as a process, with a real controller, real TFTP instances and the real worker. Only the helper is a fake: it
 * runs the worker as a plain process on this machine instead of a container in a snapshot.
 */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { openController } from '../../controller/server.ts';
import { Bench, SECONDS, closeServer, listen } from './_agent-bench.ts';

const timeout = 60 * SECONDS;

test('agent: a task is built in a machine, and result, log and upload come back', { timeout }, async () => {
  await using bench = await Bench.open();
  const id = await bench.submit({ environment: 'MESSAGE=hello', targetConfig: '--disable-nls' });
  bench.startAgent();
  const view = await bench.done(id);
  assert.equal(view.status, 'success', bench.output);
  assert.deepEqual(
    view.operations.map(({ operation, status }) => `${operation} ${status}`),
    ['configure success', 'build success', 'check success', 'install success', 'upload success'],
  );
  assert.match(await bench.log(id, 'configure'), /checking for prefix\.\.\. --prefix=\/usr\/local --disable-nls/);
  assert.match(await bench.log(id, 'check'), /PASS: tiny/);
  assert.equal(view.uploads.length, 1);
  assert.ok((view.uploads[0]?.sizeBytes ?? 0) >= 10_240);

  await bench.until('nothing is left over', 5000, async () =>
    (await bench.leftOver()).length === 0 ? true : undefined,
  );
  const log = await readFile(bench.path('tftp', 'builds', 'default', 'default-1', 'log'), 'utf8');
  assert.match(log, /=== configure tiny 1\.0[^]*=== upload: success\n=== result: success\n$/);
  assert.deepEqual((await readdir(bench.path('tftp', 'builds', 'default', 'default-1'))).sort(), [
    'log',
    'result.manifest',
    'task.manifest',
  ]);
  const { events } = await bench.until('the agent knows that it is delivered', 5000, () => {
    const state = bench.state();
    return state.undelivered === 0 ? state : undefined;
  });
  assert.deepEqual(
    events.map(({ name }) => name),
    ['agent-ready', 'task-claimed', 'job-started', 'result'],
  );
  assert.equal(await bench.stopAgent('SIGTERM'), 0, bench.output);
});

test('agent: a failing operation ends the build, a matching line is a warning', { timeout }, async () => {
  await using bench = await Bench.open();
  const failing = await bench.submit({ environment: 'SLOW=nonsense' });
  const warning = await bench.submit({
    environment: 'NOISE="tiny.c:1: warning: x" MESSAGE=x',
    warningRegex: ['^.+: warning: '],
  });
  const foreign = await bench.submit({ repositoryType: 'git' });
  bench.startAgent();
  const failed = await bench.done(failing);
  assert.deepEqual(
    failed.operations.map(({ operation, status }) => `${operation} ${status}`),
    ['configure success', 'build error'],
  );
  assert.match(
    await bench.log(failing, 'build'),
    /ended with status 2\nnot run because of this: check, install, upload/,
  );
  assert.equal((await bench.done(warning)).status, 'warning');
  assert.equal((await bench.done(foreign)).status, 'error');
  assert.match(await bench.log(foreign, 'configure'), /repository-type "git" is not supported[^]*hint: /);
});

test(
  'agent: killed with SIGKILL during a build, its successor gives the task back, and it is built',
  { timeout },
  async () => {
    await using bench = await Bench.open();
    const id = await bench.submit({ environment: `MESSAGE=x SLOW=3 MARK=${bench.path('mark')}` });
    bench.startAgent();
    await bench.until('the build runs', 20 * SECONDS, () => (existsSync(bench.path('mark')) ? true : undefined));
    await bench.stopAgent('SIGKILL');
    assert.deepEqual(bench.helper.alive(), ['default-1'], 'the machine of the killed agent is still there');
    bench.startAgent();
    const view = await bench.done(id);
    assert.equal(view.status, 'success', bench.output);
    assert.deepEqual(
      view.events.map(({ name }) => name),
      ['submitted', 'claimed', 'interrupt', 'claimed', 'upload', 'result'],
    );
    assert.match(bench.output, /cleaned up after default-1/);
    await bench.until('nothing is left over', 5000, async () =>
      (await bench.leftOver()).length === 0 ? true : undefined,
    );
  },
);

test('agent: told to stop during a build, it gives the task back before it ends', { timeout }, async () => {
  await using bench = await Bench.open();
  const id = await bench.submit({ environment: `SLOW=30 MARK=${bench.path('mark')}` });
  bench.startAgent();
  await bench.until('the build runs', 20 * SECONDS, () => (existsSync(bench.path('mark')) ? true : undefined));
  const start = performance.now();
  assert.equal(await bench.stopAgent('SIGTERM'), 0, bench.output);
  assert.ok(performance.now() - start < 10 * SECONDS);
  assert.equal((await bench.view(id)).state, 'queued');
  assert.deepEqual(await bench.leftOver(), []);
});

test('agent: a controller that is away gets the result later, once', { timeout }, async () => {
  await using bench = await Bench.open();
  const id = await bench.submit({ environment: `MESSAGE=x SLOW=1 MARK=${bench.path('mark')}` });
  bench.startAgent();
  await bench.until('the build runs', 20 * SECONDS, () => (existsSync(bench.path('mark')) ? true : undefined));
  const { port } = bench.controller;
  await bench.controller.close();
  await bench.until('the result waits', 20 * SECONDS, () => (bench.state().undelivered === 1 ? true : undefined));
  await bench.untilSaid(/result of default-1 waits: Cannot reach/);
  assert.equal((await readdir(bench.path('state', 'agent', 'default', 'results'))).length, 2);
  assert.equal(await bench.stopAgent('SIGTERM'), 0, bench.output);
  bench.startAgent();
  await bench.untilSaid(/result of default-1 waits: Cannot reach[^]*result of default-1 waits: Cannot reach/);
  bench.controller = await openController({ folder: bench.path('controller'), address: '127.0.0.1', port });
  const view = await bench.done(id);
  assert.equal(view.status, 'success', bench.output);
  assert.deepEqual(
    view.events.map(({ name }) => name),
    ['submitted', 'claimed', 'upload', 'result'],
  );
  await bench.until('nothing is left over', 5000, async () =>
    (await bench.leftOver()).length === 0 ? true : undefined,
  );
  assert.equal(bench.output.match(/result of default-1 delivered/g)?.length, 1);
});

test(
  'agent: without a writable state folder, tasks and results are kept in RAM, and it says so',
  { timeout },
  async () => {
    await using bench = await Bench.open();
    await bench.configure([bench.controller.url], '/proc/nowhere/agent/default');
    const id = await bench.submit({ environment: 'MESSAGE=x' });
    bench.startAgent();
    assert.equal((await bench.done(id)).status, 'success', bench.output);
    assert.match(bench.output, /Cannot keep .* in \/proc\/nowhere\/agent\/default\/results: .*kept in RAM/);
    assert.match(bench.output, /Cannot keep the key/);
    assert.equal(bench.state().lastError?.includes('kept in RAM'), true);
  },
);

test('agent: a killed worker is an abnormal result that says so', { timeout }, async () => {
  await using bench = await Bench.open();
  const id = await bench.submit({ environment: `SLOW=30 MARK=${bench.path('mark')}` });
  bench.startAgent();
  await bench.until('the build runs', 20 * SECONDS, () => (existsSync(bench.path('mark')) ? true : undefined));
  await sleep(1500);
  bench.helper.worker()?.kill('SIGKILL');
  const view = await bench.done(id);
  assert.equal(view.status, 'abnormal');
  assert.match(await bench.log(id, 'machine'), /worker was killed by signal 9[^]*The end of its log:[^]*building/);
});

test('agent: a machine that never asks for its task is stopped', { timeout }, async () => {
  await using bench = await Bench.open();
  bench.helper.behaviour = 'silent';
  const id = await bench.submit();
  bench.startAgent();
  const view = await bench.done(id);
  assert.equal(view.status, 'abnormal');
  assert.match(await bench.log(id, 'machine'), /did not ask for its task within 4 s[^]*hint: /);
  await bench.until('nothing is left over', 5000, async () =>
    (await bench.leftOver()).length === 0 ? true : undefined,
  );
});

test(
  'agent: a machine that writes all it can is refused, and the host goes on',
  { timeout: 120 * SECONDS },
  async () => {
    await using bench = await Bench.open();
    bench.helper.behaviour = 'fill';
    const id = await bench.submit();
    bench.startAgent();
    const view = await bench.done(id, 90 * SECONDS);
    assert.equal(view.status, 'abnormal');
    assert.deepEqual(bench.helper.refusals, [
      'log: 3 peer',
      'other: 2 peer',
      '../escape: 2 peer',
      'task.manifest: 2 peer',
      'upload.tar: 3 peer',
      'result.manifest: 3 peer',
    ]);
    assert.match(bench.output, /TFTP: write of "upload\.tar" failed/);
    const next = await bench.submit({ environment: 'MESSAGE=x' });
    bench.helper.behaviour = 'worker';
    assert.equal((await bench.done(next)).status, 'success');
  },
);

test('agent: a controller that answers garbage is named, and does not hold back another', { timeout }, async () => {
  await using bench = await Bench.open();
  const answers = ['<html>Welcome</html>', 'x'.repeat(3_000_000), ': 1\nsession: s\n'];
  let asked = 0;
  const garbage = createServer((_request, response) => {
    response.end(answers[asked % answers.length]);
    asked += 1;
  });
  const slow = createServer(() => undefined);
  const urls = [await listen(garbage), await listen(slow)].map((port) => `http://127.0.0.1:${port}`);
  try {
    await bench.configure([...urls, bench.controller.url]);
    const id = await bench.submit({ environment: 'MESSAGE=x' });
    bench.startAgent();
    assert.equal((await bench.done(id)).status, 'success', bench.output);
    await bench.untilSaid(/line 1, column 21: .*it begins with "<html>Welcome/);
    await bench.untilSaid(/answered with more than 1000000 bytes \(is that the URL of a controller\?/);
    await bench.untilSaid(/a task is expected after the response with a session|"result-url" is missing/);
    await bench.untilSaid(/no answer within 2 s/);
    assert.ok(asked < 100, `asked ${asked} times`);
  } finally {
    await closeServer(garbage);
    await closeServer(slow);
  }
});

test('agent: takes no task while the drain file is there', { timeout }, async () => {
  await using bench = await Bench.open();
  await writeFile(bench.path('run', 'drain'), '{"reason":"test"}');
  const id = await bench.submit({ environment: 'MESSAGE=x' });
  bench.startAgent();
  await bench.until('it drains', 15 * SECONDS, () =>
    existsSync(bench.path('run', 'default.json')) && bench.state().state === 'draining' ? true : undefined,
  );
  await sleep(1000);
  assert.equal((await bench.view(id)).state, 'queued');
  await rm(bench.path('run', 'drain'));
  assert.equal((await bench.done(id)).status, 'success');
});
