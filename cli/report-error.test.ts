import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatError } from './report-error.ts';

class HintedError extends Error {
  readonly hint = 'plug it in';
}

test('formatError() tells the message, the causes and the hint, each once', () => {
  const error = new Error('Cannot boot: no power', {
    cause: new HintedError('no power', { cause: new Error('the fuse is gone') }),
  });
  assert.equal(formatError(error), 'error: Cannot boot: no power\n  because: the fuse is gone\nhint: plug it in');
});

test('formatError() ends on a chain that bites its tail', () => {
  const error = new Error('round');
  error.cause = error;
  assert.equal(formatError(error), 'error: round');
});

test('formatError() names the members of an AggregateError, and takes what is no error', () => {
  const error = new AggregateError([new Error('one'), 'two'], 'both failed');
  assert.equal(formatError(error), 'error: both failed\n  because: one\n  because: two');
  assert.equal(formatError(null), 'error: null');
});
