/** The stand-ins do nothing where the real helpers would not, and call them everywhere else. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { idleHelpers } from './idle-helpers.ts';

/** @returns whether the real one is called, with the same words; `/var/lib/systemd` is that of `state` */
function standIn(
  t: TestContext,
  program: string,
): (env: Readonly<Record<string, string>>, ...words: string[]) => boolean {
  const folder = mkdtempSync(join(tmpdir(), 'buildos-idle-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const [ahead, real] = [join(folder, 'ahead'), join(folder, 'real')];
  for (const each of [ahead, real]) mkdirSync(each);
  const script = (idleHelpers(ahead)[program] ?? '').replace('/var/lib/systemd', '"$STATE"');
  writeFileSync(join(ahead, program), script, { mode: 0o755 });
  writeFileSync(join(real, program), '#!/bin/sh\necho called "$@"\n', { mode: 0o755 });
  return (env, ...words) => {
    const said = execFileSync(join(ahead, program), words, {
      env: { PATH: `${ahead}:${real}:/usr/bin:/bin`, ...env },
      encoding: 'utf8',
    });
    assert.ok(said === '' || said === `${['called', ...words].join(' ')}\n`, said);
    return said !== '';
  };
}

test('dpkg-maintscript-helper is left out for packages that were never there', (t) => {
  const isCalled = standIn(t, 'dpkg-maintscript-helper');
  const folder = mkdtempSync(join(tmpdir(), 'buildos-idle-'));
  t.after(() => rmSync(folder, { recursive: true }));
  mkdirSync(join(folder, 'folder.dpkg-backup'));
  symlinkSync('nowhere', join(folder, 'link.dpkg-backup'));
  const [folderNow, linkNow, none] = ['folder/', 'link', 'none/'].map((name) => join(folder, name));
  const preinst = { DPKG_MAINTSCRIPT_NAME: 'preinst', version: '9', action: 'upgrade' };
  const postinst = { ...preinst, DPKG_MAINTSCRIPT_NAME: 'postinst' };
  const conffile = ['rm_conffile', '/etc/x', '1~', 'pack'];
  for (const [expected, env, ...words] of [
    [false, preinst, ...conffile, '--', 'install'],
    [false, preinst, ...conffile, '--', 'install', ''],
    [false, preinst, 'mv_conffile', '/etc/x', '/etc/y', '1~', '--', 'install'],
    [false, postinst, 'symlink_to_dir', none, 'to', '1~', '--', 'configure', ''],
    [false, postinst, 'dir_to_symlink', none, 'to', '1~', '--', 'configure', ''],
    [true, postinst, 'dir_to_symlink', folderNow, 'to', '--', 'configure', ''],
    [true, postinst, 'symlink_to_dir', linkNow, 'to', '--', 'configure', ''],
    [true, preinst, ...conffile, '--', 'install', '1.0'],
    [true, preinst, ...conffile, '--', 'upgrade', '1.0'],
    [true, postinst, ...conffile, '--', 'triggered', '/x'],
    [true, { DPKG_MAINTSCRIPT_NAME: 'postrm' }, ...conffile, '--', 'purge'],
    [true, preinst, ...conffile],
    [true, preinst, 'supports', 'rm_conffile'],
    [true, preinst],
  ] as const) {
    assert.equal(isCalled(env, ...words.map(String)), expected, words.join(' '));
  }
});

test('deb-systemd-helper is left out for units of which it knows nothing', (t) => {
  const isCalled = standIn(t, 'deb-systemd-helper');
  const STATE = mkdtempSync(join(tmpdir(), 'buildos-idle-'));
  t.after(() => rmSync(STATE, { recursive: true }));
  const check = (expected: boolean, ...words: string[]): void =>
    assert.equal(isCalled({ STATE }, ...words), expected, words.join(' '));
  check(false, 'unmask', 'a.service');
  check(false, '--user', 'unmask', 'a.service');
  check(false, '--quiet', 'was-enabled', 'a.service');
  check(false, '--quiet', '--user', 'was-enabled', 'a.service');
  check(true, 'was-enabled', 'a.service');
  check(true, '--quiet', 'was-enabled', 'a.service', 'b.service');
  check(true, 'enable', 'a.service');
  check(true, 'debian-installed', 'a.service');
  check(true);

  mkdirSync(join(STATE, 'deb-systemd-helper-enabled'));
  writeFileSync(join(STATE, 'deb-systemd-helper-enabled/a.service.dsh-also'), '');
  check(true, '--quiet', 'was-enabled', 'a.service');
  check(false, '--quiet', 'was-enabled', 'b.service');
  check(false, '--quiet', '--user', 'was-enabled', 'a.service');
  mkdirSync(join(STATE, 'deb-systemd-user-helper-enabled'));
  writeFileSync(join(STATE, 'deb-systemd-user-helper-enabled/a.service.dsh-also'), '');
  check(true, '--quiet', '--user', 'was-enabled', 'a.service');
  for (const masked of ['deb-systemd-helper-masked', 'deb-systemd-user-helper-masked']) {
    mkdirSync(join(STATE, masked));
    check(true, 'unmask', 'b.service');
    check(true, '--user', 'unmask', 'b.service');
    rmSync(join(STATE, masked), { recursive: true });
  }
});
