/**
 * An image as small as it can be, made by the whole pipeline: Debian's essential packages, busybox, and two packages made
 * here, one of which plays the kernel. It does not boot; everything else about it is real.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { openLocal } from '../../connections/local.ts';
import { findMirror } from '../../host/apt.ts';
import { buildImage, type BuildOptions, type BuildResult } from '../../image/build.ts';
import { chooseFromArchives, debianArchives } from '../../image/lock.ts';
import type { LockedPackage, PackageLock } from '../../manifests/package-lock.ts';
import * as apt from '../../properties/apt.ts';
import * as file from '../../properties/file.ts';
import type { HostDefinition } from '../../properties/host-definition.ts';
import * as image from '../../properties/image.ts';
import * as user from '../../properties/user.ts';

/** The demo's and the other tests' cache: what has been downloaded once serves all. */
const CACHE = join(import.meta.dirname, '../../work/cache');
const REQUESTED = ['busybox-static', 'libatomic1', 'libstdc++6'];
const KERNEL = '6.0.0-tiny';

/** What may be changed about the image. */
export interface Inputs {
  /** Content of a file that a property writes. */
  readonly text: string;
  /** Bytes of a file of this machine: a program. */
  readonly program: string;
  /** A property more, or not. */
  readonly user: boolean;
  /** Version of the package `tiny-data`, or not that package. */
  readonly data: string | undefined;
  /** A pattern more among what is left out. */
  readonly exclude: boolean;
  readonly hardware: 'server' | 'vm';
  readonly note: string;
}

export const INPUTS: Inputs = {
  text: 'hello\n',
  program: 'console.log(1);\n',
  user: false,
  data: '1',
  exclude: false,
  hardware: 'vm',
  note: '',
};

/** A folder with what all builds of a test share: packages, and Node packed for stage 1. Removed when disposed. */
export interface SmallImage extends AsyncDisposable {
  readonly folder: string;
  build(work: string, inputs: Inputs, options?: Partial<BuildOptions>): Promise<BuildResult>;
  /** An empty work folder: everything is made anew in it but for what is shared. */
  emptyWork(): Promise<string>;
}

/** Fetches the packages and makes those that are made here. */
export async function openSmallImage(): Promise<SmallImage> {
  const folder = await mkdtemp(join(tmpdir(), 'buildos-small-'));
  const debian = await chooseFromArchives(openLocal(), {
    suite: 'trixie',
    packages: REQUESTED,
    sources: debianArchives({ suite: 'trixie', mirror: await findMirror(openLocal()) }),
    cache: CACHE,
  });
  let works = 0;
  return {
    folder,
    build: async (work, inputs, options = {}) =>
      await buildImage({ ...optionsFor(folder, debian, work, inputs), ...options }),
    emptyWork: async () => {
      const work = join(folder, `work-${(works += 1)}`);
      await mkdir(join(work, 'cache'), { recursive: true });
      for (const name of ['debs', 'node', 'runtime']) {
        await mkdir(join(CACHE, name), { recursive: true });
        symlinkSync(join(CACHE, name), join(work, 'cache', name));
      }
      return work;
    },
    [Symbol.asyncDispose]: async () => await rm(folder, { recursive: true, force: true }),
  };
}

function optionsFor(folder: string, debian: PackageLock, work: string, inputs: Inputs): BuildOptions {
  const made = [makeKernel(folder), ...(inputs.data === undefined ? [] : [makeData(folder, inputs.data)])];
  const names = made.map(({ name }) => name);
  const lock: PackageLock = {
    ...debian,
    requested: [...REQUESTED, ...names].sort(),
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
    packages: [...debian.packages, ...made.map((each) => ({ ...each, source: debian.sources.length }))].sort((a, b) =>
      a.name < b.name ? -1 : 1,
    ),
  };
  const program = join(folder, 'program.mjs');
  writeFileSync(program, inputs.program);
  const sha256 = createHash('sha256').update(inputs.program).digest('hex');
  const definition = ({ note }: { readonly note: string }): HostDefinition => ({
    name: 'tiny',
    summary: 'for a test',
    base: { distribution: 'debian', suite: 'trixie' },
    properties: [
      apt.installed([...REQUESTED, ...names]),
      user.present({ name: 'build', uid: 1000, gid: 1000, home: '/build', shell: '/bin/sh' }),
      ...(inputs.user ? [user.present({ name: 'more', uid: 1001, gid: 1001, home: '/more', shell: '/bin/sh' })] : []),
      file.hasContent('/etc/tiny.conf', inputs.text),
      file.hasContent('/etc/buildos-note', note),
      // A directory that goes away and comes again: what was below must not show through.
      file.absent('/etc/skel'),
      file.directory('/etc/skel'),
      image.excludes([
        'boot/*',
        'usr/share/doc',
        'var/log/*',
        ...(inputs.exclude ? ['usr/share/common-licenses'] : []),
      ]),
      file.hasFile('/usr/lib/program.mjs', { source: program, sha256 }),
    ],
  });
  return {
    definition,
    work,
    lock: { content: lock, file: 'tiny.lock.json' },
    hardware: inputs.hardware,
    note: inputs.note,
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
    // A maintainer script that leaves a trace of what it saw.
    '#!/bin/sh\nset -e\nls /etc | sort > /usr/share/tiny/seen\ndate +%Y >> /usr/share/tiny/seen\n',
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

/** Digests of what an image consists of. */
export async function digestsOf({
  image: built,
}: Pick<BuildResult, 'image'>): Promise<Readonly<Record<string, string>>> {
  const digest = async (path: string): Promise<string> =>
    createHash('sha256')
      .update(await readFile(path))
      .digest('hex');
  return { buildId: built.buildId, kernel: await digest(built.kernel), initrd: await digest(built.initrd) };
}

/**
 * What two images differ in, for people: the first file of the first layer that differs, by name.
 *
 * @returns undefined when they are the same
 */
export async function firstDifference(
  a: Pick<BuildResult, 'image'>,
  b: Pick<BuildResult, 'image'>,
): Promise<string | undefined> {
  const [one, other] = [await digestsOf(a), await digestsOf(b)];
  if (one['buildId'] !== other['buildId']) return `build id: ${one['buildId']} and ${other['buildId']}`;
  if (one['kernel'] !== other['kernel']) return 'the kernel';
  if (one['initrd'] === other['initrd']) return undefined;
  const [left, right] = [await unpackLayers(a.image.initrd), await unpackLayers(b.image.initrd)];
  try {
    const [was, is] = [listTree(left), listTree(right)];
    for (const path of [...new Set([...was.keys(), ...is.keys()])].sort()) {
      if (was.get(path) !== is.get(path))
        return `/${path}: ${was.get(path) ?? 'absent'} and ${is.get(path) ?? 'absent'}`;
    }
    return 'the initrd, outside of the layers';
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
