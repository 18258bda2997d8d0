/** Publishing a toolchain: what hosts are to bootstrap, and the agent with it. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { list, type ReadEntry } from 'tar';
import { type MinisignSecretKey, parseSecretKey } from '../../manifests/minisign.ts';
import { parseToolchainList } from '../../manifests/toolchain-list.ts';
import { parseToolchainJson } from '../../manifests/toolchain.ts';
import { publishToolchain, TOOLCHAIN_LIST, type ToolchainToPublish } from '../../toolchains/publish.ts';
import { Signer } from './_minisign.ts';

const TOOLCHAIN: ToolchainToPublish = {
  version: 'test-1',
  files: ['bootstrap.sh'],
  bootstrap: { command: ['sh', '{files}/bootstrap.sh'], timeLimitSeconds: 60, leaves: [], environment: {} },
  machine: { environment: { MAKE: 'make' } },
};

async function publish(signWith?: MinisignSecretKey): Promise<{ folder: string } & AsyncDisposable> {
  const folder = await mkdtemp(join(tmpdir(), 'buildos-toolchain-'));
  await writeFile(join(folder, 'bootstrap.sh'), 'true\n');
  await publishToolchain(folder, TOOLCHAIN, signWith);
  return { folder, [Symbol.asyncDispose]: async () => await rm(folder, { recursive: true }) };
}

test('publishToolchain() lists every file by its digest, the agent among them', { timeout: 60_000 }, async () => {
  await using published = await publish();
  const { folder } = published;
  const { version, files } = parseToolchainList(await readFile(join(folder, TOOLCHAIN_LIST), 'utf8'));
  assert.equal(version, 'test-1');
  assert.deepEqual(
    [...files.map(({ path }) => path), TOOLCHAIN_LIST].toSorted(),
    (await readdir(folder)).toSorted(),
    'all that is there, and nothing else',
  );
  for (const { path, sha256 } of files) {
    const content: Uint8Array = await readFile(join(folder, path));
    assert.equal(createHash('sha256').update(content).digest('hex'), sha256, path);
  }
  const { agent } = parseToolchainJson(await readFile(join(folder, 'toolchain.json'), 'utf8'));
  const programs: string[] = [];
  const onReadEntry = ({ path, mtime }: ReadEntry): number => programs.push(`${path} ${mtime?.getTime()}`);
  await list({ file: join(folder, agent), onReadEntry });
  assert.deepEqual(programs, ['agent.mjs 0', 'worker.mjs 0'], 'of no time, so that the archive is the same tomorrow');
});

test(
  'publishToolchain() signs the list, and a signature goes with the list that it is of',
  { timeout: 60_000 },
  async () => {
    using signer = new Signer();
    const key = parseSecretKey(await readFile(signer.secretKeyFile, 'utf8'));
    await using published = await publish(key);
    const file = join(published.folder, TOOLCHAIN_LIST);
    assert.match(signer.verify(file), /verified\nTrusted comment: Build OS toolchain test-1\n/);
    assert.ok(parseToolchainList(await readFile(file, 'utf8')).files.every(({ path }) => !path.endsWith('.minisig')));
    await publishToolchain(published.folder, TOOLCHAIN);
    assert.match(signer.verify(file), /verified/, 'the same list');
    await publishToolchain(published.folder, { ...TOOLCHAIN, version: 'test-2' });
    assert.ok(!(await readdir(published.folder)).includes(`${TOOLCHAIN_LIST}.minisig`), 'another list');
  },
);

test('publishToolchain() gives the same list for the same sources', { timeout: 60_000 }, async () => {
  await using one = await publish();
  await using other = await publish();
  const lists = await Promise.all([one, other].map(({ folder }) => readFile(join(folder, TOOLCHAIN_LIST), 'utf8')));
  assert.equal(lists[0], lists[1]);
});
