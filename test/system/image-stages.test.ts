/**
 * A root that goes on from a first stage in the cache is the root that is made from nothing, bit for bit, whatever packages
 * are changed, removed or added. The changes are random; the seed is printed, and `BUILDOS_SEED` repeats them. 25 s of CPU.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { openLocal } from '../../connections/local.ts';
import { bootstrapRoot } from '../../image/bootstrap.ts';
import { fetchPackages } from '../../image/deb-cache.ts';
import { Store } from '../../image/store.ts';
import { PackageCache } from '../../image/unpacked-package.ts';
import { openWorkshop } from '../../image/workshop.ts';
import type { LockedPackage, PackageLock } from '../../manifests/package-lock.ts';
import { chooseDebian } from './_small-packages.ts';

const CACHE = join(import.meta.dirname, '../../work/cache');
const STEPS = 2;

/** What is changed from root to root: versions of packages that are made here, 0 for "not there". */
interface Inputs {
  /** Essential, so of the first stage; it is interested in files of others. */
  readonly base: number;
  /** Of the second stage; its script writes down what it sees. */
  readonly seer: number;
  /** Of the second stage; it shares folders with the others, and has files in the folder that `base` looks after. */
  readonly data: number;
}

test('a root from a cached first stage is that of a root from nothing', { timeout: 280_000 }, async (t) => {
  const seed = Number(process.env['BUILDOS_SEED'] ?? Date.now() % 1_000_000);
  t.diagnostic(`BUILDOS_SEED=${seed}`);
  const folder = mkdtempSync(join(tmpdir(), 'buildos-stages-'));
  process.umask(0o022);
  try {
    const debian = await chooseDebian(CACHE);
    const kept = join(folder, 'kept');
    let inputs: Inputs = { base: 1, seer: 1, data: 1 };
    const made = await makeRoot(lockWith(debian, folder, inputs), kept);
    assert.equal(made.stages, 2);
    for (let step = 0; step < STEPS; step += 1) {
      const before = inputs;
      // Every third root or so has another first stage; the others differ in what comes after it.
      const at = (seed + 7 * step) % 9;
      if (at < 3) inputs = { ...inputs, base: inputs.base + 1 };
      if (at !== 1) inputs = { ...inputs, seer: (inputs.seer + at) % 4, data: (inputs.data + 1 + step) % 3 };
      const quick = await makeRoot(lockWith(debian, folder, inputs), kept);
      const clean = await makeRoot(lockWith(debian, folder, inputs), join(folder, `clean-${step}`));
      assert.equal(quick.stages, before.base === inputs.base ? 1 : 2, 'whether the first stage was there');
      assert.equal(clean.stages, 2);
      assert.deepEqual(differences(quick.tree, clean.tree), [], `step ${step}: ${JSON.stringify(inputs)}`);
      assert.equal(quick.sha256, clean.sha256, 'in something that the list does not show');
      assert.match(clean.tree.get('var/lib/dpkg/status') ?? '', / f 644 0:0 /);
      assert.equal(clean.triggered, inputs.data > 0 ? `data-${inputs.data}\n` : '');
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
});

async function makeRoot(
  lock: PackageLock,
  cache: string,
): Promise<{
  readonly stages: number;
  readonly tree: ReadonlyMap<string, string>;
  readonly sha256: string;
  readonly triggered: string;
}> {
  const debs = await fetchPackages({ lock, cache: CACHE });
  mkdirSync(cache, { recursive: true });
  await using workshop = await openWorkshop(join(cache, 'tmp'));
  await using packages = new PackageCache(openLocal(), { folder: join(CACHE, 'debs'), form: 'stages-test' });
  const root = join(workshop.folder, 'root');
  let stages = 0;
  await bootstrapRoot(workshop, {
    lock,
    debs,
    root,
    packages,
    stages: { store: new Store(cache), code: 'test', lock },
    onStep: (step) => (stages += Number(step === 'configure')),
  });
  const list = `find . -mindepth 1 ! -type f -printf '%P\\t %y %m %U:%G %l\\n'
    find . -type f -printf '%P\\t %y %m %U:%G %s %n\\n'
    find . -type f -print0 | xargs -0 sha256sum | sed -E 's/^([0-9a-f]+)  (.*)$/content of \\2\\t\\1/'
    getfattr -R -d -m - . 2>/dev/null | sed 's/^/xattr\\t/' || true`;
  const listed = await workshop.on.run(['sh', '-c', list], { cwd: root });
  const tree = new Map<string, string>();
  for (const line of Buffer.from(listed.stdout).toString('utf8').split('\n')) {
    const [path = '', what = ''] = line.split('\t');
    tree.set(path.replace('content of ./', 'content of '), `${path} ${what}`);
  }
  const image = join(workshop.folder, 'root.squashfs');
  const pack = ['mksquashfs', root, image, '-comp', 'lz4', '-noappend', '-no-progress', '-quiet'];
  await workshop.on.run(['env', '-u', 'SOURCE_DATE_EPOCH', ...pack, '-mkfs-time', '1', '-all-time', '1']);
  const sha256 = createHash('sha256')
    .update(readFileSync(workshop.seen(image)))
    .digest('hex');
  return { stages, tree, sha256, triggered: readFileSync(workshop.seen(join(root, 'var/lib/walk/list')), 'utf8') };
}

function differences(a: ReadonlyMap<string, string>, b: ReadonlyMap<string, string>): string[] {
  const paths = [...new Set([...a.keys(), ...b.keys()])];
  return paths
    .filter((path) => a.get(path) !== b.get(path))
    .map((path) => `${path}: ${a.get(path) ?? 'absent'} and ${b.get(path) ?? 'absent'}`);
}

/** Debian's packages, and ours. */
function lockWith(debian: PackageLock, folder: string, inputs: Inputs): PackageLock {
  const { base, seer, data } = inputs;
  const made = [
    makePackage(folder, 'walk-base', base, {
      'DEBIAN/control': 'Essential: yes\n',
      'DEBIAN/triggers': 'interest-noawait /usr/share/walk\n',
      'DEBIAN/postinst': `#!/bin/sh\nset -e\nmkdir -p /var/lib/walk /usr/share/common-walk\nchmod 2775 /usr/share/common-walk\nls /usr/share/walk 2>/dev/null >/var/lib/walk/list || true\n`,
      'usr/share/walk-base/version': String(base),
    }),
    ...(seer === 0
      ? []
      : [
          makePackage(folder, 'walk-seer', seer, {
            'DEBIAN/postinst': `#!/bin/sh\nset -e\nls -ln /etc /usr/bin | sed -E 's/ [A-Z][a-z]{2} .{8}/ /' >/usr/share/common-walk/seen\ndpkg-query -W >>/usr/share/common-walk/seen\nuseradd --system walker-${seer}\n`,
            'usr/share/common-walk/version': String(seer),
          }),
        ]),
    ...(data === 0
      ? []
      : [
          makePackage(folder, 'walk-data', data, {
            'DEBIAN/conffiles': '/etc/walk.conf\n',
            'etc/walk.conf': `version = ${data}\n`,
            [`usr/share/walk/data-${data}`]: 'data',
            'usr/share/common-walk/data': String(data),
          }),
        ]),
  ];
  const source = debian.sources.length;
  const ours = {
    uri: `file://${folder}`,
    suite: 'walk',
    components: ['main'],
    releaseSha256: '0'.repeat(64),
    releaseDate: '2026-01-01T00:00:00.000Z',
  };
  return {
    ...debian,
    sources: [...debian.sources, ours],
    packages: [...debian.packages, ...made.map((each) => ({ ...each, source }))].toSorted((a, b) =>
      a.name < b.name ? -1 : 1,
    ),
  };
}

function makePackage(
  folder: string,
  name: string,
  version: number,
  files: Readonly<Record<string, string>>,
): Omit<LockedPackage, 'source'> {
  const path = `${name}_${version}_all.deb`;
  const [tree, deb] = [join(folder, `${name}-${version}`), join(folder, path)];
  const fields = `Package: ${name}\nVersion: ${version}\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: test\n`;
  const all = { ...files, 'DEBIAN/control': `${fields}${files['DEBIAN/control'] ?? ''}` };
  for (const [at, text] of Object.entries(all)) {
    mkdirSync(join(tree, dirname(at)), { recursive: true, mode: 0o755 });
    writeFileSync(join(tree, at), text, { mode: at.endsWith('inst') ? 0o755 : 0o644 });
  }
  const env = { ...process.env, SOURCE_DATE_EPOCH: '1767225600' };
  execFileSync('dpkg-deb', ['--root-owner-group', '-Znone', '--build', tree, deb], { stdio: 'ignore', env });
  const content = readFileSync(deb);
  const sha256 = createHash('sha256').update(content).digest('hex');
  return { name, version: String(version), architecture: 'all', path, sizeBytes: content.length, sha256 };
}
