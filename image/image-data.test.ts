/** An image gets no secret: not by prerequisite data, not by a file or a text of its definition. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { seq } from '../properties/combinators.ts';
import { whenContained } from '../properties/conditions.ts';
import { type DataSource, MissingDataError, treeSource } from '../properties/data.ts';
import * as file from '../properties/file.ts';
import type { HostDefinition } from '../properties/host-definition.ts';
import type { PropertyApplication } from '../properties/property.ts';
import * as user from '../properties/user.ts';
import { readImageData, SecretInImageError } from './image-data.ts';

const KEY = '-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaA==\n-----END OPENSSH PRIVATE KEY-----\n';
const TOKEN = { context: 'my-host', name: 'token' };
const MOTD = { context: 'my-host', name: 'motd', public: true } as const;

const hostOf = (...properties: readonly PropertyApplication[]): HostDefinition => ({
  name: 'my-host',
  summary: 'for a test',
  base: { distribution: 'debian', suite: 'trixie' },
  properties,
});

/** A source that notes what is read. */
async function sourceFor(t: TestContext): Promise<{ source: DataSource; folder: string; read: string[] }> {
  const folder = await mkdtemp(join(tmpdir(), 'buildos-image-data-'));
  t.after(async () => await rm(folder, { recursive: true, force: true }));
  await mkdir(join(folder, 'my-host'));
  for (const name of ['token', 'motd']) await writeFile(join(folder, 'my-host', name), `the ${name}`);
  const read: string[] = [];
  const tree = treeSource(folder);
  const source: DataSource = {
    about: tree.about,
    find: async (ref) => {
      const found = await tree.find(ref);
      return found && { ...found, read: async () => (read.push(ref.name), await found.read()) };
    },
  };
  return { source, folder, read };
}

test('a secret that a property asks for is refused, with the property, the secret and what to do; it is not read', async (t) => {
  const { source, read } = await sourceFor(t);
  const properties = [
    file.hasData('/etc/motd', MOTD),
    seq(file.hasData('/etc/token', TOKEN), user.hasPasswordHash('joe', { context: 'my-host', name: 'hash' })),
  ];
  await assert.rejects(readImageData(hostOf(...properties), [source]), (error) => {
    assert.ok(error instanceof SecretInImageError);
    assert.match(error.message, /^Cannot put secrets into an image, which is published for all to read: /);
    assert.match(error.message, /file\.hasData asks for my-host\/token \(\/etc\/token has the data my-host\/token\)/);
    assert.match(error.message, /user\.hasPasswordHash asks for my-host\/hash/);
    assert.ok(!error.message.includes('motd'));
    assert.match(error.hint, /whenContained\(null, …\).*host deploy.*--data.*public: true/);
    return true;
  });
  assert.deepEqual(read, []);
});

test('public data is read, and counts by its digest', async (t) => {
  const { source, read } = await sourceFor(t);
  const { store, digests } = await readImageData(hostOf(file.hasData('/etc/motd', MOTD)), [source]);
  assert.deepEqual(digests, { 'my-host/motd': createHash('sha256').update('the motd').digest('hex') });
  assert.equal(Buffer.from((await store.read(MOTD, false)).reveal()).toString(), 'the motd');
  assert.deepEqual(read, ['motd']);
  // Others could ask later, by mistake.
  await assert.rejects(store.read(TOKEN, true), SecretInImageError);
  assert.deepEqual(read, ['motd']);
  assert.equal((await readImageData(hostOf(file.hasContent('/a', 'b')), [source])).digests, undefined);
  const two = [file.hasData('/etc/motd', MOTD), file.hasData('/etc/issue', { ...MOTD, name: 'issue' })];
  await assert.rejects(readImageData(hostOf(...two), []), (error) => {
    assert.ok(error instanceof MissingDataError);
    assert.equal(error.refs.length, 2, 'all that is missing is named');
    assert.match(error.hint, /--data tree:FOLDER/);
    return true;
  });
});

test('what is for the host outside may ask for secrets', async (t) => {
  const { source, read } = await sourceFor(t);
  const outside = whenContained(null, file.hasData('/etc/token', TOKEN));
  const { store, digests } = await readImageData(hostOf(outside), [source]);
  assert.equal(digests, undefined);
  // As deploying asks before it begins.
  await store.check([TOKEN]);
  assert.deepEqual(read, []);
  const inside = whenContained(file.hasData('/etc/token', TOKEN), file.hasContent('/etc/token', ''));
  await assert.rejects(readImageData(hostOf(inside), [source]), /file\.hasData asks for my-host\/token/);
});

test('a private key in a text or file of the definition is refused', async (t) => {
  const { folder } = await sourceFor(t);
  const path = join(folder, 'id_ed25519');
  await writeFile(path, KEY);
  for (const property of [file.hasContent('/root/.ssh/id', KEY), file.hasFile('/root/.ssh/id', file.sourceOf(path))]) {
    await assert.rejects(readImageData(hostOf(property), []), (error) => {
      assert.ok(error instanceof SecretInImageError);
      assert.match(error.message, /file\.has(Content|File) has a private key \(\/root\/\.ssh\/id /);
      assert.ok(!error.message.includes('b3Blbn'));
      return true;
    });
    await readImageData(hostOf(whenContained(null, property)), []);
  }
  await readImageData(hostOf(file.hasContent('/a', '-----BEGIN PUBLIC KEY-----')), []);
});
