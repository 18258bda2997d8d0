/** In what two images differ, for people who have to find out why. */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { BuiltImage } from '../../image/built-image.ts';

/** Digests of what an image consists of. */
export async function digestsOf(image: BuiltImage): Promise<Readonly<Record<string, string>>> {
  const digest = async (path: string): Promise<string> =>
    createHash('sha256')
      .update(await readFile(path))
      .digest('hex');
  return { buildId: image.buildId, kernel: await digest(image.kernel), initrd: await digest(image.initrd) };
}

/**
 * What two images differ in: the first file of the first layer that differs, by name.
 *
 * @returns undefined when they are the same
 */
export async function firstDifference(a: BuiltImage, b: BuiltImage): Promise<string | undefined> {
  const [one, other] = [await digestsOf(a), await digestsOf(b)];
  if (one['kernel'] !== other['kernel']) return 'the kernel';
  if (one['initrd'] === other['initrd'])
    return one['buildId'] === other['buildId'] ? undefined : `only the build id: ${a.buildId} and ${b.buildId}`;
  const [left, right] = [await unpackLayers(a.initrd), await unpackLayers(b.initrd)];
  try {
    const [was, is] = [listTree(left), listTree(right)];
    for (const path of [...new Set([...was.keys(), ...is.keys()])].sort()) {
      if (was.get(path) !== is.get(path))
        return `/${path}: ${was.get(path) ?? 'absent'} and ${is.get(path) ?? 'absent'}`;
    }
    return `the initrd, outside of the layers (build ids ${a.buildId} and ${b.buildId})`;
  } finally {
    for (const folder of [left, right]) await rm(folder, { recursive: true, force: true });
  }
}

/** `layer-1/…`, `layer-2/…` below a folder. */
async function unpackLayers(initrd: string): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'buildos-layers-'));
  const content = await readFile(initrd);
  for (let at = content.indexOf('hsqs'), n = 1; at !== -1; at = content.indexOf('hsqs', at + 1), n += 1) {
    // bytes_used of the superblock (squashfs.txt), padded to 4 KiB by mksquashfs.
    const size = Number(content.readBigUInt64LE(at + 40));
    if (content.readUInt16LE(at + 28) !== 4 || size > content.length - at) continue;
    const squashfs = join(folder, `${n}.squashfs`);
    writeFileSync(squashfs, content.subarray(at, at + size));
    execFileSync('unsquashfs', ['-quiet', '-no-progress', '-dest', join(folder, `layer-${n}`), squashfs], {
      stdio: 'ignore',
    });
    await rm(squashfs);
    at += size - 1;
  }
  return folder;
}

function listTree(folder: string): ReadonlyMap<string, string> {
  const script =
    "find . -mindepth 1 \\( -type f -printf '%P\\t%y %m %U:%G %s %T@ ' -exec sha256sum {} \\; \\) -o -printf '%P\\t%y %m %U:%G %T@ %l\\n'";
  const text = execFileSync('sh', ['-c', script], { cwd: folder, encoding: 'utf8', maxBuffer: 1 << 28 });
  return new Map(
    text
      .split('\n')
      .filter(Boolean)
      .map((line) => {
        const [path = '', what = ''] = line.split('\t');
        return [path, what];
      }),
  );
}
