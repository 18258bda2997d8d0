import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { test } from 'node:test';
import type { Result } from '../manifests/result.ts';
import type { Task } from '../manifests/task.ts';
import { openStore } from './sqlite-store.ts';
import type { Session, Store } from './store.ts';

const TASK: Task = { name: 'hello', version: '2.10', repositoryUrl: 'http://x/y', machine: 'linux', target: 't' };
const RESULT: Result = {
  name: 'hello',
  version: '2.10',
  status: 'warning',
  operations: [
    { operation: 'configure', status: 'success', log: 'äö\n' },
    { operation: 'build', status: 'warning', log: '' },
  ],
};

/** A folder for one test, removed after it. */
class Folder implements Disposable {
  readonly path: string = mkdtempSync(join(tmpdir(), 'store-'));
  readonly file: string = join(this.path, 'controller.sqlite');
  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true });
  }
}

function claim(store: Store, taskId: string, session: string, nowMs = 2000): Session {
  store.claim({ session, taskId, agent: 'host-1', machine: 'linux-gcc', nowMs });
  const found = store.findSession(session);
  assert.ok(found);
  return found;
}

test('a task goes from the queue through a session to its result, and all is told in order', () => {
  using folder = new Folder();
  using store = openStore(folder.file);
  const id = store.submit({ ...TASK, others: [['later-name', 'kept']] }, 1000);
  assert.equal(store.countQueued(), 1);
  assert.deepEqual([...store.queued()][0]?.task.others, [['later-name', 'kept']]);
  const session = claim(store, id, 's1');
  assert.equal(session.attempts, 1);
  assert.equal(store.countQueued(), 0);
  assert.deepEqual(store.claims(), [{ taskId: id, session: 's1', claimedMs: 2000, attempts: 1 }]);
  store.acceptUpload({ session: 's1', type: 'install', sha256: 'ab', sizeBytes: 5, file: 'f' }, id, 2500);
  store.acceptResult(session, 'd1', RESULT, 3000);
  assert.equal(store.findSession('s1')?.digest, 'd1');
  assert.deepEqual(store.claims(), []);
  assert.deepEqual(store.find(id), {
    id,
    name: 'hello',
    version: '2.10',
    machine: 'linux',
    state: 'done',
    status: 'warning',
    attempts: 1,
    submitted: '1970-01-01T00:00:01.000Z',
    target: 't',
    operations: [
      { operation: 'configure', status: 'success', logBytes: 5 },
      { operation: 'build', status: 'warning', logBytes: 0 },
    ],
    uploads: [{ type: 'install', sha256: 'ab', sizeBytes: 5 }],
    events: [
      { name: 'submitted', at: '1970-01-01T00:00:01.000Z' },
      { name: 'claimed', at: '1970-01-01T00:00:02.000Z', agent: 'host-1', machine: 'linux-gcc' },
      { name: 'upload', at: '1970-01-01T00:00:02.500Z', agent: 'host-1', machine: 'linux-gcc' },
      { name: 'result', at: '1970-01-01T00:00:03.000Z', agent: 'host-1', machine: 'linux-gcc' },
    ],
  });
  assert.equal(store.findLog(id, 'configure'), 'äö\n');
  assert.equal(store.findLog(id, 'check'), undefined);
  assert.match(store.findResult(id) ?? '', /^build-status: warning$/m);
});

test('a task is claimed once', () => {
  using folder = new Folder();
  using store = openStore(folder.file);
  const id = store.submit(TASK, 1000);
  claim(store, id, 's1');
  assert.throws(() => store.claim({ session: 's2', taskId: id, agent: 'a', machine: 'm', nowMs: 1 }), /not queued/);
  assert.equal(store.findSession('s2'), undefined);
  assert.equal(store.find(id)?.attempts, 1);
});

test('a claim that expires is queued again or given up; the upload of the session with the result counts', () => {
  using folder = new Folder();
  using store = openStore(folder.file);
  const id = store.submit(TASK, 1000);
  claim(store, id, 's1');
  store.acceptUpload({ session: 's1', type: 'install', sha256: 'aa', sizeBytes: 1, file: 'f1' }, id, 2500);
  store.expire([{ taskId: id, session: 's1', state: 'queued' }], 3000);
  assert.equal(store.find(id)?.state, 'queued');
  const second = claim(store, id, 's2', 4000);
  store.acceptUpload({ session: 's2', type: 'install', sha256: 'bb', sizeBytes: 2, file: 'f2' }, id, 4500);
  assert.equal(store.findUploadOf(id)?.file, 'f2');
  store.expire([{ taskId: id, session: 's2', state: 'given-up' }], 5000);
  assert.equal(store.find(id)?.status, 'abnormal');
  store.acceptResult(second, 'd', RESULT, 6000);
  assert.equal(store.find(id)?.status, 'warning');
  assert.deepEqual(
    store.find(id)?.uploads.map(({ sha256 }) => sha256),
    ['bb'],
  );
  assert.deepEqual(
    store.find(id)?.events.map(({ name }) => name),
    ['submitted', 'claimed', 'upload', 'timeout', 'claimed', 'upload', 'timeout', 'given-up', 'result'],
  );
  assert.equal(store.findUploadOf(id, 'other'), undefined);
  assert.deepEqual(store.uploadFiles(), new Set(['f1', 'f2']));
});

test('a change that fails in the middle leaves nothing behind', () => {
  using folder = new Folder();
  using store = openStore(folder.file);
  const id = store.submit(TASK, 1000);
  const session = claim(store, id, 's1');
  store.acceptResult(session, 'd1', RESULT, 2000);
  // The second result of a task breaks its primary key, after the session was changed.
  assert.throws(() => store.acceptResult(session, 'd2', RESULT, 3000));
  assert.equal(store.findSession('s1')?.digest, 'd1');
  assert.equal(store.find(id)?.events.length, 3);
  store.submit(TASK, 4000);
});

test('what was stored is there after opening again', () => {
  using folder = new Folder();
  let id: string;
  {
    using store = openStore(folder.file);
    id = store.submit(TASK, 1000);
  }
  using store = openStore(folder.file);
  assert.deepEqual(
    store.list(10).map((task) => task.id),
    [id],
  );
});

test('openStore() refuses a file in use, of another kind, or of a newer version', () => {
  using folder = new Folder();
  {
    using _store = openStore(folder.file);
    assert.throws(() => openStore(folder.file), { name: 'ControllerError', hint: /Another controller/ });
  }
  const other = join(folder.path, 'other');
  writeFileSync(other, 'not a database, but long enough to look at'.repeat(100));
  assert.throws(() => openStore(other), { name: 'ControllerError', message: /not a database/ });
  const database = new DatabaseSync(folder.file);
  database.exec('PRAGMA user_version = 99');
  database.close();
  assert.throws(() => openStore(folder.file), { name: 'ControllerError', hint: /newer controller/ });
});
