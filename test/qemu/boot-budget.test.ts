/** The boot of the image that we ship stays within its budget, in instructions, bytes and memory. `npm run bench -- boot` has the rest. */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { AGENT_ARGUMENTS, agentHost, writeInstantToolchain } from '../../bench/boot/agent-host.ts';
import { figuresOf, judgeBudgets } from '../../bench/boot/budgets.ts';
import { measureBoot } from '../../bench/boot/measure.ts';
import { PROFILES } from '../../bench/boot/profiles.ts';
import type { BootFigures } from '../../bench/boot/stamps.ts';
import { openLocal } from '../../connections/local.ts';
import { findMirror } from '../../host/apt.ts';
import { buildImage } from '../../image/build.ts';
import { buildHost } from '../../image/hosts/build-host.ts';

const WORK = join(import.meta.dirname, '../../work');

test('the boot of the build host costs no more than its budget', { timeout: 900_000 }, async (context) => {
  const profile = PROFILES.find(({ name }) => name === 'build-host');
  assert.ok(profile);
  const { hardware, budgets } = profile;
  const mirror = await findMirror(openLocal());
  const folder = await mkdtemp(join(tmpdir(), 'buildos-budget-'));
  context.after(async () => await rm(folder, { recursive: true, force: true }));
  const toolchain = join(folder, 'toolchain');
  const withToolchain = agentHost(toolchain, await writeInstantToolchain(toolchain));

  // Until multi-user without a toolchain, and until the agent with one.
  const boots = [
    { definition: buildHost, names: ['init', 'multi-user', 'size', 'memory'], append: [], untilAgent: false },
    { definition: withToolchain, names: ['agent'], append: AGENT_ARGUMENTS, untilAgent: true },
  ] as const;
  for (const { definition, names, append, untilAgent } of boots) {
    const { image } = await buildImage({ definition, work: WORK, mirror, hardware });
    const exceededBy = (boot: BootFigures): string[] =>
      judgeBudgets(figuresOf(image, boot), budgets)
        .filter(({ name, isExceeded }) => isExceeded && names.some((each) => each === name))
        .map(({ name, reached, budget }) => `${name}: ${reached.toFixed(2)} of ${budget}`);
    const isEnough = (figures: BootFigures): boolean => exceededBy(figures).length === 0;
    const boot = await measureBoot(image, folder, { boots: 3, append, untilAgent, isEnough });
    context.diagnostic(boot.phases.map(({ name, end }) => `${name} ${end.toFixed(2)}`).join(', '));
    assert.deepEqual(
      exceededBy(boot),
      [],
      'where it is meant to cost more, raise the budget in bench/boot/profiles.ts',
    );
    assert.deepEqual(boot.failed, []);
  }
});
