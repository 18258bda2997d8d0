import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { formatResultRequest, parseResultRequest } from './result-request.ts';
import { formatResult, isWorse, parseResult, RESULT_STATUSES, worstStatus } from './result.ts';
import type { Result } from './result.ts';

test('parseResultRequest() reads both forms of logs', () => {
  const text = readFileSync(join(import.meta.dirname, 'testdata/result-request.manifest'), 'utf8');
  assert.deepEqual(parseResultRequest(text), {
    session: '12-1-0123456789abcdef0123456789abcdef',
    challenge: 'c2lnbmF0dXJl',
    result: {
      name: 'hello',
      version: '2.10',
      status: 'warning',
      operations: [
        { operation: 'configure', status: 'success', log: 'checking for gcc... gcc\ndone' },
        {
          operation: 'build',
          status: 'warning',
          log: 'cc -o hello hello.c\nhello.c:1: warning: a \\\n\\\n  continued here',
        },
      ],
      workerChecksum: '1',
    },
  });
});

test('parseResultRequest() wants exactly two manifests', () => {
  assert.throws(() => parseResultRequest(': 1\nsession: s\n'), { reason: /a result is expected/ });
  assert.throws(() => parseResultRequest(': 1\nsession: s\n:\n:\n'), { line: 4, reason: /a third manifest/ });
});

test('parseResult() takes statuses and logs in any order and refuses a log without a status', () => {
  const head = ': 1\nname: a\nversion: 1\nstatus: success\n';
  assert.deepEqual(parseResult(`${head}build-log: x\ncheck-status: skip\nbuild-status: success\n`).operations, [
    { operation: 'check', status: 'skip', log: '' },
    { operation: 'build', status: 'success', log: 'x' },
  ]);
  assert.throws(() => parseResult(`${head}build-log: x\n`), { line: 5, reason: '"build-log" has no "build-status"' });
});

test('parseResult() refuses a result that is lighter than one of its operations', () => {
  assert.throws(() => parseResult(': 1\nname: a\nversion: 1\nstatus: success\nbuild-status: error\n'), {
    line: 4,
    reason: /at least error is expected/,
  });
  assert.equal(parseResult(': 1\nname: a\nversion: 1\nstatus: abort\nbuild-status: error\n').status, 'abort');
});

test('statuses are ordered by severity', () => {
  assert.equal(worstStatus([]), 'success');
  assert.equal(worstStatus(['success', 'error', 'warning']), 'error');
  assert.equal(worstStatus(['skip', 'success']), 'success');
  assert.ok(isWorse('abnormal', 'abort'));
  assert.ok(!isWorse('warning', 'warning'));
});

const word = fc.string({ minLength: 1, unit: fc.constantFrom('a', '-', '1', '\\') });
const result: fc.Arbitrary<Result> = fc
  .record({
    name: word,
    version: word,
    operations: fc.uniqueArray(
      fc.record({
        operation: fc.constantFrom('configure', 'build', 'check', 'install', 'upload'),
        status: fc.constantFrom(...RESULT_STATUSES),
        log: fc.string({ unit: fc.constantFrom('a', '\n', '\\', ' ', '\u0007') }),
      }),
      { selector: ({ operation }) => operation },
    ),
  })
  .map((fields) => ({ ...fields, status: worstStatus(fields.operations.map(({ status }) => status)) }));

test('what formatResult() and formatResultRequest() write is read back, with clean logs', () => {
  fc.assert(
    fc.property(result, word, (original, session) => {
      const expected = {
        ...original,
        operations: original.operations.map((each) => ({ ...each, log: each.log.replaceAll('\u0007', '?') })),
      };
      assert.deepEqual(parseResult(formatResult(original)), expected);
      assert.deepEqual(parseResultRequest(formatResultRequest({ session, result: original })), {
        session,
        result: expected,
      });
    }),
  );
});
