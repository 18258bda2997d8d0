import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { enumerateMachines } from './enumerate.ts';

/** Makes a folder of volumes from `volume/name` and the text of its manifest, and removes it after the test. */
async function volumes(
  files: Readonly<Record<string, string>>,
): Promise<AsyncDisposable & { readonly folder: string }> {
  const folder = await mkdtemp(join(tmpdir(), 'enumerate-'));
  for (const [path, manifest] of Object.entries(files)) {
    await mkdir(join(folder, path, 'root'), { recursive: true });
    await writeFile(join(folder, path, 'manifest'), manifest);
  }
  return { folder, [Symbol.asyncDispose]: () => rm(folder, { recursive: true }) };
}

const manifest = (name: string): string => `: 1\nid: ${name}-1\nname: ${name}\nsummary: Test\ntype: nspawn\n`;

test('enumerateMachines() finds machines in volumes, default first', async () => {
  await using found = await volumes({ 'a/linux-2': manifest('linux-2'), 'default/linux-1': manifest('linux-1') });
  const { machines, problems } = await enumerateMachines(found.folder);
  assert.deepEqual(
    machines.map(({ volume, manifest }) => `${volume}/${manifest.name}`),
    ['default/linux-1', 'a/linux-2'],
  );
  assert.deepEqual(problems, []);
});

test('enumerateMachines() reports a bad manifest and goes on', async () => {
  await using found = await volumes({
    'default/bad': 'name: bad\n',
    'default/good': manifest('good'),
    'default/other': manifest('good'),
  });
  await mkdir(join(found.folder, 'default', 'empty'));
  await mkdir(join(found.folder, 'default', '.builds'));
  const { machines, problems } = await enumerateMachines(found.folder);
  assert.deepEqual(
    machines.map((machine) => machine.manifest.name),
    ['good'],
  );
  assert.deepEqual(
    problems.map((problem) => problem.name),
    ['bad', 'empty', 'other'],
  );
  assert.match(problems[0]?.message ?? '', /line 1/);
});

test('enumerateMachines() leaves out a name that the default volume has', async () => {
  await using found = await volumes({ 'a/one': manifest('one'), 'default/one': manifest('one') });
  const { machines, problems } = await enumerateMachines(found.folder);
  assert.deepEqual(
    machines.map((machine) => machine.volume),
    ['default'],
  );
  assert.match(problems[0]?.message ?? '', /volume default has a machine of this name/);
});

test('enumerateMachines() finds nothing where nothing is', async () => {
  assert.deepEqual(await enumerateMachines('/nonexistent/machines'), { machines: [], problems: [] });
});
