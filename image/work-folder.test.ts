import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, rm, statfs, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { checkUnpackable, FolderError, makeFolder } from './work-folder.ts';

/** linux/magic.h */
const OVERLAYFS_SUPER_MAGIC = 0x794c_7630;

test('makeFolder() makes folders, tries them, and leaves nothing else there', async (t) => {
  const top = await mkdtemp(join(tmpdir(), 'buildos-folder-'));
  t.after(async () => await rm(top, { recursive: true, force: true }));
  const folder = join(top, 'a/b/c');
  await makeFolder(folder, 'caches', '--work');
  await makeFolder(folder, 'caches', '--work');
  assert.deepEqual(await readdir(folder), []);
  await symlink(folder, join(top, 'link'));
  await makeFolder(join(top, 'link/d'), 'caches', '--work');
  assert.deepEqual(await readdir(folder), ['d']);
});

test('makeFolder() says why a folder will not do, in bounded time', { timeout: 10_000 }, async (t) => {
  const top = await mkdtemp(join(tmpdir(), 'buildos-folder-'));
  t.after(async () => await rm(top, { recursive: true, force: true }));
  await writeFile(join(top, 'file'), '');
  await symlink('/no/such', join(top, 'broken'));
  await symlink('loop', join(top, 'loop'));
  await mkdir(join(top, 'x'));
  const wrong: readonly (readonly [path: string, reason: RegExp])[] = [
    ['/proc/buildos/a', /it is in \/proc, which the kernel makes up/],
    ['/sys/buildos', /it is in \/sys, which the kernel makes up/],
    [join(top, 'file'), /it, or a part of its path, is a file/],
    [join(top, 'file/a'), /it, or a part of its path, is a file/],
    [join(top, 'broken/a'), /can neither be found nor made/],
    [join(top, 'loop/a'), /a circle of links/],
    [join(top, 'n'.repeat(300)), /its name is too long/],
  ];
  for (const [path, reason] of wrong) {
    await assert.rejects(makeFolder(path, 'caches', '--work'), (error) => {
      assert.ok(error instanceof FolderError, String(error));
      assert.ok(error.message.startsWith(`Cannot use the folder ${path} for caches: `));
      assert.match(error.message, reason);
      assert.match(error.hint, /--work/);
      return true;
    });
  }
});

test('checkUnpackable() refuses where owners are not kept; as root it takes an ordinary folder', async (t) => {
  const top = await mkdtemp(join(tmpdir(), 'buildos-folder-'));
  t.after(async () => await rm(top, { recursive: true, force: true }));
  if (process.getuid?.() === 0 && (await statfs(top)).type !== OVERLAYFS_SUPER_MAGIC) await checkUnpackable(top);
  else await assert.rejects(checkUnpackable(top), FolderError);
  assert.deepEqual(await readdir(top), []);
});
