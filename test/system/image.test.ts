/** The build host's definition, applied to a real Debian root: what it changes, and that a second time it changes nothing. */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { lines } from '../../connections/connection.ts';
import { openChain } from '../../connections/open.ts';
import { findMirror } from '../../host/apt.ts';
import { debianSources } from '../../host/mmdebstrap.ts';
import { findOrMakeBaseRoot } from '../../image/base-root.ts';
import { bundle } from '../../image/bundle.ts';
import { buildHost } from '../../image/hosts/build-host.ts';
import { checkReport, deploy } from '../../properties/deploy.ts';
import { definitionDigest, hostAttrs } from '../../properties/host-definition.ts';

const CACHE = join(import.meta.dirname, '../../work/cache');

test(
  'the build host: applied a second time, every property holds already and no inode is touched',
  { timeout: 600_000 },
  async () => {
    const scratch = await mkdtemp(join(tmpdir(), 'buildos-image-'));
    try {
      await using local = await openChain([['local']]);
      const one = async (entry: string, name: string): ReturnType<typeof bundle> =>
        await bundle({ entry, outfile: join(scratch, name) });
      const programs = {
        'init.mjs': await one('init/main.ts', 'init.mjs'),
        'monitor.mjs': await one('monitor/main.ts', 'monitor.mjs'),
        'helper.mjs': await one('helper/main.ts', 'helper.mjs'),
      };
      const definition = buildHost({ programs, note: 'for a test' });
      assert.equal(definitionDigest(definition), definitionDigest(buildHost({ programs, note: 'for a test' })));
      assert.notEqual(definitionDigest(definition), definitionDigest(buildHost({ programs, note: 'another' })));

      const base = await findOrMakeBaseRoot(local, {
        suite: definition.base.suite,
        sources: debianSources({ suite: definition.base.suite, mirror: await findMirror(local) }),
        packages: hostAttrs(definition).packages,
        cache: CACHE,
      });
      const root = join(scratch, 'root');
      await local.run(['cp', '--archive', '--reflink=auto', base.folder, root]);
      await using chroot = await openChain([['local'], ['chroot', { into: root }]]);

      const first = await deploy(definition, chroot);
      checkReport(first);
      assert.equal(first.outcome, 'changed');
      const inodes = async (): Promise<readonly string[]> =>
        lines(await local.run(['find', root, '-xdev', '-printf', '%P %i %m %U:%G %s %T@ %C@\n']));
      const before = await inodes();
      const second = await deploy(definition, chroot);
      checkReport(second);
      const changed = second.results.filter(({ outcome }) => outcome !== 'ok');
      assert.deepEqual(
        changed.map(({ description }) => description),
        [],
      );
      assert.deepEqual(await inodes(), before);
    } finally {
      await rm(scratch, { recursive: true, force: true });
    }
  },
);
