/** The build host's definition, applied to a real Debian root: what it changes, and that a second time it changes nothing. */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { lines } from '../../connections/connection.ts';
import { openChain } from '../../connections/open.ts';
import { findMirror } from '../../host/apt.ts';
import { findOrMakeBaseRoot, mountBaseRoot } from '../../image/base-root.ts';
import { bundle } from '../../image/bundle.ts';
import { buildHost } from '../../image/hosts/build-host.ts';
import { mountOverlay } from '../../image/layers.ts';
import { chooseFromArchives, debianArchives } from '../../image/lock.ts';
import { SOURCES, sourceDigest } from '../../image/source-digest.ts';
import { Store } from '../../image/store.ts';
import { openWorkshop } from '../../image/workshop.ts';
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

      const attrs = hostAttrs(definition);
      const { suite } = definition.base;
      const store = new Store(CACHE);
      const lock = await chooseFromArchives(local, {
        suite,
        packages: attrs.packages,
        sources: debianArchives({ suite, mirror: await findMirror(local) }),
        cache: CACHE,
      });
      await using workshop = await openWorkshop(scratch);
      // The same key as "image build": what one has made, the other finds.
      const code = await sourceDigest([join(SOURCES, 'image/base-root.ts')], { cache: CACHE });
      const { entry } = await findOrMakeBaseRoot({ store, lock, code, workshop: async () => workshop });
      const { merged: root } = await mountOverlay(workshop, await mountBaseRoot(workshop, entry), []);
      await using chroot = await openChain([...workshop.chain, ['chroot', { into: root }]]);

      const first = await deploy(definition, chroot);
      checkReport(first);
      assert.equal(first.outcome, 'changed');
      const inodes = async (): Promise<readonly string[]> =>
        lines(await workshop.on.run(['find', root, '-xdev', '-printf', '%P %i %m %U:%G %s %T@ %C@\n']));
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
