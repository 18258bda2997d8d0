/** A package of a lock with one more file in it, as a newer version would be another package. */
import { createHash } from 'node:crypto';
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Connection } from '../../connections/connection.ts';
import type { PackageLock } from '../../manifests/package-lock.ts';

/** @returns the lock with the package replaced; what was made is in the cache, as if it had been fetched */
export async function rebuiltPackage(
  on: Connection,
  options: { readonly lock: PackageLock; readonly name: string; readonly cache: string; readonly folder: string },
): Promise<PackageLock> {
  const { lock, name, cache, folder } = options;
  const old = lock.packages.find((each) => each.name === name);
  if (old === undefined) throw new RangeError(`The lock has no package ${name}`);
  const [tree, deb] = [join(folder, 'package'), join(folder, 'package.deb')];
  await rm(tree, { recursive: true, force: true });
  await on.run(['dpkg-deb', '--raw-extract', join(cache, 'debs', `${old.sha256}.deb`), tree]);
  const version = `${old.version}+bench${Date.now()}`;
  const control = join(tree, 'DEBIAN/control');
  await writeFile(control, (await readFile(control, 'utf8')).replace(/^Version: .*$/m, `Version: ${version}`));
  await mkdir(join(tree, 'usr/share/bench'), { recursive: true });
  await writeFile(join(tree, 'usr/share/bench/version'), version);
  await on.run(['dpkg-deb', '--root-owner-group', '-Zxz', '--build', tree, deb]);
  const content = await readFile(deb);
  const sha256 = createHash('sha256').update(content).digest('hex');
  await rename(deb, join(cache, 'debs', `${sha256}.deb`));
  const made = { ...old, version, sizeBytes: content.length, sha256 };
  return { ...lock, packages: lock.packages.map((each) => (each === old ? made : each)) };
}
