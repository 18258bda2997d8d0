/**
 * The same image without Node: what Node costs is a difference of two measurements. Stage 1 is a shell script that mounts what
 * init/plan.ts does, and has no options, checks or messages; the layers of the root are the very same.
 */
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { constants, zstdCompress } from 'node:zlib';
import type { BuiltImage } from '../../image/built-image.ts';
import { type CpioEntry, encodeCpio } from '../../image/cpio.ts';
import { readInitrd } from '../../image/explain/read-initrd.ts';

const compress = promisify(zstdCompress);

/** As image/initrd.ts has it for all that is compressed in the initrd. */
const ZSTD_LEVEL = 9;
const ALIGNMENT = 4;

const INIT = `#!/bin/sh
bb=/bin/busybox
$bb mkdir -p /dev /proc /sys /run /overlay/upper /newroot
$bb mount -t devtmpfs -o nosuid,mode=0755 dev /dev
$bb mount -t proc -o nosuid,nodev,noexec proc /proc
$bb mount -t sysfs -o nosuid,nodev,noexec sysfs /sys
$bb mount -t tmpfs -o nosuid,nodev,mode=0755,size=20%,nr_inodes=800k tmpfs /run
while read -r name; do $bb insmod "/modules/$name"; done </modules/load
lowers=
for layer in /buildos/layer-*.squashfs; do
  $bb mkdir -p "/overlay$layer"
  $bb mount -t squashfs -o loop,ro "$layer" "/overlay$layer"
  lowers="/overlay$layer\${lowers:+:$lowers}"
done
$bb mount -t tmpfs -o mode=0755,size=50% root /overlay/upper
$bb mkdir /overlay/upper/data /overlay/upper/work
$bb mount -t overlay -o "lowerdir=$lowers,upperdir=/overlay/upper/data,workdir=/overlay/upper/work" root /newroot
$bb mount -t tmpfs -o nosuid,nodev,mode=0755,uid=1000,gid=1000 tftp /newroot/build/tftp
$bb mkdir -p /run/buildos/agents /run/buildos/monitor
for path in /run /sys /dev /proc; do $bb mount --move "$path" "/newroot$path"; done
exec $bb switch_root /newroot /sbin/init
`;

/**
 * Makes it.
 *
 * @param folder - for its initrd; made when absent
 */
export async function withoutNode(image: BuiltImage, folder: string): Promise<BuiltImage> {
  const segments = readInitrd(await readFile(image.initrd));
  const held = segments.flatMap(({ entries }) => entries).filter(({ kind }) => kind === 'file');
  const isLayer = (path: string): boolean => /^buildos\/layer-\d+\.squashfs$/.test(path);
  const layers = segments.filter(({ entries }) => entries.some(({ path }) => isLayer(path)));
  const busybox = held.find(({ path }) => path === 'bin/busybox');
  if (busybox === undefined || layers.length === 0) {
    throw new RangeError(`Cannot take Node out of ${image.initrd}: it has no busybox, or no layers`);
  }
  const entries: CpioEntry[] = [
    { kind: 'character-device', path: 'dev/console', mode: 0o600, major: 5, minor: 1 },
    { kind: 'file', path: 'bin/busybox', mode: 0o755, content: busybox.content() },
    { kind: 'symlink', path: 'bin/sh', target: 'busybox' },
    { kind: 'file', path: 'init', mode: 0o755, content: new TextEncoder().encode(INIT) },
    ...held
      .filter(({ path }) => path.startsWith('modules/'))
      .map(({ path, content }) => ({ kind: 'file', path, mode: 0o644, content: content() }) as const),
  ];
  const packed = await compress(encodeCpio(entries), { params: { [constants.ZSTD_c_compressionLevel]: ZSTD_LEVEL } });
  const head = Buffer.alloc(Math.ceil(packed.length / ALIGNMENT) * ALIGNMENT);
  packed.copy(head);
  await mkdir(folder, { recursive: true });
  const initrd = Buffer.concat([head, ...layers.map(({ bytes }) => bytes)]);
  const file = join(folder, 'initrd-without-node');
  await writeFile(file, initrd);
  const sizes = { ...image.sizes, runtime: 0, stage1: head.length, initrd: initrd.length };
  return { ...image, initrd: file, sizes };
}
