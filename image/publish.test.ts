import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, readlink, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { BuiltImage } from './built-image.ts';
import { publishImage, PublishError } from './publish.ts';

/** An image of three small files: publishing does not look into them. */
async function fakeImage(folder: string, buildId: string): Promise<BuiltImage> {
  const own = join(folder, 'images', buildId);
  await mkdir(own, { recursive: true });
  for (const name of ['buildos-image', 'buildos-initrd', 'buildos-manifest.json']) {
    await writeFile(join(own, name), `${name} of ${buildId}`);
  }
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
  assert.match(grub, /'buildos\.admin_email="a b@example\.org"'/);
  assert.match(await readFile(join(into, 'boot.ipxe'), 'utf8'), /chain --autofree hosts\/\$\{netX\/mac:hexhyp\}\.ipxe/);
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
