import assert from 'node:assert/strict';
import { test } from 'node:test';
import { planPoll, wantsAllCpus } from './priority.ts';

const controllers = [
  { priority: '0', url: 'http://first' },
  { priority: '5', url: 'http://five' },
  { priority: '0', url: 'http://second' },
  { priority: '10', url: 'http://ten' },
];
const urls = (running: readonly string[]): readonly string[] => planPoll(controllers, running).map(({ url }) => url);

test('planPoll() asks higher ones first, equal ones in their order', () => {
  assert.deepEqual(urls([]), ['http://ten', 'http://five', 'http://first', 'http://second']);
});

test('planPoll() holds back lower ones by the second digit, not by the first', () => {
  assert.deepEqual(urls(['5']), urls([]));
  assert.deepEqual(urls(['0', '10']), ['http://ten']);
});

test('wantsAllCpus() is the fifth digit', () => {
  assert.equal(wantsAllCpus('10000'), true);
  assert.equal(wantsAllCpus('9999'), false);
});
