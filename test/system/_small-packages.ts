/** The packages of the small image: Debian's, chosen now, and two that are made here, one of which plays the kernel. */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { openLocal } from '../../connections/local.ts';
import { findMirror } from '../../host/apt.ts';
import { chooseFromArchives, debianArchives } from '../../image/lock.ts';
import type { LockedPackage, PackageLock } from '../../manifests/package-lock.ts';
import { REQUESTED } from './_small-host.ts';

const KERNEL = '6.0.0-tiny';

/** Chooses Debian's packages; `cache` as in {@link chooseFromArchives}. */
export async function chooseDebian(cache: string): Promise<PackageLock> {
  const mirror = await findMirror(openLocal());
  const sources = debianArchives({ suite: 'trixie', mirror });
  return await chooseFromArchives(openLocal(), { suite: 'trixie', packages: REQUESTED, sources, cache });
}

/**
 * Adds the packages that are made here to Debian's.
 *
 * @param folder - for the .debs, which is also the archive that the lock names
 * @param data - version of the package `tiny-data`, or not that package
 */
export function smallLock(debian: PackageLock, folder: string, data: string | undefined): PackageLock {
  const made = [makeKernel(folder), ...(data === undefined ? [] : [makeData(folder, data)])];
  const source = debian.sources.length;
  return {
    ...debian,
    requested: [...REQUESTED, ...made.map(({ name }) => name)].sort(),
    sources: [
      ...debian.sources,
      {
        uri: `file://${folder}`,
        suite: 'tiny',
        components: ['main'],
        releaseSha256: '0'.repeat(64),
        releaseDate: '2026-01-01T00:00:00.000Z',
      },
    ],
    packages: [...debian.packages, ...made.map((each) => ({ ...each, source }))].sort((a, b) =>
      a.name < b.name ? -1 : 1,
    ),
  };
}

const makeKernel = (folder: string): Omit<LockedPackage, 'source'> =>
  makePackage(folder, 'tiny-kernel', '1', {
    [`boot/vmlinuz-${KERNEL}`]: 'a kernel',
    [`usr/lib/modules/${KERNEL}/modules.dep`]: '',
    [`usr/lib/modules/${KERNEL}/modules.order`]: '',
    [`usr/lib/modules/${KERNEL}/modules.builtin`]: 'kernel/fs/squashfs/squashfs.ko\n',
    [`usr/lib/modules/${KERNEL}/modules.builtin.modinfo`]: 'squashfs.license=GPL\0',
  });

const makeData = (folder: string, version: string): Omit<LockedPackage, 'source'> =>
  makePackage(
    folder,
    'tiny-data',
    version,
    { 'usr/share/tiny/data': `version ${version}\n`, 'etc/tiny-data.conf': 'a = 1\n' },
    // A maintainer script that leaves a trace of what it saw, and of the time that it was told.
    '#!/bin/sh\nset -e\nstat --format="%n %a" /etc/* >/usr/share/tiny/seen\numask >>/usr/share/tiny/seen\n' +
      'locale >>/usr/share/tiny/seen\ndate --date="@$SOURCE_DATE_EPOCH" >>/usr/share/tiny/seen\n',
  );

function makePackage(
  folder: string,
  name: string,
  version: string,
  files: Readonly<Record<string, string>>,
  postinst?: string,
): Omit<LockedPackage, 'source'> {
  const path = `${name}_${version}_all.deb`;
  const deb = join(folder, path);
  const tree = join(folder, 'packages', `${name}-${version}`);
  const write = (at: string, text: string, mode = 0o644): void => {
    mkdirSync(dirname(join(tree, at)), { recursive: true, mode: 0o755 });
    writeFileSync(join(tree, at), text, { mode });
  };
  for (const [at, text] of Object.entries(files)) write(at, text);
  if (files['etc/tiny-data.conf'] !== undefined) write('DEBIAN/conffiles', '/etc/tiny-data.conf\n');
  if (postinst !== undefined) write('DEBIAN/postinst', postinst, 0o755);
  write(
    'DEBIAN/control',
    `Package: ${name}\nVersion: ${version}\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: test\n`,
  );
  const env = { ...process.env, SOURCE_DATE_EPOCH: '1767225600' };
  execFileSync('dpkg-deb', ['--root-owner-group', '-Znone', '--build', tree, deb], { stdio: 'ignore', env });
  const content = readFileSync(deb);
  const sha256 = createHash('sha256').update(content).digest('hex');
  return { name, version, architecture: 'all', path, sizeBytes: content.length, sha256 };
}
