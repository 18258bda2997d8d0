/**
 * A build that is killed at any stage leaves no image that is not whole, no mount, no process, and a cache that the next
 * build can trust; two builds at once do not disturb each other. 35 s of CPU.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { listImages } from '../../image/built-image.ts';
import { firstDifference } from './_image-difference.ts';
import { openSmallImage, type SmallImage } from './_small-image.ts';

const BUILD = join(import.meta.dirname, '_small-build.ts');

/** Where to kill: when a step begins, and at two moments after that. */
const MOMENTS: readonly { readonly step: string; readonly afterMs: readonly number[] }[] = [
  { step: 'programs', afterMs: [100] },
  { step: 'unpack', afterMs: [300] },
  { step: 'configure', afterMs: [200] },
  { step: 'keep root', afterMs: [400] },
  { step: 'pack packages', afterMs: [600] },
  { step: 'apply properties', afterMs: [300, 800] },
  { step: 'apply programs', afterMs: [400] },
  { step: 'pack', afterMs: [0, 150, 500] },
];

let small: SmallImage;
/** Of the two builds at once; the others are compared with it. */
let reference: string;

before(async () => {
  small = await openSmallImage();
});

after(async () => {
  await small?.[Symbol.asyncDispose]();
});

test('two builds at once make one image', { timeout: 120_000 }, async () => {
  reference = await small.emptyWork();
  const both = [start(reference), start(reference)];
  const statuses = await Promise.all(both.map(async (child) => (await once(child, 'exit'))[0] as unknown));
  assert.deepEqual(statuses, [0, 0]);
  assert.equal((await listImages(reference)).length, 1);
});

test(
  'killed at every stage: nothing half done is left, and what comes of it in the end is right',
  {
    timeout: 180_000,
  },
  async (t) => {
    const work = await small.emptyWork();
    for (const { step, afterMs } of MOMENTS) {
      for (const ms of afterMs) {
        const killed = await killAt(start(work), step, ms);
        t.diagnostic(`${step} + ${ms} ms: ${killed ? 'killed' : 'was done by then'}`);
        for (const image of await listImages(work)) {
          const [whole] = await listImages(reference);
          assert.ok(whole);
          assert.equal(await firstDifference(whole, image), undefined, 'an image that is not whole');
        }
      }
    }
    const last = start(work);
    assert.deepEqual(await once(last, 'exit'), [0, null]);
    const [[built], [wanted]] = [await listImages(work), await listImages(reference)];
    assert.ok(built && wanted);
    assert.equal(await firstDifference(wanted, built), undefined);
    await untilNothingIsLeft(work);
    // What killed builds left on the disk, the next one has removed.
    assert.deepEqual(readdirSync(join(work, 'tmp')), []);
  },
);

function start(work: string): ChildProcess {
  const words = [BUILD, work, small.lockFile];
  return spawn(process.execPath, words, { stdio: ['ignore', 'pipe', 'inherit'] });
}

/** @returns whether it was killed, rather than done */
async function killAt(child: ChildProcess, step: string, afterMs: number): Promise<boolean> {
  const exited = once(child, 'exit');
  assert.ok(child.stdout);
  for await (const line of createInterface({ input: child.stdout })) {
    if (line !== step) continue;
    await sleep(afterMs);
    child.kill('SIGKILL');
    break;
  }
  const [, signal] = await exited;
  return signal === 'SIGKILL';
}

/** Processes of killed builds may go on for a moment, without being able to reach anything that counts. */
async function untilNothingIsLeft(work: string): Promise<void> {
  const deadline = performance.now() + 20_000;
  for (;;) {
    const found = readdirSync('/proc').filter((pid) => /^\d+$/.test(pid) && mountsOf(pid).includes(`${work}/tmp/`));
    if (found.length === 0) return;
    if (performance.now() > deadline)
      assert.fail(`processes ${found.join(' ')} have mounts of a build that was killed`);
    await sleep(200);
  }
}

function mountsOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/mountinfo`, 'utf8');
  } catch {
    return '';
  }
}
