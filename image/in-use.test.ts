import assert from 'node:assert/strict';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { announceBuild, announcePrune, BusyError } from './in-use.ts';

async function workFolder(t: TestContext): Promise<string> {
  const work = await mkdtemp(join(tmpdir(), 'buildos-in-use-'));
  t.after(async () => await rm(work, { recursive: true, force: true }));
  return work;
}

test('builds do not mind each other; a prune steps back from them, and says who it was', async (t) => {
  const work = await workFolder(t);
  {
    await using _one = await announceBuild(work);
    // Of one process, too, each has a mark of its own: what the one takes away leaves that of the other.
    await (await announceBuild(work))[Symbol.asyncDispose]();
    await assert.rejects(announcePrune(work), (error) => {
      assert.ok(error instanceof BusyError);
      assert.ok(error.message.startsWith(`Cannot prune ${work}: process ${process.pid} works in it`), error.message);
      return true;
    });
  }
  assert.deepEqual(await readdir(join(work, 'tmp')), []);
  await using _prune = await announcePrune(work);
});

test('a build waits until a prune is done', async (t) => {
  const work = await workFolder(t);
  const prune = await announcePrune(work);
  let begun = false;
  const build = announceBuild(work).then((mark) => {
    begun = true;
    return mark;
  });
  while ((await readdir(join(work, 'tmp'))).length < 2) assert.ok(!begun);
  // Its mark is made; now it looks, again and again.
  await sleep(200);
  assert.ok(!begun);
  await prune[Symbol.asyncDispose]();
  await (await build)[Symbol.asyncDispose]();
  assert.deepEqual(await readdir(join(work, 'tmp')), []);
});

test('the mark of a process that is gone does not count, also when its number was given to another', async (t) => {
  const work = await workFolder(t);
  await (await announceBuild(work))[Symbol.asyncDispose]();
  await writeFile(join(work, 'tmp', `build.${process.pid}.1.1`), '');
  await writeFile(join(work, 'tmp', 'build.4194400.1.1'), '');
  await (await announcePrune(work))[Symbol.asyncDispose]();
  assert.deepEqual(await readdir(join(work, 'tmp')), []);
});
