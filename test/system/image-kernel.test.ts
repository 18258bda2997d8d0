/**
 * A kernel that was made ready while packages were still configured is used only when the root still has it, to the last module:
 * a maintainer script, DKMS or a diversion may change it after that.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { chmod, mkdir, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { LAYER_FILES } from '../../image/layers.ts';
import { isKernelOf, type PreparedKernel, prepareKernel } from '../../image/kernel-tree.ts';
import { openWorkshop, type Workshop } from '../../image/workshop.ts';

const RELEASE = '6.12.0-test';
const MODULES = `usr/lib/modules/${RELEASE}`;
const MODULE = `${MODULES}/kernel/fs/own.ko`;
/** Longer than a kernel's clock for files stands still. */
const TICK_MS = 20;

test('a kernel made ready is that of the root until something of it changes', { timeout: 60_000 }, async (t) => {
  const parent = mkdtempSync(join(tmpdir(), 'buildos-kernel-'));
  try {
    await using workshop = await openWorkshop(parent, { ramMiB: 64 });
    await t.test('it is what the root has', async () => {
      const { kernel, out, root } = await makeReady(workshop);
      assert.equal(kernel.release, RELEASE);
      assert.equal(readFileSync(join(out, LAYER_FILES.kernel), 'utf8'), 'the kernel');
      assert.equal(await isKernelOf(workshop, root, kernel), true);
    });

    const changes: Readonly<Record<string, (seen: string) => Promise<void>>> = {
      'a module is written again': (seen) => writeFile(join(seen, MODULE), 'another'),
      'a module is replaced by a file of an older date': async (seen) => {
        await writeFile(join(seen, 'new'), 'another');
        await rename(join(seen, 'new'), join(seen, MODULE));
      },
      'a module has another mode': (seen) => chmod(join(seen, MODULE), 0o600),
      'a module is added, and not indexed': (seen) => writeFile(join(seen, MODULES, 'kernel/fs/added.ko'), 'added'),
      'the kernel is written again': (seen) => writeFile(join(seen, `boot/vmlinuz-${RELEASE}`), 'signed'),
      'depmod finds other modules': (seen) => writeFile(join(seen, MODULES, 'modules.dep'), 'kernel/fs/other.ko:\n'),
      'a module asks for another': (seen) => writeFile(join(seen, MODULES, 'modules.softdep'), 'softdep own pre: x\n'),
      'it is of another release': async (seen) => {
        await rename(join(seen, 'boot', `vmlinuz-${RELEASE}`), join(seen, 'boot/vmlinuz-6.13.0'));
        await symlink(RELEASE, join(seen, 'usr/lib/modules/6.13.0'));
      },
    };
    for (const [what, change] of Object.entries(changes)) {
      await t.test(`${what}: it is another`, async () => {
        const { kernel, root } = await makeReady(workshop);
        await sleep(TICK_MS);
        await change(workshop.seen(root));
        assert.equal(await isKernelOf(workshop, root, kernel), false);
      });
    }

    await t.test('files that depmod writes with the same content do not matter', async () => {
      const { kernel, root } = await makeReady(workshop);
      await sleep(TICK_MS);
      const dep = join(workshop.seen(root), MODULES, 'modules.dep');
      await writeFile(dep, readFileSync(dep));
      assert.equal(await isKernelOf(workshop, root, kernel), true);
    });
  } finally {
    rmSync(parent, { recursive: true, force: true });
  }
});

/** A root with a kernel of no use, made ready. */
async function makeReady(
  workshop: Workshop,
): Promise<{ readonly kernel: PreparedKernel; readonly root: string; readonly out: string }> {
  const root = join(workshop.folder, 'root');
  const seen = workshop.seen(root);
  const out = workshop.seen(join(workshop.folder, 'out'));
  for (const folder of [seen, out]) await rm(folder, { recursive: true, force: true });
  for (const folder of [out, join(seen, 'boot'), join(seen, MODULES, 'kernel/fs')]) {
    await mkdir(folder, { recursive: true });
  }
  await writeFile(join(seen, 'boot', `vmlinuz-${RELEASE}`), 'the kernel');
  await writeFile(join(seen, MODULE), 'a module');
  await writeFile(join(seen, MODULES, 'modules.dep'), 'kernel/fs/own.ko:\n');
  for (const name of ['builtin', 'builtin.modinfo', 'order'])
    await writeFile(join(seen, MODULES, `modules.${name}`), '');
  await sleep(TICK_MS);
  const kernel = await prepareKernel(workshop, { root, out, modules: { classes: [], wanted: [] } });
  return { kernel, root, out };
}
