/** Machines on disk images: real loop devices, real btrfs, and one real Debian. Needs root. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, lutimes, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { text } from '../../connections/connection.ts';
import { openLocal } from '../../connections/local.ts';
import { openChain } from '../../connections/open.ts';
import { createMachine } from '../../machines/create.ts';
import { readMachineDefinition } from '../../machines/definition.ts';
import { deleteMachine, listMachines, putMachine } from '../../machines/disk.ts';
import type { MachineManifest } from '../../manifests/machine.ts';
import { deploy } from '../../properties/deploy.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root: loop devices and mounts';
const TOP = join(import.meta.dirname, '..', '..');
const SIZE = 512 * 1024 ** 2;

interface Bench extends AsyncDisposable {
  readonly folder: string;
  readonly disk: string;
  /** A small tree that stands for a root file system. */
  readonly root: string;
}

async function bench(): Promise<Bench> {
  const folder = await mkdtemp(join(tmpdir(), 'machine-create-'));
  const root = join(folder, 'root');
  await mkdir(join(root, 'etc'), { recursive: true });
  await writeFile(join(root, 'etc', 'version'), 'one\n');
  await writeFile(join(root, 'setuid'), '');
  await chmod(join(root, 'setuid'), 0o4755);
  await symlink('/etc/version', join(root, 'link'));
  await lutimes(join(root, 'link'), 1, 1);
  return {
    folder,
    root,
    disk: join(folder, 'machines.btrfs'),
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }),
  };
}

const manifest = (name: string, id: string): MachineManifest => ({
  id,
  name,
  summary: `Machine ${id}`,
  type: 'nspawn',
});

/** Runs a command where the disk image is mounted. */
async function look(disk: string, script: string): Promise<string> {
  const mounted = `mount -o loop,ro "$1" /mnt && cd /mnt && ${script}`;
  const argv = ['unshare', '--mount', '--propagation', 'private', 'sh', '-c', mounted, 'sh', disk];
  return text(await openLocal().run(argv));
}

async function idsOn(disk: string): Promise<readonly string[]> {
  return (await listMachines(disk)).machines.map((machine) => machine.manifest.id);
}

test('putMachine() makes a labelled disk image with a read-only subvolume', { skip, timeout: 60_000 }, async () => {
  await using it = await bench();
  await putMachine({ file: it.disk, sizeBytes: SIZE, manifest: manifest('linux', 'one'), root: it.root });
  const { size, blocks } = await stat(it.disk);
  assert.equal(size, SIZE);
  assert.ok(blocks * 512 < SIZE / 4, 'the file is sparse');
  assert.match(text(await openLocal().run(['blkid', '--probe', it.disk])), /LABEL="buildos\.machines".* TYPE="btrfs"/);
  assert.match(await look(it.disk, 'btrfs property get -t subvol linux ro'), /ro=true/);
  assert.match(
    await look(it.disk, 'stat -c "%a %U" linux/root/setuid; readlink linux/root/link'),
    /^4755 root\n\/etc\/version$/m,
  );
  assert.deepEqual(await idsOn(it.disk), ['one']);
});

test(
  'putMachine() adds a second machine, replaces one, and deleteMachine() takes one away',
  { skip, timeout: 120_000 },
  async () => {
    await using it = await bench();
    const put = (name: string, id: string): Promise<void> =>
      putMachine({ file: it.disk, sizeBytes: SIZE, manifest: manifest(name, id), root: it.root });
    await put('linux-a', 'a1');
    await put('linux-b', 'b1');
    await writeFile(join(it.root, 'etc', 'version'), 'two\n');
    const before = await stat(it.disk);
    await put('linux-a', 'a2');
    assert.deepEqual(await idsOn(it.disk), ['a2', 'b1']);
    assert.equal(await look(it.disk, 'cat linux-a/root/etc/version linux-b/root/etc/version'), 'two\none\n');
    assert.notEqual((await stat(it.disk)).ino, before.ino, 'a new file: whoever has the old one open keeps it');
    assert.equal(await deleteMachine(it.disk, 'linux-a'), true);
    assert.equal(await deleteMachine(it.disk, 'linux-a'), false);
    assert.deepEqual(await idsOn(it.disk), ['b1']);
    assert.deepEqual(await readdir(it.folder), ['machines.btrfs', 'root']);
  },
);

test('putMachine() grows a disk image that is too small', { skip, timeout: 60_000 }, async () => {
  await using it = await bench();
  await putMachine({ file: it.disk, sizeBytes: SIZE / 2, manifest: manifest('a', '1'), root: it.root });
  await putMachine({ file: it.disk, sizeBytes: SIZE, manifest: manifest('b', '1'), root: it.root });
  assert.ok(Number(await look(it.disk, 'stat --file-system --format="%b" . ')) * 4096 > SIZE * 0.9);
});

test('a disk image that is too full stays as it was', { skip, timeout: 120_000 }, async () => {
  await using it = await bench();
  await putMachine({ file: it.disk, sizeBytes: SIZE / 2, manifest: manifest('linux', '1'), root: it.root });
  await openLocal().run(['dd', 'if=/dev/urandom', `of=${join(it.root, 'large')}`, 'bs=1M', 'count=400', 'status=none']);
  const put = putMachine({ file: it.disk, sizeBytes: SIZE / 2, manifest: manifest('linux', '2'), root: it.root });
  await assert.rejects(put, { name: 'CommandError', message: /No space left on device/ });
  assert.deepEqual(await idsOn(it.disk), ['1']);
  assert.deepEqual((await readdir(it.folder)).sort(), ['machines.btrfs', 'root']);
});

test('a file that is no such disk image is refused and left alone', { skip, timeout: 60_000 }, async () => {
  await using it = await bench();
  await writeFile(it.disk, 'my thesis\n');
  const put = putMachine({ file: it.disk, sizeBytes: SIZE, manifest: manifest('linux', '1'), root: it.root });
  await assert.rejects(put, { name: 'DiskError', message: /no btrfs labelled buildos\.machines \(no file system\)/ });
  assert.equal(await readFile(it.disk, 'utf8'), 'my thesis\n');
  await assert.rejects(listMachines(join(it.folder, 'absent')), {
    name: 'DiskError',
    message: /there is no such file/,
  });
});

test(
  'a killed process leaves no mount, no loop device, and the old disk image',
  { skip, timeout: 60_000 },
  async () => {
    await using it = await bench();
    await putMachine({ file: it.disk, sizeBytes: SIZE, manifest: manifest('linux', '1'), root: it.root });
    await openLocal().run(['dd', 'if=/dev/zero', `of=${join(it.root, 'large')}`, 'bs=1M', 'count=300', 'status=none']);
    const script = `const { putMachine } = await import(${JSON.stringify(join(TOP, 'machines/disk.ts'))});
    await putMachine(${JSON.stringify({ file: it.disk, sizeBytes: SIZE, manifest: manifest('linux', '2'), root: it.root })});`;
    const child = spawn(process.execPath, ['--input-type=module', '--eval', script], { stdio: 'ignore' });
    const copy = `${it.disk}.new-${child.pid}`;
    const attached = async (): Promise<string> =>
      text(await openLocal().run(['losetup', '--list', '--noheadings', '--output', 'NAME', '--associated', copy]));
    while ((await attached()) === '') {
      assert.equal(child.exitCode, null);
      await sleep(10);
    }
    child.kill('SIGKILL');
    await once(child, 'exit');
    for (let turn = 0; turn < 100 && (await attached()) !== ''; turn += 1) await sleep(50);
    assert.equal(await attached(), '');
    assert.doesNotMatch(await readFile('/proc/self/mountinfo', 'utf8'), /buildos-disk-/);
    assert.deepEqual(await idsOn(it.disk), ['1']);
  },
);

test(
  'createMachine() makes Debian with a compiler, by properties, twice the same',
  { skip, timeout: 280_000 },
  async () => {
    await using it = await bench();
    const name = 'linux_debian_13-gcc_14';
    const options = { name, work: join(TOP, 'work'), disk: it.disk };
    const first = await createMachine(options);
    assert.equal(first.changed, true);
    assert.deepEqual(await idsOn(it.disk), [first.manifest.id]);
    const compiled = await look(
      it.disk,
      `printf 'int main(void){return 7;}' > /tmp/a.c && mount --bind /tmp ${name}/root/tmp &&
     { chroot ${name}/root sh -c 'gcc -o /tmp/a.out /tmp/a.c && /tmp/a.out'; echo $?; rm -f /tmp/a.out /tmp/a.c; }`,
    );
    assert.equal(compiled, '7\n');
    assert.equal(
      await look(it.disk, `ls ${name}/root/etc/resolv.conf 2>&1 || true`).then((said) => /No such file/.test(said)),
      true,
    );
    const second = await createMachine(options);
    assert.equal(second.changed, false, 'the id depends only on the definition and the packages');

    const root = join(it.folder, 'again');
    await look(it.disk, `cp -a ${name}/root ${root}`);
    await using connection = await openChain([['local'], ['chroot', { into: root }]]);
    const report = await deploy(readMachineDefinition(name), connection);
    assert.deepEqual(
      report.results
        .filter(({ outcome }) => outcome !== 'ok')
        .map(({ description, outcome }) => `${description}: ${outcome}`),
      [],
    );
  },
);
