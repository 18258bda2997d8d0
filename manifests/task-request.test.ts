import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { formatTaskRequest, parseTaskRequest } from './task-request.ts';
import type { TaskRequest } from './task-request.ts';
import { formatTaskResponse, hasTask, parseTaskResponse } from './task-response.ts';

const HEAD = ': 1\nagent: host-1\ntoolchain-name: default\ntoolchain-version: 1.0\n';
const MACHINE = ':\nid: 7\nname: linux_debian_13-gcc_14\nsummary: Debian 13\n';

test('parseTaskRequest() reads the agent and its machines', () => {
  assert.deepEqual(parseTaskRequest(`${HEAD}interactive-mode: both\nlease: 60\n${MACHINE}ram-minimum: 1024\n`), {
    agent: 'host-1',
    toolchainName: 'default',
    toolchainVersion: '1.0',
    interactiveMode: 'both',
    machines: [{ id: '7', name: 'linux_debian_13-gcc_14', summary: 'Debian 13', ramMinimumKiB: 1024 }],
  });
});

test('parseTaskRequest() refuses names that could lead elsewhere', () => {
  for (const name of ['../x', 'a/b', '.hidden', 'a b', '-a', 'a--b', '']) {
    assert.throws(
      () => parseTaskRequest(HEAD + MACHINE.replace('linux_debian_13-gcc_14', name)),
      { line: 7, reason: /a machine name/ },
      name,
    );
  }
  assert.throws(() => parseTaskRequest(HEAD.replace('host-1', 'host 1')), { line: 2 });
  assert.throws(() => parseTaskRequest(`${HEAD}fingerprint: 12\n`), { line: 5, reason: /a SHA-256/ });
  assert.throws(() => parseTaskRequest(`${HEAD}auxiliary-ram: -1\n`), { line: 5, reason: /a whole number/ });
});

test('what formatTaskRequest() writes, parseTaskRequest() reads back', () => {
  const machine = fc.record(
    {
      id: fc.constantFrom('1', 'abc'),
      name: fc.constantFrom('linux_debian_13', 'linux_debian_13-gcc_14.2'),
      summary: fc.constantFrom('Debian', 'a \\'),
      role: fc.constantFrom('build', 'auxiliary'),
      ramMinimumKiB: fc.nat(),
      ramMaximumKiB: fc.nat(),
    },
    { requiredKeys: ['id', 'name', 'summary'], noNullPrototype: true },
  );
  const request: fc.Arbitrary<TaskRequest> = fc.record(
    {
      agent: fc.constantFrom('host-1', 'a.b_c'),
      toolchainName: fc.constant('default'),
      toolchainVersion: fc.constant('1.0'),
      interactiveMode: fc.constantFrom('false', 'true', 'both'),
      fingerprint: fc.constant('ab'.repeat(32)),
      auxiliaryRamKiB: fc.nat(),
      machines: fc.array(machine),
    },
    { requiredKeys: ['agent', 'toolchainName', 'toolchainVersion', 'machines'], noNullPrototype: true },
  );
  fc.assert(
    fc.property(request, (original) => {
      assert.deepEqual(parseTaskRequest(formatTaskRequest(original)), original);
    }),
  );
});

test('a task response holds a task or none', () => {
  const none = parseTaskResponse(formatTaskResponse({ session: '' }));
  assert.ok(!hasTask(none));
  const given = {
    session: '1-1-ab',
    challenge: 'nonce',
    resultUrl: 'http://c/?build-result',
    uploadUrls: { install: 'http://c/?build-upload=install' },
    task: { name: 'a', version: '1', repositoryUrl: 'http://x/y', machine: 'm', target: 't' },
  };
  const read = parseTaskResponse(formatTaskResponse(given));
  assert.ok(hasTask(read));
  assert.deepEqual(read, given);
});

test('parseTaskResponse() refuses garbage from a controller', () => {
  for (const [text, reason] of [
    ['<!doctype html>\n', /":" expected/],
    [': 1\n', /"session" is missing/],
    [': 1\nsession: x\n', /a task is expected/],
    [': 1\nsession: x\n:\nname: a\n', /"result-url" is missing/],
    [': 1\nsession: x\nresult-url: file:///etc/passwd\n:\n', /an http or https URL/],
    [': 1\nsession: x\nresult-url: http://c/\n:\nname: a\n', /"version" is missing/],
    [': 1\nsession: x y\n', /without blanks/],
  ] as const) {
    assert.throws(() => parseTaskResponse(text), { name: 'ManifestError', reason });
  }
});
