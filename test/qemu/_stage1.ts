/**
 * An initrd as small as it can be: the real stage 1 and a real kernel of Debian's, with a root of busybox that prints what
 * it finds. Kernel, busybox and libraries are unpacked once and kept below work/.
 */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { chmod, copyFile, mkdir, readFile, readdir, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { text } from '../../connections/connection.ts';
import { openLocal } from '../../connections/local.ts';
import { depmod } from '../../host/depmod.ts';
import { debianSources } from '../../host/mmdebstrap.ts';
import { makeSquashfs } from '../../host/squashfs.ts';
import { bundle } from '../../image/bundle.ts';
import { packStage1, packSystem, packTools } from '../../image/initrd.ts';
import { loadOrder, moduleName } from '../../image/kernel-modules.ts';
import { NODE_LIBRARIES, NODE_LOADER, NODE_SYSTEM, findOrPackNode, findOrStripNode } from '../../image/node-runtime.ts';
import { FIRST_STEPS, RESCUE } from '../../image/pack.ts';
import { SOURCES } from '../../image/source-digest.ts';
import { Store } from '../../image/store.ts';

const CACHE = join(import.meta.dirname, '../../work/test-stage1');
const PACKAGES = ['linux-image-cloud-amd64', 'busybox-static', 'libatomic1', 'libstdc++6'];
const LIBRARIES = 'usr/lib/x86_64-linux-gnu';
const BUILD_ID = 'deadbeefcafe0123';

/** What boots, and what it was made of, for tests that break it. */
export interface Stage1Fixture {
  readonly kernel: string;
  readonly initrd: string;
  readonly buildId: string;
  readonly squashfsBytes: number;
}

/**
 * The root's init: prints what stage 1 left, between marks, and powers off. `probe` is a shell line of the test's.
 */
const INIT = `#!/bin/busybox sh
export PATH=/bin
/bin/busybox --install -s /bin
echo "root: pid $$"
echo "root: begin host.json"; cat /run/buildos/host.json; echo "root: end host.json"
echo "root: begin mounts"; cat /proc/self/mountinfo; echo "root: end mounts"
echo "root: folders: $(stat -c '%n=%a:%u:%g' /run/buildos /run/buildos/agents /run/buildos/monitor /build/tftp | tr '\\n' ' ')"
echo "root: tftp: $(df -m /build/tftp | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2) MiB"
echo "root: hostname: $(cat /etc/hostname 2>/dev/null)"
echo "root: keys: $(stat -c '%a:%u:%g' /build/.ssh/authorized_keys 2>/dev/null) $(cat /build/.ssh/authorized_keys 2>/dev/null | tr '\\n' '|')"
echo "root: environment: $(tr '\\0' ' ' </proc/1/environ)"
echo "root: arguments: $(tr '\\0' ' ' </proc/1/cmdline)"
echo "root: descriptors: $(for fd in /proc/1/fd/*; do readlink $fd; done | tr '\\n' ' ')"
echo "root: signals: $(grep -E 'Sig(Ign|Blk)' /proc/1/status | tr -s '\\t\\n' ' ')"
echo "root: panic: $(cat /proc/sys/kernel/panic)"
echo "root: terminal: $(stty -a </dev/console | tr '\\n' ' ')"
echo "root: writable: $(echo yes >/written && cat /written)"
echo "root: memory: $(grep -E '^(MemTotal|MemFree|Shmem|Cached):' /proc/meminfo | tr -s ' \\n' ' ')"
echo "root: node: $(/usr/lib/buildos/node -p 'process.version + " " + process.execPath')"
echo "root: done"
sync
poweroff -f
`;

/** Makes the fixture; the first time takes a minute and needs Debian's archive. */
export async function makeStage1(): Promise<Stage1Fixture> {
  const on = openLocal();
  const debian = await findOrUnpackDebian();
  const out = join(CACHE, 'out');
  await mkdir(out, { recursive: true });
  const node = await findOrStripNode(on, { cache: CACHE });
  const read = async (path: string): Promise<Uint8Array> => await readFile(join(debian, path));

  const root = join(out, 'root');
  await rm(root, { recursive: true, force: true });
  for (const folder of [
    'bin',
    'sbin',
    'etc',
    'dev',
    'proc',
    'sys',
    'run',
    'lib',
    'lib64',
    'build/tftp',
    'usr/lib/buildos',
  ]) {
    await mkdir(join(root, folder), { recursive: true });
  }
  await writeFile(join(root, 'sbin/init'), INIT, { mode: 0o755 });
  await writeFile(join(root, 'etc/passwd'), 'root:x:0:0::/:/bin/sh\nbuild:x:991:992::/build:/bin/sh\n');
  await writeFile(join(root, 'usr/lib/buildos/node'), '');
  await copyFile(join(debian, 'usr/bin/busybox'), join(root, 'bin/busybox'));
  await copyFile(join(debian, LIBRARIES, 'ld-linux-x86-64.so.2'), join(root, NODE_LOADER));
  for (const name of NODE_LIBRARIES) await copyFile(join(debian, LIBRARIES, name), join(root, 'lib', name));
  await chmod(join(root, NODE_LOADER), 0o755);
  const squashfs = join(out, 'root.squashfs');
  await makeSquashfs(on, { folder: root, file: squashfs, timeSeconds: 1, compression: 'lz4' });
  const payload = await readFile(squashfs);

  const sha256 = createHash('sha256').update(payload).digest('hex');
  const layer = { name: 'layer-1.squashfs', size: payload.length, sha256 };
  const libraries = new Map<string, Uint8Array>();
  for (const name of NODE_LIBRARIES) libraries.set(name, await read(join(LIBRARIES, name)));
  const store = new Store(CACHE);
  const { entry } = await findOrPackNode(on, { store, node, compression: 'lz4', packers: [] });
  const nodeSystem = packSystem({ name: NODE_SYSTEM, squashfs: await store.read(entry, NODE_SYSTEM) });
  const [tools, stage1] = await Promise.all([
    packTools({
      busybox: await read('usr/bin/busybox'),
      loader: { path: NODE_LOADER, content: await read(join(LIBRARIES, 'ld-linux-x86-64.so.2')) },
      libraries,
    }),
    packStage1({
      firstSteps: await readFile(join(SOURCES, FIRST_STEPS)),
      rescue: await readFile(join(SOURCES, RESCUE)),
      init: await readFile((await bundle({ entry: 'init/main.ts', outfile: join(out, 'init.mjs') })).file),
      payload: { buildId: BUILD_ID, layers: [layer] },
      modules: await readModules(debian),
    }),
  ]);
  const initrd = join(out, 'initrd');
  await writeFile(
    initrd,
    Buffer.concat([tools, stage1, ...nodeSystem, ...packSystem({ name: layer.name, squashfs: payload })]),
  );
  const kernel = (await readdir(join(debian, 'boot'))).find((name) => name.startsWith('vmlinuz-'));
  if (kernel === undefined) throw new Error(`No kernel in ${debian}/boot`);
  return { kernel: join(debian, 'boot', kernel), initrd, buildId: BUILD_ID, squashfsBytes: payload.length };
}

async function readModules(debian: string): Promise<{ name: string; content: Uint8Array }[]> {
  const on = openLocal();
  const [release = ''] = await readdir(join(debian, 'usr/lib/modules'));
  const folder = join(debian, 'usr/lib/modules', release);
  const paths = loadOrder(await readFile(join(folder, 'modules.dep'), 'utf8'), ['loop', 'squashfs', 'overlay']);
  const modules: { name: string; content: Uint8Array }[] = [];
  for (const path of paths) {
    const { stdout } = await on.run(['xz', '--decompress', '--stdout', join(folder, path)]);
    modules.push({ name: `${moduleName(path)}.ko`, content: stdout });
  }
  return modules;
}

/** Debian packages unpacked, not installed: no maintainer script runs, so this takes 10 s. @returns the folder, below work/ */
export async function findOrUnpackDebian(): Promise<string> {
  const on = openLocal();
  const folder = join(CACHE, 'debian');
  if (existsSync(folder)) return folder;
  await mkdir(CACHE, { recursive: true });
  const part = `${folder}.part-${process.pid}`;
  try {
    await on.run(
      [
        'mmdebstrap',
        '--mode=root',
        '--variant=extract',
        '--format=tar',
        `--include=${PACKAGES.join(',')}`,
        'trixie',
        `${part}.tar`,
        ...debianSources({ suite: 'trixie' }),
      ],
      { timeoutMs: 600_000 },
    );
    await mkdir(part);
    await on.run(['tar', '--directory', part, '--extract', '--file', `${part}.tar`], { timeoutMs: 120_000 });
    await symlink('usr/lib', join(part, 'lib'));
    const release = text(await on.run(['ls', join(part, 'usr/lib/modules')])).trim();
    await depmod(on, { root: part, release });
    await rename(part, folder);
  } finally {
    await rm(part, { recursive: true, force: true });
    await rm(`${part}.tar`, { force: true });
  }
  return folder;
}
