/** The boot of the image that we ship stays within its budget, in instructions, bytes and memory. `npm run bench -- boot` has the rest. */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { figuresOf, judgeBudgets } from '../../bench/boot/budgets.ts';
import { measureBoot } from '../../bench/boot/measure.ts';
import { PROFILES } from '../../bench/boot/profiles.ts';
import { openLocal } from '../../connections/local.ts';
import { findMirror } from '../../host/apt.ts';
import { buildImage } from '../../image/build.ts';
import { buildHost } from '../../image/hosts/build-host.ts';

const WORK = join(import.meta.dirname, '../../work');

test('the boot of the build host costs no more than its budget', { timeout: 900_000 }, async (context) => {
  const profile = PROFILES.find(({ name }) => name === 'build-host');
  assert.ok(profile);
  const mirror = await findMirror(openLocal());
  const { image } = await buildImage({ definition: buildHost, work: WORK, mirror, hardware: profile.hardware });
  const folder = await mkdtemp(join(tmpdir(), 'buildos-budget-'));
  context.after(async () => await rm(folder, { recursive: true, force: true }));
  const exceededBy = (boot: Parameters<typeof figuresOf>[1]): string[] =>
    judgeBudgets(figuresOf(image, boot), profile.budgets)
      .filter(({ isExceeded }) => isExceeded)
      .map(({ name, reached, budget }) => `${name}: ${reached.toFixed(2)} of ${budget}`);
  const boot = await measureBoot(image, folder, { boots: 3, isEnough: (figures) => exceededBy(figures).length === 0 });
  context.diagnostic(boot.phases.map(({ name, end }) => `${name} ${end.toFixed(2)}`).join(', '));
  assert.deepEqual(exceededBy(boot), [], 'where it is meant to cost more, raise the budget in bench/boot/profiles.ts');
  assert.deepEqual(boot.failed, []);
});
