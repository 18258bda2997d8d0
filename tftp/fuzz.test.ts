import assert from 'node:assert/strict';
import { test } from 'node:test';

import { FUZZ_TARGETS, fuzz, fuzzCorpus } from './fuzz.ts';

test('the corpus goes through all that reads the network', () => {
  fuzzCorpus();
});

test('a short fuzz finds nothing; `npm run fuzz -- tftp --seconds N` runs longer', (t) => {
  const reports = fuzz({ seconds: 1.5, seed: Date.now() & 0x7fffffff });
  assert.deepEqual(
    reports.map(({ target }) => target),
    [...FUZZ_TARGETS],
  );
  for (const { target, count, seed, failure } of reports) {
    t.diagnostic(`${target}: ${count} with seed ${seed}`);
    assert.equal(failure, undefined, `${target}, seed ${seed}: ${failure?.input}`);
    assert.ok(count >= 200);
  }
});
