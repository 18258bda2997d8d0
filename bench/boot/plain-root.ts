/**
 * The peer: the same root, without Node, as one cpio that is compressed with zstd, which is how a root in RAM is made by hand
 * (mmdebstrap or mkosi, then cpio and zstd). The kernel unpacks all of it and starts systemd.
 */
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { openLocal } from '../../connections/local.ts';
import type { BuiltImage } from '../../image/built-image.ts';
import { readInitrd } from '../../image/explain/read-initrd.ts';

const TIMEOUT_MS = 300_000;

/** Kernel arguments to start it. */
export const PLAIN_ARGUMENTS: readonly string[] = ['rdinit=/sbin/init'];

/** The mounts are gone with the name space. $1: a scratch folder with the layers in it, $2: the file to write */
const SCRIPT = `set -eu
cd "$1"
lowers=
for layer in layer-*.squashfs; do
  mkdir "$layer.d"
  mount -t squashfs -o loop,ro "$layer" "$layer.d"
  lowers="$PWD/$layer.d\${lowers:+:$lowers}"
done
mkdir merged none # overlayfs wants two at least
mount -t overlay -o "lowerdir=$lowers:$PWD/none" root merged
cd merged
find . -mindepth 1 | LC_ALL=C sort | cpio --create --format=newc --quiet --reproducible | zstd --quiet --force -3 -o "$2"
`;

/** Makes it from an image. Needs root. @returns the initrd */
export async function makePlainRoot(image: BuiltImage, folder: string): Promise<string> {
  const scratch = join(folder, 'plain-root');
  await mkdir(scratch, { recursive: true });
  const entries = readInitrd(await readFile(image.initrd)).flatMap((segment) => segment.entries);
  for (const { path, content } of entries) {
    const name = /^buildos\/(layer-\d+\.squashfs)$/.exec(path)?.[1];
    if (name !== undefined) await writeFile(join(scratch, name), content());
  }
  const file = join(folder, 'initrd-plain-root');
  await using local = openLocal();
  try {
    await local.run(['unshare', '--mount', 'sh', '-c', SCRIPT, 'sh', scratch, file], { timeoutMs: TIMEOUT_MS });
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
  return file;
}
