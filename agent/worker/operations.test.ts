import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Task } from '../../manifests/task.ts';
import { buildEnvironment, findWarnings, operationStatus, planOperations, sourceArchive } from './operations.ts';

const SHA256 = 'ab'.repeat(32);
const TASK: Task = {
  name: 'hello',
  version: '2.10',
  repositoryType: 'archive',
  repositoryUrl: `http://mirror.test/hello_2.10.orig.tar.gz#sha256=${SHA256}`,
  machine: 'linux_debian_13-gcc_14',
  target: 'x86_64-linux-gnu',
};
const PLACES = { source: '/w/source', staging: '/w/staging', upload: '/w/upload.tar' };

test('sourceArchive() takes URL and digest apart', () => {
  assert.deepEqual(sourceArchive(TASK), { url: 'http://mirror.test/hello_2.10.orig.tar.gz', sha256: SHA256 });
});

for (const [what, change, message] of [
  ['another repository type', { repositoryType: 'git' }, /"git" is not supported/],
  ['no digest', { repositoryUrl: 'http://mirror.test/a.tar.gz' }, /names no SHA-256/],
  ['a short digest', { repositoryUrl: 'http://mirror.test/a.tar.gz#sha256=abc' }, /names no SHA-256/],
  ['a file URL', { repositoryUrl: `file:///etc/passwd#sha256=${SHA256}` }, /no http or https URL/],
] as const) {
  test(`sourceArchive() refuses ${what}, with a hint`, () => {
    assert.throws(() => sourceArchive({ ...TASK, ...change }), { name: 'UnsupportedTaskError', message, hint: /./ });
  });
}

test('buildEnvironment() fills in the prefix, and the task has the last word', () => {
  const environment = buildEnvironment(
    { ...TASK, environment: 'CFLAGS="-O2 -g" HOME=/x' },
    { prefix: '/build/toolchains/default', home: '/w/home', toolchain: { MAKE: '{prefix}/bin/bmake' } },
  );
  assert.deepEqual(environment, {
    PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
    HOME: '/x',
    LC_ALL: 'C.UTF-8',
    TZ: 'UTC',
    MAKE: '/build/toolchains/default/bin/bmake',
    CFLAGS: '-O2 -g',
  });
});

test('planOperations() runs configure, make, check, install and tar with the toolchain make', () => {
  const operations = planOperations({ ...TASK, targetConfig: '--disable-nls' }, { MAKE: '/t/bmake' }, PLACES);
  assert.deepEqual(
    operations.map(({ name, argv }) => [name, argv.slice(0, 3).join(' ')]),
    [
      ['configure', './configure --prefix=/usr/local --disable-nls'],
      ['build', '/t/bmake'],
      ['check', '/t/bmake check'],
      ['install', '/t/bmake install DESTDIR=/w/staging'],
      ['upload', 'tar --create --file=/w/upload.tar'],
    ],
  );
});

test('operationStatus() tells error, warning and time limit apart', () => {
  assert.equal(operationStatus({ kind: 'exited', status: 0 }, []), 'success');
  assert.equal(operationStatus({ kind: 'exited', status: 0 }, ['x.c:1: warning: y']), 'warning');
  assert.equal(operationStatus({ kind: 'exited', status: 2 }, ['x.c:1: warning: y']), 'error');
  assert.equal(operationStatus({ kind: 'killed', signal: 'SIGSEGV' }, []), 'error');
  assert.equal(operationStatus({ kind: 'timed-out' }, []), 'abort');
});

test('findWarnings() gives matching lines, and says what it cannot use', () => {
  const found = findWarnings('a.c:1: warning: unused\nok\n', ['^.*warning: ', '(']);
  assert.deepEqual(found.lines, ['a.c:1: warning: unused']);
  assert.match(found.problems[0] ?? '', /"\(" is ignored/);
});
