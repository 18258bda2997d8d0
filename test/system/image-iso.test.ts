/** The ISO image, read back by xorriso: what is in it, and that it is there once, and the same each time. And what rollback makes of it. */
import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { openLocal } from '../../connections/local.ts';
import type { BuiltImage } from '../../image/built-image.ts';
import { IsoError, writeIso } from '../../image/publish/iso.ts';
import { publishImage } from '../../image/publish/publish.ts';
import { rollBack } from '../../image/publish/rollback.ts';
import { buildUki } from '../../image/publish/uki.ts';
import { formatImageManifest } from '../../manifests/image-manifest.ts';

const STUB = '/usr/lib/systemd/boot/efi/linuxx64.efi.stub';
const PARTS = { kernel: Buffer.alloc(5_000_001, 'kernel '), initrd: Buffer.alloc(20_000_003, 'initrd ') };
const BUILD_ID = 'c0ffee'.repeat(4).slice(0, 20);

let folder: string;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'image-iso-'));
});
after(() => rm(folder, { recursive: true, force: true }));

async function write(name: string, kernelArgs: readonly string[]): Promise<string> {
  const uki = join(folder, `${name}.efi`);
  const stub = await readFile(STUB);
  await writeFile(uki, buildUki({ ...PARTS, stub, kernelArgs, title: 'Build OS', buildId: BUILD_ID }));
  const output = join(folder, `${name}.iso`);
  await writeIso(openLocal(), { uki, buildId: BUILD_ID, kernelArgs, output, scratch: join(folder, `${name}.parts`) });
  return output;
}

test('an ISO image holds kernel and initrd once, for BIOS and for UEFI', { timeout: 60_000 }, async () => {
  const iso = await write('first', ['console=ttyS0', 'buildos.hostname=b1']);
  const tree = join(folder, 'tree');
  await mkdir(tree);
  await openLocal().run(['xorriso', '-osirrox', 'on', '-indev', iso, '-extract', '/', tree]);
  const read = async (name: string): Promise<Buffer> => await readFile(join(tree, name));
  assert.ok((await read('buildos-image')).equals(PARTS.kernel));
  assert.ok((await read('buildos-initrd')).equals(PARTS.initrd));
  assert.match((await read('isolinux.cfg')).toString(), /^ {2}APPEND console=ttyS0 buildos\.hostname=b1$/m);
  const efi = await read('efi.img');
  const uki = await readFile(join(folder, 'first.efi'));
  const at = efi.indexOf(uki.subarray(0, 4096));
  assert.ok(at > 0 && efi.subarray(at, at + uki.length).equals(uki));
  const { size } = await stat(iso);
  assert.ok(size < PARTS.kernel.length + PARTS.initrd.length + 3_000_000, `${size} bytes: everything is in there once`);
});

test('the same parts give the same image, whatever the time', { timeout: 60_000 }, async () => {
  const [one, other] = [await write('one', ['a']), await write('other', ['b'])];
  // Times in it have a resolution of one second.
  await sleep(1100);
  const two = await write('two', ['a']);
  assert.ok((await readFile(one)).equals(await readFile(two)));
  assert.ok(!(await readFile(one)).equals(await readFile(other)));
});

test('an image that cannot be made leaves nothing behind', { timeout: 60_000 }, async () => {
  const uki = join(folder, 'none.efi');
  await writeFile(uki, 'no program');
  const scratch = join(folder, 'none.parts');
  const options = { uki, buildId: BUILD_ID, kernelArgs: [], output: join(folder, 'none.iso'), scratch };
  await assert.rejects(writeIso(openLocal(), options), (error) => !(error instanceof IsoError));
  await assert.rejects(stat(scratch), /ENOENT/);
});

async function builtImage(buildId: string): Promise<BuiltImage> {
  const own = join(folder, buildId);
  await mkdir(own);
  const files = { kernel: join(own, 'kernel'), initrd: join(own, 'initrd'), manifest: join(own, 'manifest.json') };
  await writeFile(files.kernel, PARTS.kernel);
  await writeFile(files.initrd, PARTS.initrd);
  const manifest = formatImageManifest({
    format: 1,
    buildId,
    host: 'tiny',
    hostSha256: '0'.repeat(64),
    architecture: 'amd64',
    base: { name: 'debian', version: '13', suite: 'trixie' },
    kernelVersion: '6.12.0',
    node: { version: process.version, sha256: '0'.repeat(64) },
    packages: [],
    files: [],
    rootfsBytes: 0,
  });
  await writeFile(files.manifest, manifest);
  return {
    buildId,
    folder: own,
    ...files,
    kernelArgs: [],
    sizes: { kernel: 0, initrd: 0, runtime: 0, stage1: 0, payload: 0 },
  };
}

test('rollBack() makes every way to boot name the older version', { timeout: 60_000 }, async () => {
  const into = join(folder, 'www');
  const [old, newer] = ['a'.repeat(20), 'b'.repeat(20)] as const;
  const loaders = { bios: 'pxelinux', uefi: 'grub' } as const;
  const settings = { into, url: 'http://192.0.2.1', uki: { stub: STUB }, iso: { stub: STUB }, loaders };
  for (const buildId of [old, newer]) await publishImage({ ...settings, image: await builtImage(buildId) });
  const ways = ['boot.ipxe', 'pxelinux.cfg/default', 'grub.cfg', 'grub/grub.cfg', 'buildos.efi', 'buildos.iso'];
  const named = async (buildId: string): Promise<string[]> => {
    const found: string[] = [];
    for (const way of ways) if ((await readFile(join(into, way))).includes(buildId)) found.push(way);
    return found;
  };
  assert.deepEqual([await named(old), await named(newer)], [[], ways]);
  const { files } = await rollBack(into);
  assert.deepEqual([await named(old), await named(newer)], [ways, []]);
  for (const loader of ['lpxelinux.0', 'ldlinux.c32', 'grubx64.efi', 'dhcp/dnsmasq.conf']) {
    assert.ok(files.includes(loader) && (await stat(join(into, loader))).size > 100, loader);
  }
});
