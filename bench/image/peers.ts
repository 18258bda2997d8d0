/**
 * What images are made with elsewhere: mkosi of Debian sid, and mmdebstrap, cpio and zstd by hand. Both run in a root of
 * Debian stable of their own, so that nothing of them is installed here, and on the packages that ours is made of.
 */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Connection } from '../../connections/connection.ts';
import { openChain } from '../../connections/open.ts';
import { findMirror } from '../../host/apt.ts';
import { findOrMakeBaseRoot, mountBaseRoot } from '../../image/base-root.ts';
import { fetchPackages } from '../../image/deb-cache.ts';
import { mountOverlay } from '../../image/layers.ts';
import { chooseFromArchives } from '../../image/lock.ts';
import { Store } from '../../image/store.ts';
import { openWorkshop } from '../../image/workshop.ts';
import type { PackageLock } from '../../manifests/package-lock.ts';

/** In the peers' root: tools, and what mkosi needs of Python and of its sandbox. */
const TOOLS = [
  'mmdebstrap',
  'cpio',
  'zstd',
  'xz-utils',
  'python3',
  'python3-pefile',
  'kmod',
  'ca-certificates',
  'gnupg',
  'systemd',
  'uidmap',
];

/** Where things are in the peers' root. */
const MKOSI = '/opt/mkosi';
const WORK = '/bench';

/** Peers that are ready to build. */
export interface Peers extends AsyncDisposable {
  readonly versions: readonly string[];
  /** How to start them, in the root. */
  readonly on: Connection;
  /** mmdebstrap from the packages that are here already, then cpio and zstd -3. */
  readonly mmdebstrap: readonly string[];
  /** mkosi with its cache of packages; `incremental`: with its cache of the tree, too, and one file that is new. */
  readonly mkosi: readonly string[];
  readonly incremental: readonly string[];
  /** Builds once what the two have in their caches. */
  readonly prime: readonly string[];
}

/**
 * Makes the root, and puts the packages of a lock where the peers look for them.
 *
 * @param cache - kept from run to run
 */
export async function openPeers(
  local: Connection,
  options: { readonly lock: PackageLock; readonly packages: readonly string[]; readonly cache: string },
): Promise<Peers> {
  const { lock, cache } = options;
  await using stack = new AsyncDisposableStack();
  const mirror = await findMirror(local);
  const choose = async (suite: string, packages: readonly string[]): Promise<PackageLock> =>
    await chooseFromArchives(local, {
      suite,
      packages,
      sources: [{ uri: mirror, suite, components: ['main'] }],
      cache,
    });
  const workshop = stack.use(await openWorkshop(join(cache, 'bench')));
  const tools = await choose('trixie', TOOLS);
  const made = { store: new Store(cache), lock: tools, code: 'bench', workshop: async () => workshop };
  const { entry } = await findOrMakeBaseRoot(made);
  const { merged: root } = await mountOverlay(workshop, await mountBaseRoot(workshop, entry), []);

  const sid = await choose('sid', ['mkosi']);
  const mkosi = { ...sid, packages: sid.packages.filter(({ name }) => name === 'mkosi') };
  const [deb = ''] = await fetchPackages({ lock: mkosi, cache });
  await workshop.on.run(['dpkg-deb', '--extract', deb, join(root, MKOSI)]);

  // As apt names them in its cache, so that neither peer downloads anything.
  const inRoot = (path: string): string => workshop.seen(join(root, path));
  const debs = await fetchPackages({ lock, cache });
  const copies = lock.packages.flatMap(({ name, version, architecture }, index) => {
    return [debs[index] ?? '', `${name}_${version.replace(':', '%3a')}_${architecture}.deb`];
  });
  const archives = `${WORK}/archives`;
  await workshop.on.run(['mkdir', '-p', join(root, archives), join(root, WORK, 'mkosi/extra/etc')]);
  await workshop.on.run([
    'sh',
    '-ec',
    'while [ $# -gt 1 ]; do cp "$1" "$0/$2"; shift 2; done',
    join(root, archives),
    ...copies,
  ]);

  const source = `deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirror} trixie main`;
  const sources = `Types: deb\nURIs: ${mirror}\nSuites: trixie\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n`;
  await writeFile(inRoot(`${WORK}/mmdebstrap.sh`), mmdebstrapScript(options.packages, source, archives));
  await writeFile(inRoot(`${WORK}/mkosi.sh`), mkosiScript(sources));
  await writeFile(inRoot(`${WORK}/mkosi/mkosi.conf`), mkosiConf(options.packages));
  const on = stack.use(await openChain([...workshop.chain, ['chroot', { into: root }]]));
  const held = stack.move();
  const versionOf = (from: PackageLock, name: string): string =>
    `${name} ${from.packages.find((each) => each.name === name)?.version ?? '?'}`;
  return {
    versions: [versionOf(mkosi, 'mkosi'), versionOf(tools, 'mmdebstrap'), `${lock.packages.length} packages`],
    on,
    mmdebstrap: ['sh', `${WORK}/mmdebstrap.sh`],
    mkosi: ['sh', `${WORK}/mkosi.sh`, 'no'],
    incremental: ['sh', `${WORK}/mkosi.sh`, 'yes'],
    prime: ['sh', '-c', `sh ${WORK}/mkosi.sh no && sh ${WORK}/mkosi.sh yes`],
    [Symbol.asyncDispose]: async () => await held.disposeAsync(),
  };
}

/** As the spec's figures were measured: no documentation, no initrd of the distribution's, the archives' packages at hand. */
const mmdebstrapScript = (packages: readonly string[], source: string, archives: string): string => `
set -e
export INITRD=No SOURCE_DATE_EPOCH=1767225600 TMPDIR=${WORK}
rm -rf ${WORK}/root ${WORK}/image.cpio.zst
mmdebstrap --quiet --variant=minbase --include=${packages.join(',')} --mode=root --skip=download/empty \\
  --aptopt='Acquire::Languages "none"' --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \\
  --dpkgopt='path-exclude=/usr/share/locale/*' --setup-hook='mkdir -p $1/var/cache/apt/archives && cp ${archives}/*.deb $1/var/cache/apt/archives/' \\
  trixie ${WORK}/root '${source}'
cd ${WORK}/root
find . -path ./boot -prune -o -print0 | LC_ALL=C sort -z | cpio --quiet --null --create --format=newc --reproducible |
  zstd -q -3 -T0 -o ${WORK}/image.cpio.zst
cp boot/vmlinuz-* ${WORK}/kernel`;

const mkosiScript = (sources: string): string => `
set -e
cd ${WORK}/mkosi
mkdir -p out packages cache-no cache-yes ${WORK}/workspace mkosi.sandbox/etc/apt/sources.list.d
printf '${sources.replaceAll('\n', '\\n')}' >mkosi.sandbox/etc/apt/sources.list.d/mkosi.sources
date +%N >extra/etc/one-file
mkdir -p packages/var/cache/apt/archives packages/cache/apt/archives
cp -n ${WORK}/archives/*.deb packages/cache/apt/archives/
exec env PYTHONPATH=${MKOSI}/usr/lib/python3/dist-packages python3 -m mkosi --force --incremental="$1" \\
  --cache-directory="cache-$1" build`;

const mkosiConf = (packages: readonly string[]): string => `
[Distribution]
Distribution=debian
Release=trixie
[Output]
Format=cpio
CompressOutput=zstd
CompressLevel=3
OutputDirectory=out
[Build]
PackageCacheDirectory=packages
WorkspaceDirectory=${WORK}/workspace
WithNetwork=yes
[Content]
Bootable=no
WithDocs=no
SourceDateEpoch=1767225600
ExtraTrees=extra
Packages=${packages.join(' ')} apt
`;
