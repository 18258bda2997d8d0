/**
 * Properties on a host that runs: a Debian booted in a container. Services start, stop and are restarted on change, mounts
 * and names hold at once; what belongs to the kernel of the machine outside is left alone. About 20 seconds.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { hostname as nameOfThisHost, tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { type Connection, lines, text } from '../../connections/connection.ts';
import { openChain } from '../../connections/open.ts';
import * as apt from '../../properties/apt.ts';
import { atEnd, onChange, unapplied } from '../../properties/combinators.ts';
import { whenContained } from '../../properties/conditions.ts';
import { type DeployReport, checkReport, deploy } from '../../properties/deploy.ts';
import * as file from '../../properties/file.ts';
import type { HostDefinition } from '../../properties/host-definition.ts';
import * as hostname from '../../properties/hostname.ts';
import * as kernel from '../../properties/kernel.ts';
import * as mount from '../../properties/mount.ts';
import * as network from '../../properties/network.ts';
import { planHost } from '../../properties/plan.ts';
import type { PropertyApplication } from '../../properties/property.ts';
import * as reboot from '../../properties/reboot.ts';
import * as ssh from '../../properties/ssh.ts';
import * as swap from '../../properties/swap.ts';
import * as sysctl from '../../properties/sysctl.ts';
import * as systemd from '../../properties/systemd.ts';
import * as timer from '../../properties/timer.ts';
import { type DebianRoot, cannotChroot, unpackDebian } from './_debian-root.ts';
import { FAR_PACKAGES } from './_far-host.ts';

const OPTIONS = { timeout: 120_000, skip: cannotChroot };

let debian: DebianRoot;
let root: string;
let booted: Connection;

before(async () => {
  if (cannotChroot !== false) return;
  debian = unpackDebian(FAR_PACKAGES);
  root = debian.path;
  putPackage(join(root, 'srv'));
  rmSync(join(root, 'etc/localtime'), { force: true });
  symlinkSync('/usr/share/zoneinfo/Etc/GMT+1', join(root, 'etc/localtime'));
  booted = await openChain([['nspawn', { directory: root, boot: true, network: false }]]);
});

after(async () => {
  await booted?.[Symbol.asyncDispose]();
  debian?.[Symbol.dispose]();
});

/** A package with a service that its installation starts, as Debian's do. */
function putPackage(into: string): void {
  const folder = mkdtempSync(join(tmpdir(), 'buildos-demo-'));
  try {
    mkdirSync(join(folder, 'DEBIAN'));
    mkdirSync(join(folder, 'usr/lib/systemd/system'), { recursive: true });
    writeFileSync(
      join(folder, 'DEBIAN/control'),
      'Package: demo\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: a service\n',
    );
    const start =
      '#!/bin/sh\nset -e\nsystemctl daemon-reload\nsystemctl enable --quiet demo.service\ndeb-systemd-invoke start demo.service\n';
    writeFileSync(join(folder, 'DEBIAN/postinst'), start, { mode: 0o755 });
    writeFileSync(
      join(folder, 'usr/lib/systemd/system/demo.service'),
      '[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n',
    );
    execFileSync('dpkg-deb', ['--build', '--root-owner-group', folder, join(into, 'demo.deb')], { stdio: 'pipe' });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function host(...properties: PropertyApplication[]): HostDefinition {
  return { name: 'booted', summary: '', base: { distribution: 'debian', suite: 'trixie' }, properties };
}

async function apply(...properties: PropertyApplication[]): Promise<DeployReport> {
  const report = await deploy(host(...properties), booted, { memory: 'none' });
  checkReport(report);
  return report;
}

const outcomes = ({ results }: DeployReport): string[] => results.map(({ outcome }) => outcome);

const show = async (unit: string, property: string): Promise<string> =>
  text(await booted.run(['systemctl', 'show', '--value', `--property=${property}`, unit])).trim();

const isMounted = async (path: string): Promise<boolean> =>
  (await booted.run(['mountpoint', '-q', path], { okStatus: 'any' })).status === 0;

const service = (seconds: number): string =>
  `[Service]\nExecStart=/bin/sleep ${seconds}\nExecReload=/bin/touch /run/was-reloaded\n[Install]\nWantedBy=multi-user.target\n`;

/** The configuration and state of the root; what services write while they run is left out. */
function snapshot(): Set<string> {
  const running = ['var/log', 'var/lib/systemd', 'var/tmp', 'tmp', 'run', 'proc', 'sys', 'dev'];
  const prune = running.flatMap((path, index) => [...(index === 0 ? [] : ['-o']), '-path', join(root, path)]);
  const words = [root, '(', ...prune, ')', '-prune', '-o', '-printf', '%i %T@ %C@ %m %U:%G %s %l %p\\n'];
  return new Set(execFileSync('find', words, { encoding: 'utf8', maxBuffer: 64 * 1024 * 1024 }).split('\n'));
}

const RUNNING: readonly PropertyApplication[] = [
  hostname.is('inner-name'),
  onChange(systemd.unit('test.service', service(1000)), systemd.restarted(['test.service'])),
  systemd.enabled(['test.service']),
  systemd.started(['test.service']),
  systemd.stopped(['ssh.service']),
  systemd.service('own.service', service(3000)),
  timer.runs('cleanup', { calendar: 'daily', command: '/bin/true' }),
  mount.at('/srv/ram', { device: 'tmpfs', type: 'tmpfs', options: ['size=1m'] }),
  mount.at('/srv/later', { device: 'tmpfs', type: 'tmpfs', options: ['noauto'] }),
  network.device('lo', { addresses: ['192.0.2.7/32'] }),
  systemd.started(['systemd-networkd.service']),
];

test('a host that runs: a plan changes nothing, what is deployed holds at once', OPTIONS, async () => {
  const outside = nameOfThisHost();
  const before = snapshot();
  assert.equal(readlinkSync(join(root, 'etc/localtime')), '/usr/share/zoneinfo/Etc/GMT+1'); // booting changed nothing
  const plan = await planHost(host(...RUNNING), booted);
  const planned = plan.properties.flatMap((one) => one.lines);
  for (const line of ['start test.service', 'stop ssh.service', 'mount /srv/ram'])
    assert.ok(planned.includes(line), line);
  assert.deepEqual([...snapshot().symmetricDifference(before)], []);
  const report = await deploy(host(...RUNNING), booted);
  checkReport(report);
  assert.equal(text(await booted.run(['uname', '-n'])), 'inner-name\n');
  assert.equal(nameOfThisHost(), outside);
  assert.equal(await show('test.service', 'ActiveState'), 'active');
  assert.equal(await show('own.service', 'ActiveState'), 'active');
  assert.equal(await show('ssh.service', 'ActiveState'), 'inactive');
  assert.equal(await show('cleanup.timer', 'ActiveState'), 'active');
  assert.ok(await isMounted('/srv/ram'));
  assert.ok(!(await isMounted('/srv/later')));
});

test('networkd takes the address', OPTIONS, async () => {
  for (let left = 100; ; left--) {
    if (text(await booted.run(['cat', '/proc/net/fib_trie'])).includes('192.0.2.7')) return;
    assert.ok(left > 0, text(await booted.run(['networkctl', 'status', '--no-pager', 'lo'], { okStatus: 'any' })));
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
});

test('a second deploy says ok for all, restarts nothing and touches no inode', OPTIONS, async () => {
  const before = snapshot();
  const pid = await show('test.service', 'MainPID');
  assert.equal((await planHost(host(...RUNNING), booted)).outcome, 'ok');
  assert.equal((await deploy(host(...RUNNING), booted)).outcome, 'ok');
  assert.equal(await show('test.service', 'MainPID'), pid);
  assert.deepEqual([...snapshot().symmetricDifference(before)], []);
});

test('what stopped is started, what was unmounted is mounted; another text restarts the service', OPTIONS, async () => {
  const pid = await show('test.service', 'MainPID');
  await booted.run(['umount', '/srv/ram']);
  await booted.run(['systemctl', 'stop', 'cleanup.timer']);
  const definition = host(
    ...RUNNING.map((one) =>
      one.p === 'onChange'
        ? onChange(systemd.unit('test.service', service(2000)), systemd.restarted(['test.service']))
        : one,
    ),
  );
  const report = await deploy(definition, booted, { memory: 'none' });
  assert.deepEqual(
    report.results.filter(({ outcome }) => outcome !== 'ok').map(({ application }) => application.p),
    ['onChange', 'timer.runs', 'mount.at'],
  );
  assert.notEqual(await show('test.service', 'MainPID'), pid);
  assert.match(await show('test.service', 'ExecStart'), /sleep 2000/);
  assert.ok(await isMounted('/srv/ram'));
  assert.equal(await show('cleanup.timer', 'ActiveState'), 'active');
});

test('reloaded: a unit that runs reads anew, one that does not stays so; sshd has its settings', OPTIONS, async () => {
  await apply(systemd.reloaded(['test.service']));
  await booted.run(['test', '-e', '/run/was-reloaded']);
  assert.deepEqual(outcomes(await apply(ssh.settings('quiet', { LogLevel: 'QUIET' }))), ['changed']);
  assert.equal(await show('ssh.service', 'ActiveState'), 'inactive');
  await apply(ssh.hostKeysMadeAtBoot('/state/ssh_host_key'), systemd.started(['ssh.service']));
  assert.ok(existsSync(join(root, 'state/ssh_host_key')) && existsSync(join(root, 'etc/ssh/ssh_host_ed25519_key')));
  assert.match(text(await booted.run(['sshd', '-T'])), /^hostkey \/state\/ssh_host_key$/m);
});

test("the outer kernel's swap, settings and modules are left alone; a container is inside", OPTIONS, async () => {
  const outer = (): string[] =>
    ['/proc/swaps', '/proc/modules', '/proc/sys/kernel/panic']
      .filter((path) => existsSync(path))
      .map((path) => readFileSync(path, 'utf8'));
  const before = outer();
  await apply(
    swap.file('/swapfile', 1),
    sysctl.is('test', { 'kernel.panic': 77 }),
    kernel.modules('test', ['dummy']),
    whenContained(file.hasContent('/etc/where', 'inside'), file.hasContent('/etc/where', 'outside')),
  );
  assert.deepEqual(outer(), before);
  assert.ok(!existsSync(join(root, 'swapfile')));
  assert.match(readFileSync(join(root, 'etc/fstab'), 'utf8'), /^\/swapfile none swap sw 0 0$/m);
  assert.equal(readFileSync(join(root, 'etc/where'), 'utf8'), 'inside');
});

test('services of packages are held back, and are not when that is taken back', OPTIONS, async () => {
  const install = ['dpkg', '--install', '/srv/demo.deb'];
  await apply(apt.servicesHeldBack());
  await booted.run(install);
  assert.equal(await show('demo.service', 'ActiveState'), 'inactive');
  await apply(unapplied(apt.servicesHeldBack()));
  await booted.run(install);
  assert.equal(await show('demo.service', 'ActiveState'), 'active');
});

test('a reboot that several ask for is one, at the end; taken back it does not come', OPTIONS, async () => {
  const wanted = atEnd('reboot', reboot.soon(3600));
  const report = await apply(
    onChange(file.hasContent('/etc/a', '1'), wanted),
    onChange(file.hasContent('/etc/b', '1'), wanted),
    file.hasContent('/etc/c', '1'),
  );
  assert.deepEqual(
    report.atEnd.map(({ description }) => description),
    ['a reboot in 3600 s'],
  );
  const timers = lines(await booted.run(['systemctl', 'list-timers', '--no-legend', 'buildos-reboot*']));
  assert.equal(timers.length, 1, timers.join('\n'));
  await apply(unapplied(reboot.soon(3600)));
  assert.equal(await show('buildos-reboot.timer', 'ActiveState'), 'inactive');
});

test('what leaves the definition no longer runs', OPTIONS, async () => {
  checkReport(await deploy(host(), booted));
  for (const unit of ['test.service', 'own.service', 'cleanup.timer'])
    assert.equal(await show(unit, 'LoadState'), 'not-found', unit);
  assert.equal(await show('ssh.service', 'ActiveState'), 'active');
  assert.ok(!(await isMounted('/srv/ram')));
  assert.doesNotMatch(readFileSync(join(root, 'etc/fstab'), 'utf8'), /srv/);
});
