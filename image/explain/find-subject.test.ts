import assert from 'node:assert/strict';
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { mkdtempDisposable } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { formatImageManifest, type ImageManifest } from '../../manifests/image-manifest.ts';
import { formatPackageLock } from '../../manifests/package-lock.ts';
import { formatBuiltImage } from '../built-image.ts';
import { formatPublication, PUBLICATION_JSON } from '../publish/publication.ts';
import { CONTENTS_JSON, formatContents } from '../trace.ts';
import { findSubject } from './find-subject.ts';

const BUILD_ID = '0123456789abcdef0123';

const MANIFEST: ImageManifest = {
  format: 1,
  buildId: BUILD_ID,
  host: 'tiny',
  hostSha256: 'a'.repeat(64),
  architecture: 'amd64',
  base: { name: 'debian', version: '13', suite: 'trixie' },
  kernelVersion: '6',
  node: { version: '26', sha256: 'b'.repeat(64) },
  packages: [{ name: 'less', version: '1', architecture: 'amd64' }],
  files: [],
  rootfsBytes: 1,
};

/** An image in `<work>/images/`, and the same published. */
async function folders(): Promise<AsyncDisposable & { readonly work: string; readonly into: string }> {
  const folder = await mkdtempDisposable(join(tmpdir(), 'buildos-subject-'));
  const [work, into] = [join(folder.path, 'work'), join(folder.path, 'served')];
  const places = [join(work, 'images', BUILD_ID), join(into, 'versions', BUILD_ID)];
  for (const place of places) {
    mkdirSync(place, { recursive: true });
    writeFileSync(join(place, 'buildos-image'), '');
    writeFileSync(join(place, 'buildos-initrd'), '');
    writeFileSync(join(place, 'buildos-manifest.json'), formatImageManifest(MANIFEST));
  }
  const sizes = { kernel: 0, initrd: 0, runtime: 0, stage1: 0, payload: 0 };
  const [built = ''] = places;
  writeFileSync(join(built, 'image.json'), formatBuiltImage({ buildId: BUILD_ID, kernelArgs: ['panic=30'], sizes }));
  writeFileSync(join(built, CONTENTS_JSON), formatContents({ format: 1, layers: [] }));
  const versions = [{ buildId: BUILD_ID, kernelArgs: ['panic=10'] }];
  const publication = { format: 1, options: {}, kernelArgs: [], hosts: {}, versions } as const;
  writeFileSync(join(into, PUBLICATION_JSON), formatPublication(publication));
  symlinkSync(`versions/${BUILD_ID}`, join(into, 'current'));
  return { work, into, [Symbol.asyncDispose]: async () => await folder.remove() };
}

test('findSubject() finds an image by the beginning of its build id, its folder, or as the newest', async () => {
  await using at = await folders();
  for (const asked of [BUILD_ID.slice(0, 4), join(at.work, 'images', BUILD_ID), undefined]) {
    const { name, packages, image } = await findSubject(asked, { work: at.work });
    assert.equal(name, BUILD_ID);
    assert.equal(packages[0]?.name, 'less');
    assert.deepEqual(image?.kernelArgs, ['panic=30']);
    assert.deepEqual(image?.contents?.layers, []);
  }
});

test('findSubject() finds a published version, and the one in force; its record may be where it was built', async () => {
  await using at = await folders();
  for (const asked of [join(at.into, 'versions', BUILD_ID), join(at.into, 'current'), at.into]) {
    const { image } = await findSubject(asked, { work: at.work });
    assert.deepEqual(image?.kernelArgs, ['panic=10']);
    assert.deepEqual(image?.contents?.layers, []);
    assert.equal((await findSubject(asked, { work: '/nowhere' })).image?.contents, undefined);
  }
});

test('findSubject() reads a manifest and a lock by their packages', async () => {
  await using at = await folders();
  const manifest = await findSubject(join(at.into, 'current/buildos-manifest.json'), { work: at.work });
  assert.equal(manifest.manifest?.kernelVersion, '6');
  assert.equal(manifest.image, undefined);
  const file = join(at.work, 'tiny.lock.json');
  const source = {
    uri: 'http://deb.example/debian',
    suite: 'trixie',
    components: ['main'],
    releaseSha256: 'c'.repeat(64),
  };
  const debian = { name: 'less', version: '2', architecture: 'amd64', source: 0, path: 'pool/less.deb', sizeBytes: 1 };
  const lock = {
    format: 1,
    suite: 'trixie',
    architecture: 'amd64',
    requested: ['less'],
    sources: [{ ...source, releaseDate: '2026-01-01T00:00:00.000Z' }],
    packages: [{ ...debian, sha256: 'd'.repeat(64) }],
  } as const;
  writeFileSync(file, formatPackageLock(lock));
  assert.equal((await findSubject(file, { work: at.work })).packages[0]?.version, '2');
});

test('findSubject() says what it did not find', async () => {
  await using at = await folders();
  const find = async (asked: string): Promise<unknown> => await findSubject(asked, { work: at.work });
  await assert.rejects(find('/no/such'), /no such file, and not the beginning of a build id/);
  await assert.rejects(find('ffff'), /No image ffff/);
  await assert.rejects(find(at.work), /it has no buildos-initrd/);
  writeFileSync(join(at.work, 'other.json'), '{}');
  await assert.rejects(find(join(at.work, 'other.json')), /no manifest and no lock/);
});
