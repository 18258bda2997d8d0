/** The property set on a real Debian root: made once, then left alone; taken back; killed in between. */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, readlinkSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Connection, text } from '../../connections/connection.ts';
import { openChain } from '../../connections/open.ts';
import * as apt from '../../properties/apt.ts';
import { describe, onChange, seq, unapplied, withRequirements } from '../../properties/combinators.ts';
import { atMost } from '../../properties/conditions.ts';
import { type DeployReport, checkReport, deploy } from '../../properties/deploy.ts';
import * as file from '../../properties/file.ts';
import type { HostDefinition } from '../../properties/host-definition.ts';
import * as group from '../../properties/group.ts';
import * as hostname from '../../properties/hostname.ts';
import * as image from '../../properties/image.ts';
import * as kernel from '../../properties/kernel.ts';
import * as locale from '../../properties/locale.ts';
import { planHost } from '../../properties/plan.ts';
import type { PropertyApplication } from '../../properties/property.ts';
import * as sysctl from '../../properties/sysctl.ts';
import * as systemd from '../../properties/systemd.ts';
import * as tmpfiles from '../../properties/tmpfiles.ts';
import * as user from '../../properties/user.ts';
import { type DebianRoot, cannotChroot, leftoversAfter, unpackDebian } from './_debian-root.ts';
import { FAR_PACKAGES } from './_far-host.ts';

const OPTIONS = { timeout: 300_000, skip: cannotChroot };

let debian: DebianRoot;
let root: string;
let inside: Connection;
let source: string;
let folder: string;

before(async () => {
  if (cannotChroot !== false) return;
  debian = unpackDebian(FAR_PACKAGES); // most of what is installed below is there
  root = debian.path;
  folder = mkdtempSync(join(tmpdir(), 'buildos-properties-'));
  source = join(folder, 'source');
  writeFileSync(source, randomBytes(3 * 1024 * 1024));
  inside = await openChain([['local'], ['sudo'], ['chroot', { into: root }]]);
});

after(async () => {
  await inside?.[Symbol.asyncDispose]();
  debian?.[Symbol.dispose]();
  if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
});

function host(...properties: PropertyApplication[]): HostDefinition {
  return { name: 'test', summary: 'a host for tests', base: { distribution: 'debian', suite: 'trixie' }, properties };
}

/** For definitions that are no successors of one another. */
const ALONE = { memory: 'none' } as const;

const UNIT = '[Unit]\nDescription=A test\n[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n';

/** A definition that uses every property of the set. */
function everything(): HostDefinition {
  const sha256 = createHash('sha256').update(readFileSync(source)).digest('hex');
  return host(
    apt.sources(['deb http://deb.debian.org/debian trixie main']),
    apt.configured('90-test', 'APT::Install-Suggests "0";\n'),
    apt.installed(['systemd-sysv', 'openssh-server', 'cron']),
    apt.removed(['sudo']),
    atMost('daily', apt.upgraded()),
    locale.generated(['de_DE.UTF-8']),
    group.present({ name: 'builders', gid: 1234 }),
    user.present({
      name: 'build',
      uid: 1000,
      gid: 1000,
      home: '/build',
      shell: '/bin/bash',
      groups: ['builders', 'adm'],
      makeHome: true,
    }),
    file.directory('/build/deep/er', { owner: 'build:build', mode: 0o750 }),
    file.hasContent('/etc/test/secret', 'a\n', { owner: 'build', mode: 0o600 }),
    file.hasFile('/usr/lib/test/big', { source, sha256 }, { mode: 0o755 }),
    file.hasLines('/etc/services', ['buildos 6969/udp']),
    file.symlink('/usr/local/bin/big', '/usr/lib/test/big'),
    file.absent('/etc/motd'),
    file.symlink('/etc/resolv.conf', '../run/systemd/resolve/stub-resolv.conf'),
    systemd.unit('test.service', UNIT),
    systemd.dropIn('test.service', '10-nice.conf', '[Service]\nNice=5\n'),
    systemd.enabled(['test.service', 'ssh.service']),
    systemd.disabled(['apt-daily.timer', 'apt-daily-upgrade.timer']),
    systemd.masked(['getty@tty1.service', 'never-heard-of.service']),
    systemd.defaultTarget('multi-user.target'),
    hostname.is('build-host'),
    locale.is('C.UTF-8'),
    locale.timezone('Etc/UTC'),
    kernel.modules('test', ['loop']),
    kernel.option('quiet'),
    sysctl.is('test', { 'net.ipv4.ip_forward': 1 }),
    tmpfiles.rule('test', 'd /run/test 0755 root root -'),
    image.excludes(['usr/share/doc/*']),
    describe(
      'two files',
      seq(
        withRequirements(file.hasContent('/srv/d/f', '1'), file.directory('/srv/d', { mode: 0o700 })),
        unapplied(file.hasContent('/srv/never', '1')),
      ),
    ),
    onChange(file.hasContent('/srv/watched', '1'), file.hasContent('/srv/follower', '1')),
    apt.cleaned(),
  );
}

/** Inode, times, mode, owner and link target of all that is there; the time of reading left out. */
function snapshot(): string {
  const format = '%i %T@ %C@ %m %U:%G %s %l %p\\n';
  return execFileSync('find', [root, '-printf', format], { encoding: 'utf8', maxBuffer: 64 * 1024 * 1024 });
}

const outcomes = (report: DeployReport): string[] =>
  report.results.map(
    ({ outcome, description, error }) => `${outcome} ${description}${error === undefined ? '' : ` ${error.message}`}`,
  );

const inRoot = (path: string): string => readFileSync(join(root, path), 'utf8');

test('every property holds after one deploy, and what it says is true', OPTIONS, async () => {
  const definition = everything();
  const { properties: before } = await planHost(definition, inside);
  assert.ok(before.filter(({ state }) => state === 'change').length > 20);
  checkReport(await deploy(definition, inside));

  const status = text(await inside.run(['dpkg-query', '-W', '-f', '${db:Status-Status}', 'cron']));
  assert.equal(status, 'installed');
  assert.ok(!existsSync(join(root, 'usr/bin/sudo')));
  assert.match(inRoot('/etc/passwd'), /^build:x:1000:1000::\/build:\/bin\/bash$/m);
  assert.match(inRoot('/etc/group'), /^builders:x:1234:build$/m);
  assert.match(inRoot('/etc/group'), /^adm:x:4:.*build$/m);
  const secret = statSync(join(root, 'etc/test/secret'));
  assert.deepEqual([secret.uid, secret.gid, secret.mode & 0o7777], [1000, 1000, 0o600]);
  assert.deepEqual(readFileSync(join(root, 'usr/lib/test/big')), readFileSync(source));
  assert.equal(statSync(join(root, 'build/deep/er')).mode & 0o7777, 0o750);
  assert.match(inRoot('/etc/services'), /^buildos 6969\/udp$/m);
  const units = '/etc/systemd/system';
  assert.equal(readlinkSync(join(root, units, 'multi-user.target.wants/test.service')), `${units}/test.service`);
  assert.ok(!existsSync(join(root, units, 'timers.target.wants/apt-daily.timer')));
  assert.equal(readlinkSync(join(root, units, 'getty@tty1.service')), '/dev/null');
  assert.equal(inRoot('/etc/hostname'), 'build-host\n');
  assert.equal(readlinkSync(join(root, 'etc/localtime')), '/usr/share/zoneinfo/Etc/UTC');
  assert.match(text(await inside.run(['locale', '-a'])), /^de_DE\.utf8$/m);
  assert.equal(inRoot('/srv/follower'), '1');
  assert.ok(!existsSync(join(root, 'var/lib/buildos/debts')));
});

test('nothing of the chroot is left in the root, and no service was started', OPTIONS, async () => {
  assert.ok(!existsSync(join(root, 'usr/sbin/policy-rc.d')));
  assert.ok(!existsSync(join(root, 'run/buildos-chroot')));
  assert.deepEqual(await leftoversAfter(root, 2000), []);
});

test('a second deploy says ok for every property and touches no inode', OPTIONS, async () => {
  const before = snapshot();
  const started = performance.now();
  const report = await deploy(everything(), inside);
  const tookMs = performance.now() - started;
  assert.deepEqual(
    outcomes(report).filter((line) => !line.startsWith('ok ')),
    [],
  );
  assert.equal(report.outcome, 'ok');
  assert.equal(snapshot(), before);
  assert.ok(tookMs < 5000, `${tookMs} ms`);
});

test('a plan of a host that is as it should be has nothing to do, and touches nothing', OPTIONS, async () => {
  const before = snapshot();
  const plan = await planHost(everything(), inside);
  assert.equal(plan.outcome, 'ok');
  assert.deepEqual(
    plan.properties.filter(({ state }) => state !== 'ok').map(({ description }) => description),
    [],
  );
  assert.equal(snapshot(), before);
});

test('what drifted is mended, and only that', OPTIONS, async () => {
  rmSync(join(root, 'etc/systemd/system/multi-user.target.wants/test.service'));
  execFileSync('chmod', ['0644', join(root, 'etc/test/secret')]);
  execFileSync('sed', ['-i', 's,/bin/bash$,/bin/sh,', join(root, 'etc/passwd')]);
  const report = await deploy(everything(), inside);
  const changed = report.results.filter(({ outcome }) => outcome !== 'ok').map(({ description }) => description);
  assert.deepEqual(changed, [
    'user build (1000)',
    '/etc/test/secret has its content',
    'enabled: test.service ssh.service',
  ]);
});

test('what can be taken back is, and stays so', OPTIONS, async () => {
  const back = host(
    unapplied(
      seq(
        user.present({ name: 'temp', home: '/nonexistent' }),
        systemd.unit('temp.service', UNIT),
        systemd.enabled(['temp.service']),
        systemd.masked(['temp2.service']),
        file.hasContent('/etc/temp', 'x'),
        apt.installed(['cron']),
      ),
    ),
  );
  const forth = host(
    user.present({ name: 'temp', home: '/nonexistent' }),
    systemd.unit('temp.service', UNIT),
    systemd.enabled(['temp.service']),
    systemd.masked(['temp2.service']),
    file.hasContent('/etc/temp', 'x'),
    apt.installed(['cron']),
  );
  checkReport(await deploy(forth, inside, ALONE));
  assert.equal((await deploy(back, inside, ALONE)).outcome, 'changed');
  for (const path of [
    'etc/temp',
    'etc/systemd/system/temp.service',
    'etc/systemd/system/temp2.service',
    'usr/sbin/cron',
  ]) {
    assert.ok(!existsSync(join(root, path)), path);
  }
  assert.doesNotMatch(inRoot('/etc/passwd'), /^temp:/m);
  const before = snapshot();
  assert.equal((await deploy(back, inside, ALONE)).outcome, 'ok');
  assert.equal(snapshot(), before);
});

test('failures say what failed, where and why; the others are still done', OPTIONS, async () => {
  const report = await deploy(
    host(
      apt.installed(['no-such-package-here']),
      file.hasContent('/etc/passwd/x', 'x'),
      user.present({ name: 'lost', groups: ['no-such-group'] }),
      systemd.enabled(['no-such-unit.service']),
      file.hasContent('/etc/fine', 'x', { owner: 'nobody-here' }),
      file.hasContent('/etc/done', 'x'),
    ),
    inside,
    ALONE,
  );
  const [packages, path, groups, unit, owner, done] = outcomes(report);
  assert.match(packages ?? '', /^failed .*Unable to locate package no-such-package-here/s);
  assert.match(path ?? '', /^failed .*Cannot write \/etc\/passwd\/x/);
  assert.match(groups ?? '', /^failed .*groups that do not exist: no-such-group/);
  assert.match(unit ?? '', /^failed .*no-such-unit\.service.*(does not exist|not found|No such file)/s);
  assert.match(owner ?? '', /^failed .*Cannot write \/etc\/fine: .*invalid (user|group|spec)/s);
  assert.match(done ?? '', /^changed /);
  assert.ok(!existsSync(join(root, 'etc/fine')));
  assert.deepEqual(execFileSync('find', [join(root, 'etc'), '-name', 'fine*'], { encoding: 'utf8' }), '');
});

/** Deploys in a process of its own, to be killed. */
const WORKER = `
import * as file from ${JSON.stringify(join(import.meta.dirname, '../../properties/file.ts'))};
import { deploy } from ${JSON.stringify(join(import.meta.dirname, '../../properties/deploy.ts'))};
import { openChain } from ${JSON.stringify(join(import.meta.dirname, '../../connections/open.ts'))};
const c = await openChain([['local'], ['sudo'], ['chroot', { into: process.argv[1] }]]);
console.log('ready');
for (let round = 0; ; round++) {
  const properties = Array.from({ length: 5 }, (_, i) => file.hasContent('/srv/killed/' + i, String(round).repeat(200_000)));
  await deploy({ name: 'x', summary: '', base: { distribution: 'debian', suite: 'trixie' }, properties }, c, { memory: 'none' });
}
`;

test(
  'a deploy killed at any moment leaves no process, no mount, and every file whole; the next one mends',
  OPTIONS,
  async () => {
    for (let round = 0; round < 6; round++) {
      const child = spawn(process.execPath, ['--input-type=module-typescript', '--eval', WORKER, root], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      await once(child.stdout, 'data');
      await sleep(100 + 37 * round);
      child.kill('SIGKILL');
      await once(child, 'exit');
      assert.deepEqual(await leftoversAfter(root, 3000), []);
      for (let index = 0; index < 5; index++) {
        const path = join(root, 'srv/killed', String(index));
        if (existsSync(path)) assert.equal(statSync(path).size % 200_000, 0, path);
      }
    }
    const mend = host(...Array.from({ length: 5 }, (_, index) => file.hasContent(`/srv/killed/${index}`, 'whole')));
    checkReport(await deploy(mend, inside, ALONE));
    for (let index = 0; index < 5; index++) assert.equal(inRoot(`srv/killed/${index}`), 'whole');
  },
);
