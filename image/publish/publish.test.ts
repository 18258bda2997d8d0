import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, readlink, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { BuiltImage } from '../built-image.ts';
import { parsePublicKey, parseSecretKey, verifyMinisign } from '../../manifests/minisign.ts';
import { formatImageManifest } from '../../manifests/image-manifest.ts';
import { DamagedImageError } from '../built-image.ts';
import { parsePublication } from './publication.ts';
import { PublishError } from './publish-error.ts';
import { prunePublished } from './prune-published.ts';
import { publishImage } from './publish.ts';
import { rollBack } from './rollback.ts';

/** An image of three small files: publishing does not look into them. */
async function fakeImage(folder: string, buildId: string): Promise<BuiltImage> {
  const own = join(folder, 'images', buildId);
  await mkdir(own, { recursive: true });
  const files: { path: string; sha256: string; sizeBytes: number }[] = [];
  for (const path of ['buildos-image', 'buildos-initrd']) {
    const content = `${path} of ${buildId}`;
    await writeFile(join(own, path), content);
    files.push({ path, sha256: createHash('sha256').update(content).digest('hex'), sizeBytes: content.length });
  }
  const manifest = formatImageManifest({
    format: 1,
    buildId,
    host: 'build-host',
    hostSha256: '0'.repeat(64),
    architecture: 'amd64',
    base: { name: 'debian', version: '13', suite: 'trixie' },
    kernelVersion: '6.12.0',
    node: { version: 'v26.10.0', sha256: '1'.repeat(64) },
    packages: [{ name: 'libstdc++6', version: '14.2.0-19', architecture: 'amd64', sha256: '2'.repeat(64) }],
    files,
    rootfsBytes: 1,
  });
  await writeFile(join(own, 'buildos-manifest.json'), manifest);
  return {
    buildId,
    folder: own,
    kernel: join(own, 'buildos-image'),
    initrd: join(own, 'buildos-initrd'),
    manifest: join(own, 'buildos-manifest.json'),
    kernelArgs: ['panic=30'],
    sizes: { kernel: 0, initrd: 0, runtime: 0, stage1: 0, payload: 0 },
  };
}

async function temporary(): Promise<{ folder: string } & AsyncDisposable> {
  const folder = await mkdtemp(join(tmpdir(), 'buildos-publish-'));
  return { folder, [Symbol.asyncDispose]: async () => await rm(folder, { recursive: true }) };
}

test('publishImage() switches hosts to a version whose sums are right', async () => {
  await using scratch = await temporary();
  const into = join(scratch.folder, 'www');
  await publishImage({ image: await fakeImage(scratch.folder, 'a'.repeat(20)), into, url: 'http://192.0.2.1/os/' });
  assert.equal(await readlink(join(into, 'current')), `versions/${'a'.repeat(20)}`);
  for (const line of (await readFile(join(into, 'current', 'SHA256SUMS'), 'utf8')).trim().split('\n')) {
    const [sum, name] = line.split(' *');
    const content: Uint8Array = await readFile(join(into, 'current', name ?? ''));
    assert.equal(createHash('sha256').update(content).digest('hex'), sum, name ?? line);
  }
  const script = await readFile(join(into, 'boot.ipxe'), 'utf8');
  assert.match(
    script,
    /^kernel http:\/\/192\.0\.2\.1\/os\/versions\/a{20}\/buildos-image initrd=buildos-initrd panic=30 /m,
  );
  assert.match(script, /buildos\.buildid_url=http:\/\/192\.0\.2\.1\/os\/current\/buildos-buildid/);
});

test('publishImage() takes along where the files come from, when the image has that', async () => {
  await using scratch = await temporary();
  const into = join(scratch.folder, 'www');
  const image = await fakeImage(scratch.folder, 'a'.repeat(20));
  await writeFile(join(image.folder, 'buildos-contents.json'), '{}');
  await publishImage({ image, into });
  assert.equal(await readFile(join(into, 'current/buildos-contents.json'), 'utf8'), '{}');
  assert.match(await readFile(join(into, 'current/SHA256SUMS'), 'utf8'), /buildos-contents\.json/);
});

test('publishImage() names one version everywhere, keeps three older ones and leaves no parts', async () => {
  await using scratch = await temporary();
  const into = join(scratch.folder, 'www');
  for (const letter of ['a', 'b', 'c', 'd', 'e', 'f']) {
    await publishImage({ image: await fakeImage(scratch.folder, letter.repeat(20)), into });
  }
  assert.equal(await readlink(join(into, 'current')), `versions/${'f'.repeat(20)}`);
  assert.equal((await readdir(join(into, 'versions'))).length, 4);
  const names = await readdir(into, { recursive: true });
  assert.deepEqual(
    names.filter((name) => name.includes('.part-')),
    [],
  );
  for (const config of ['boot.ipxe', 'pxelinux.cfg/default', 'grub.cfg', 'grub/grub.cfg']) {
    const text = await readFile(join(into, config), 'utf8');
    assert.ok(text.includes(`versions/${'f'.repeat(20)}/buildos-image`), config);
    assert.ok(!text.includes('current/buildos-image'), config);
  }
});

test('publishImage() writes a version again when a file of it was altered', async () => {
  await using scratch = await temporary();
  const into = join(scratch.folder, 'www');
  const image = await fakeImage(scratch.folder, 'a'.repeat(20));
  await publishImage({ image, into });
  const initrd = join(into, 'current', 'buildos-initrd');
  await writeFile(initrd, 'cut');
  await publishImage({ image, into });
  assert.equal(await readFile(initrd, 'utf8'), `buildos-initrd of ${'a'.repeat(20)}`);
});

test('publishImage() refuses an image that was altered after it was built, and names the file', async () => {
  await using scratch = await temporary();
  const into = join(scratch.folder, 'www');
  await publishImage({ image: await fakeImage(scratch.folder, 'a'.repeat(20)), into });
  const image = await fakeImage(scratch.folder, 'b'.repeat(20));
  const manifest = await readFile(image.manifest, 'utf8');
  const refused = async (message: RegExp): Promise<void> => {
    await assert.rejects(publishImage({ image, into }), (error) => {
      assert.ok(error instanceof DamagedImageError);
      assert.match(error.message, message);
      assert.equal(error.hint, `remove the folder, and build the image again: rm -r ${image.folder}`);
      return true;
    });
    assert.deepEqual(await readdir(join(into, 'versions')), ['a'.repeat(20)]);
    assert.equal(await readlink(join(into, 'current')), `versions/${'a'.repeat(20)}`);
  };
  await writeFile(image.manifest, manifest.replace('b'.repeat(20), 'c'.repeat(20)));
  await refused(/images\/b+: buildos-manifest.json is damaged: it is of the image c{20}$/);
  await writeFile(image.manifest, manifest);
  await writeFile(image.initrd, `buildos-initrd of ${'c'.repeat(20)}`);
  await refused(/images\/b+: buildos-initrd is damaged: its SHA-256 is [0-9a-f]{64}, its manifest says/);
  await writeFile(image.manifest, manifest.slice(0, 300));
  await refused(/images\/b+: buildos-manifest.json is damaged: /);
});

test('publishImage() says what is in the way, and refuses an argument of two lines', async () => {
  await using scratch = await temporary();
  const image = await fakeImage(scratch.folder, 'a'.repeat(20));
  const into = join(scratch.folder, 'www');
  await mkdir(join(into, 'boot.ipxe'), { recursive: true });
  await assert.rejects(publishImage({ image, into }), (error) => {
    assert.ok(error instanceof PublishError);
    assert.equal(
      error.message,
      `Cannot write ${into}/boot.ipxe: there is a folder of that name; hosts boot what they did before`,
    );
    return true;
  });
  await assert.rejects(
    publishImage({ image, into, kernelArgs: ['a\nb'] }),
    /argument "a\\nb": it has a control character/,
  );
});

test('publishImage() clears away what a publishing that was killed has left; it is no version', async () => {
  await using scratch = await temporary();
  const into = join(scratch.folder, 'www');
  const publish = async (letter: string, keep = 1): Promise<unknown> =>
    await publishImage({ image: await fakeImage(scratch.folder, letter.repeat(20)), into, keep });
  await publish('a');
  for (const path of [`versions/${'b'.repeat(20)}.part-17`, '.loaders-AbCd12', 'buildos.iso.part-17.parts']) {
    await mkdir(join(into, path));
    await writeFile(join(into, path, 'half'), 'half');
  }
  await publish('c');
  assert.deepEqual(await readdir(join(into, 'versions')), ['a'.repeat(20), 'c'.repeat(20)]);
  assert.ok(!(await readdir(into)).some((name) => /part|loaders/.test(name)));
});

test('publishing twice at once leaves what one after the other would have', async () => {
  await using scratch = await temporary();
  const into = join(scratch.folder, 'www');
  const letters = ['a', 'b', 'c'];
  const images = await Promise.all(letters.map((letter) => fakeImage(scratch.folder, letter.repeat(20))));
  await Promise.all(images.map((image) => publishImage({ image, into })));
  const current = (await readlink(join(into, 'current'))).slice('versions/'.length);
  assert.match(await readFile(join(into, 'boot.ipxe'), 'utf8'), new RegExp(`versions/${current}/`));
  const { versions } = parsePublication(await readFile(join(into, 'buildos-publication.json'), 'utf8'));
  assert.deepEqual(new Set(versions.map(({ buildId }) => buildId.charAt(0))), new Set(letters));
  assert.equal(versions.at(-1)?.buildId, current);
});

test('prunePublished() removes the oldest versions, never the one in force; rollBack() removes none', async () => {
  await using scratch = await temporary();
  const into = join(scratch.folder, 'www');
  const of = (letters: string): string[] => letters.split('').map((letter) => letter.repeat(20));
  for (const letter of 'abcde') {
    await publishImage({ image: await fakeImage(scratch.folder, letter.repeat(20)), into, keep: 9 });
  }
  await rollBack(into, 'a');
  assert.deepEqual(await readdir(join(into, 'versions')), of('abcde'));
  // Of a publishing that was killed: it goes, and counts for none of those that stay.
  const half = `${'f'.repeat(20)}.part-17`;
  await mkdir(join(into, 'versions', half));
  const options = { keep: 1, olderThanMs: 0, dryRun: true };
  const shown = await prunePublished(into, options);
  assert.deepEqual(
    shown.removed.map(({ path }) => path).sort(),
    [...of('bcd'), half].map((name) => join(into, 'versions', name)),
  );
  assert.deepEqual(await readdir(join(into, 'versions')), [...of('abcde'), half]);
  assert.equal((await prunePublished(into, { ...options, olderThanMs: 60_000 })).removed.length, 1);
  const done = await prunePublished(into, { ...options, dryRun: false });
  assert.deepEqual(await readdir(join(into, 'versions')), of('ae'));
  assert.deepEqual(
    done.kept.map(({ path }) => path),
    of('ae').map((id) => join(into, 'versions', id)),
  );
  await rollBack(into, 'e');
  await assert.rejects(rollBack(into, 'b'), /0 versions begin so/);
  await assert.rejects(prunePublished(join(scratch.folder, 'images'), options), /nothing is published there/);
  await assert.rejects(prunePublished(join(scratch.folder, 'no'), options), PublishError);
});

test('publishImage() gives single hosts their options, for every boot loader', async () => {
  await using scratch = await temporary();
  const into = join(scratch.folder, 'www');
  await publishImage({
    image: await fakeImage(scratch.folder, 'a'.repeat(20)),
    into,
    options: { admin_email: 'a b@example.org' },
    hosts: { '52:54:00:AB:00:01': { hostname: 'b1' } },
  });
  assert.match(await readFile(join(into, 'hosts/52-54-00-ab-00-01.ipxe'), 'utf8'), /buildos\.hostname=b1/);
  assert.match(
    await readFile(join(into, 'pxelinux.cfg/01-52-54-00-ab-00-01'), 'utf8'),
    /APPEND panic=30 buildos\.admin_email="a b@example\.org" buildos\.hostname=b1/,
  );
  const grub = await readFile(join(into, 'grub.cfg'), 'utf8');
  assert.match(grub, /if \[ "\$net_default_mac" = '52:54:00:ab:00:01' \]; then\n.*'buildos\.hostname=b1'\n {2}else\n/);
  assert.match(grub, /'buildos\.admin_email=a b@example\.org'/);
  assert.match(await readFile(join(into, 'boot.ipxe'), 'utf8'), /chain --autofree hosts\/\$\{netX\/mac:hexhyp\}\.ipxe/);

  await publishImage({ image: await fakeImage(scratch.folder, 'b'.repeat(20)), into });
  assert.deepEqual(
    await readdir(join(into, 'pxelinux.cfg')),
    ['default'],
    'a host without options boots what others do',
  );
  assert.deepEqual(await readdir(join(into, 'hosts')), []);
});

test('publishImage() has GRUB read over HTTP where it can, and over TFTP else', async () => {
  await using scratch = await temporary();
  const into = join(scratch.folder, 'www');
  const image = await fakeImage(scratch.folder, 'a'.repeat(20));
  const read = async (name: string): Promise<string> => await readFile(join(into, name), 'utf8');
  await publishImage({ image, into, url: 'http://192.0.2.1:81/os/' });
  assert.match(await read('grub.cfg'), /^if insmod http; then set base='\(http,192\.0\.2\.1:81\)\/os'; fi$/m);
  assert.match(await read('grub.cfg'), /^ +linux \$base\/versions\/a{20}\/buildos-image 'panic=30' /m);
  assert.match(await read('pxelinux.cfg/default'), /^ +KERNEL versions\/a{20}\/buildos-image$/m);
  for (const url of ['https://192.0.2.1/os', undefined]) {
    await publishImage({ image, into, ...(url !== undefined && { url }) });
    assert.doesNotMatch(await read('grub.cfg'), /http,/, 'GRUB has no TLS');
  }
});

test('publishImage() refuses what no host could use, before it changes anything', async () => {
  await using scratch = await temporary();
  const into = join(scratch.folder, 'www');
  const image = await fakeImage(scratch.folder, 'a'.repeat(20));
  await assert.rejects(publishImage({ image, into, url: 'ftp://x' }), PublishError);
  await assert.rejects(publishImage({ image, into, options: { 'a b': 'c' } }), PublishError);
  await assert.rejects(publishImage({ image, into, hosts: { b1: { hostname: 'b1' } } }), /not a MAC address/);
  await assert.rejects(publishImage({ image, into, options: { hostname: 'a"b' } }), /double quote/);
  await assert.rejects(readdir(into), /ENOENT/);
});

test('rollBack() switches hosts to the version before, with the settings of now', async () => {
  await using scratch = await temporary();
  const into = join(scratch.folder, 'www');
  const image = async (letter: string): Promise<BuiltImage> => await fakeImage(scratch.folder, letter.repeat(20));
  await publishImage({ image: await image('a'), into, options: { hostname: 'old' } });
  await publishImage({ image: await image('b'), into, options: { hostname: 'new' } });
  await publishImage({ image: await image('c'), into, options: { hostname: 'new' } });

  assert.equal((await rollBack(into)).buildId, 'b'.repeat(20));
  assert.equal((await rollBack(into)).buildId, 'a'.repeat(20));
  assert.equal(await readlink(join(into, 'current')), `versions/${'a'.repeat(20)}`);
  assert.match(await readFile(join(into, 'boot.ipxe'), 'utf8'), /versions\/a{20}\/.*buildos\.hostname=new/);
  await assert.rejects(rollBack(into), /no version older than a{20}/);

  assert.equal((await rollBack(into, 'cc')).buildId, 'c'.repeat(20));
  await assert.rejects(rollBack(into, 'd'), /0 versions begin so/);
  await writeFile(join(into, 'versions', 'b'.repeat(20), 'buildos-initrd'), 'altered');
  await assert.rejects(rollBack(into), /is not what its SHA256SUMS says/);
  assert.equal(await readlink(join(into, 'current')), `versions/${'c'.repeat(20)}`);
  await assert.rejects(rollBack(join(scratch.folder, 'elsewhere')), /nothing is published there/);
});

test('publishImage() signs the sums, and lists what is in the image', async () => {
  await using scratch = await temporary();
  const into = join(scratch.folder, 'www');
  // A key made for this test, by "minisign -G -W".
  const signWith = parseSecretKey(
    'RWQAAEIyAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAVXt2vJnbtYZOcBDiqOiGA3nJFdh6YdQh+juqcySsCcpx5Hi+z18jP2XkYiOCPGmHcKWgruknZviBV6kO/uw1z44agqYrpwAWAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=',
  );
  await publishImage({ image: await fakeImage(scratch.folder, 'a'.repeat(20)), into, signWith });
  const sums = await readFile(join(into, 'current/SHA256SUMS'));
  const signature = await readFile(join(into, 'current/SHA256SUMS.minisig'), 'utf8');
  const key = parsePublicKey('RWRVe3a8mdu1hmXkYiOCPGmHcKWgruknZviBV6kO/uw1z44agqYrpwAW');
  assert.equal(verifyMinisign(sums, signature, key), `Build OS ${'a'.repeat(20)}`);

  const sbom: unknown = JSON.parse(await readFile(join(into, 'current/buildos-sbom.spdx.json'), 'utf8'));
  assert.ok(isRecord(sbom) && Array.isArray(sbom['packages']) && Array.isArray(sbom['relationships']));
  assert.match(
    JSON.stringify(sbom['packages']),
    /"SPDXRef-deb-libstdc\.plus\.\.plus\.6-amd64".*"pkg:deb\/debian\/libstdc\+\+6@14\.2\.0-19\?arch=amd64&distro=trixie"/,
  );
  assert.equal(sbom['relationships'].length, 3);
  assert.match(sums.toString(), / \*buildos-sbom\.spdx\.json\n/);
});

test('publishImage() refuses half a signing key, and a stub that is none', async () => {
  await using scratch = await temporary();
  const into = join(scratch.folder, 'www');
  const image = await fakeImage(scratch.folder, 'a'.repeat(20));
  const stub = join(scratch.folder, 'stub');
  await writeFile(stub, 'no program');
  await assert.rejects(publishImage({ image, into, uki: { stub, key: 'k' } }), /key and certificate go together/);
  await assert.rejects(
    publishImage({ image, into, iso: { stub, certificate: 'c' } }),
    /key and certificate go together/,
  );
  await assert.rejects(
    publishImage({ image, into, loaders: { bios: 'ipxe', uefi: 'uki' } }),
    /none is to be published/,
  );
  const quoted = { image, into, options: { hostname: "it's" }, loaders: { bios: 'ipxe', uefi: 'grub' } } as const;
  await assert.rejects(publishImage(quoted), /Cannot have GRUB hand over buildos\.hostname=it's/);
  await assert.rejects(publishImage({ image, into, uki: { stub } }), /it is no PE image/);
  await assert.rejects(publishImage({ image, into, iso: { stub } }), /it is no PE image/);
  await assert.rejects(readlink(join(into, 'current')), /ENOENT/);
  const left = (await readdir(into, { recursive: true })).filter((name) => name.includes('.part-'));
  assert.deepEqual(left, []);
});

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}
