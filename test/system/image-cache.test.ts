/**
 * The cache never lies: whatever is changed from build to build, the image is that of a build from nothing, bit for bit.
 * The changes are random; the seed is printed, and `BUILDOS_SEED` repeats them. 50 s of CPU.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { BuiltImage } from '../../image/built-image.ts';
import { digestsOf, firstDifference } from './_image-difference.ts';
import { INPUTS, type Inputs, openSmallImage } from './_small-image.ts';

const STEPS = 3;

/** mulberry32: small, and the same everywhere. */
function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Every way to change an input; the number is for content that was never there before, or was. */
const CHANGES: readonly ((inputs: Inputs, n: number) => Inputs)[] = [
  (inputs, n) => ({ ...inputs, first: `first ${n % 3}\n` }),
  (inputs, n) => ({ ...inputs, text: `hello ${n % 3}\n` }),
  (inputs, n) => ({ ...inputs, program: `console.log(${n % 3});\n` }),
  (inputs) => ({ ...inputs, user: !inputs.user }),
  (inputs, n) => ({ ...inputs, data: n % 4 === 0 ? undefined : String(n % 4) }),
  (inputs) => ({ ...inputs, exclude: !inputs.exclude }),
  (inputs) => ({ ...inputs, hardware: inputs.hardware === 'vm' ? 'server' : 'vm' }),
  (inputs, n) => ({ ...inputs, note: `note ${n % 2}` }),
];

test(
  'random changes: a build with the cache gives what a build from nothing gives',
  { timeout: 280_000 },
  async (t) => {
    const seed = Number(process.env['BUILDOS_SEED'] ?? Date.now() % 1_000_000);
    t.diagnostic(`BUILDOS_SEED=${seed}`);
    const random = randomFrom(seed);
    await using small = await openSmallImage();
    const kept = await small.emptyWork();
    const seen = new Map<string, string>();
    let inputs: Inputs = { ...INPUTS };
    await small.build(kept, inputs);
    for (let step = 0; step < STEPS; step += 1) {
      // Two changes at once, so that a walk meets more of the combinations.
      for (let n = 0; n < 2; n += 1) {
        const change = CHANGES[Math.floor(random() * CHANGES.length)];
        inputs = change?.(inputs, Math.floor(random() * 12)) ?? inputs;
      }
      const quick = await small.build(kept, inputs);
      const clean = await small.build(await small.emptyWork(), inputs);
      assert.equal(clean.cached, false);
      await assertSame(quick.image, clean.image, `step ${step}: ${JSON.stringify(inputs)}`);
      const { buildId = '', ...digests } = await digestsOf(quick.image);
      const before = seen.get(buildId);
      assert.ok(before === undefined || before === JSON.stringify(digests), 'one build id, two images');
      seen.set(buildId, JSON.stringify(digests));
    }
  },
);

test('what did not change is not made again', { timeout: 120_000 }, async () => {
  await using small = await openSmallImage();
  const work = await small.emptyWork();
  const made = async (inputs: Inputs): Promise<readonly string[]> => {
    const { timings, cached } = await small.build(work, inputs);
    const kept = new Set(['programs', 'inputs', 'choose packages', 'pack']);
    return cached
      ? ['nothing']
      : timings.filter((each) => !each.cached && !kept.has(each.name)).map(({ name }) => name);
  };
  const all = ['root of packages', 'layer of packages', 'apply properties', 'apply programs'];
  assert.deepEqual((await made(INPUTS)).toSorted(), all.toSorted());
  assert.deepEqual(await made(INPUTS), ['nothing']);
  assert.deepEqual(await made({ ...INPUTS, program: 'console.log(2);\n' }), ['apply programs']);
  assert.deepEqual(await made({ ...INPUTS, text: 'other\n' }), ['apply properties', 'apply programs']);
  assert.deepEqual(await made({ ...INPUTS, hardware: 'server' }), ['layer of packages']);
});

test(
  'going on after the last property that is as it was gives what a build from nothing gives',
  {
    timeout: 120_000,
  },
  async () => {
    await using small = await openSmallImage();
    const work = await small.emptyWork();
    await small.build(work, INPUTS);
    const said: string[] = [];
    const onProgress = (line: string): void => void said.push(line);
    const first = { ...INPUTS, first: 'other\n' };
    await small.build(work, first, { onProgress });
    assert.doesNotMatch(said.join('\n'), /as they were/, 'one of the first properties is another');
    const inputs = { ...first, text: 'other\n' };
    const quick = await small.build(work, inputs, { onProgress });
    assert.ok(
      said.some((line) => /^Applying .* of which 16 are as they were$/.test(line)),
      said.join('\n'),
    );
    await assertSame(quick.image, (await small.build(await small.emptyWork(), inputs)).image, 'text');
  },
);

/** Fails when two images differ, or what is written down of them. */
async function assertSame(image: BuiltImage, wanted: BuiltImage, of: string): Promise<void> {
  assert.equal(await firstDifference(image, wanted), undefined, of);
  for (const name of ['buildos-contents.json', 'properties.json']) {
    const [is, was] = [image, wanted].map(({ folder }) => readFileSync(join(folder, name), 'utf8'));
    assert.equal(is, was, `${name}: ${of}`);
  }
}
