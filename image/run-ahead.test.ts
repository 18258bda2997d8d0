/** The stand-in of dpkg-maintscript-helper does nothing where the real one would not, and calls it everywhere else. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { openLocal } from '../connections/local.ts';
import { AHEAD_FOLDER, runAhead } from './run-ahead.ts';

test('dpkg-maintscript-helper is left out for packages that were never there, and only for those', async (t) => {
  const root = mkdtempSync(join(tmpdir(), 'buildos-ahead-'));
  t.after(() => rmSync(root, { recursive: true }));
  mkdirSync(join(root, 'var/lib/dpkg'), { recursive: true });
  const real = join(root, 'real');
  mkdirSync(real);
  writeFileSync(join(real, 'dpkg-maintscript-helper'), '#!/bin/sh\necho called "$@"\n', { mode: 0o755 });
  mkdirSync(join(root, 'folder.dpkg-backup'));
  symlinkSync('nowhere', join(root, 'link.dpkg-backup'));
  {
    await using ahead = await runAhead(openLocal(), { path: root, seen: root });
    assert.equal(ahead.indexed, undefined);
    const isCalled = (script: string, ...words: string[]): boolean => {
      const env = { PATH: `${AHEAD_FOLDER}:${real}:/usr/bin:/bin`, DPKG_MAINTSCRIPT_NAME: script, version: '9' };
      const said = execFileSync(join(root, AHEAD_FOLDER, 'dpkg-maintscript-helper'), words, { env, encoding: 'utf8' });
      assert.ok(said === '' || said === `${['called', ...words].join(' ')}\n`, said);
      return said !== '';
    };
    const conffile = ['rm_conffile', '/etc/x', '1~', 'pack'];
    assert.equal(isCalled('preinst', ...conffile, '--', 'install'), false);
    assert.equal(isCalled('preinst', ...conffile, '--', 'install', ''), false);
    assert.equal(isCalled('preinst', 'mv_conffile', '/etc/x', '/etc/y', '1~', '--', 'install'), false);
    assert.equal(isCalled('postinst', 'symlink_to_dir', join(root, 'none'), 'to', '1~', '--', 'configure', ''), false);
    assert.equal(isCalled('postinst', 'dir_to_symlink', join(root, 'none/'), 'to', '1~', '--', 'configure', ''), false);

    assert.equal(isCalled('postinst', 'dir_to_symlink', join(root, 'folder/'), 'to', '--', 'configure', ''), true);
    assert.equal(isCalled('postinst', 'symlink_to_dir', join(root, 'link'), 'to', '--', 'configure', ''), true);
    assert.equal(isCalled('preinst', ...conffile, '--', 'install', '1.0'), true);
    assert.equal(isCalled('preinst', ...conffile, '--', 'upgrade', '1.0'), true);
    assert.equal(isCalled('postinst', ...conffile, '--', 'triggered', '/x'), true);
    assert.equal(isCalled('postrm', ...conffile, '--', 'purge'), true);
    assert.equal(isCalled('preinst', ...conffile), true);
    assert.equal(isCalled('preinst', 'supports', 'rm_conffile'), true);
    assert.equal(isCalled('preinst'), true);
  }
  assert.equal(existsSync(join(root, AHEAD_FOLDER)), false);
});
