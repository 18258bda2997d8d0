/**
 * The property set on a Debian root, a row each: planned without a change, applied once, left alone the second time, taken
 * back when it leaves the definition. Nothing of the host that builds is touched, and no secret is seen. About 20 seconds.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { hostname as nameOfThisHost } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { agentBundle } from '../../cli/agent-bundle.ts';
import { type Connection, lines, text } from '../../connections/connection.ts';
import { openChain } from '../../connections/open.ts';
import * as apt from '../../properties/apt.ts';
import * as cron from '../../properties/cron.ts';
import { onChange } from '../../properties/combinators.ts';
import { DataStore } from '../../properties/data.ts';
import { checkReport, deploy } from '../../properties/deploy.ts';
import * as file from '../../properties/file.ts';
import * as group from '../../properties/group.ts';
import type { HostDefinition } from '../../properties/host-definition.ts';
import * as hostname from '../../properties/hostname.ts';
import * as ini from '../../properties/ini.ts';
import * as kernel from '../../properties/kernel.ts';
import * as locale from '../../properties/locale.ts';
import * as mount from '../../properties/mount.ts';
import * as network from '../../properties/network.ts';
import { formatPlan, planHost } from '../../properties/plan.ts';
import type { PropertyApplication } from '../../properties/property.ts';
import * as reboot from '../../properties/reboot.ts';
import * as ssh from '../../properties/ssh.ts';
import * as swap from '../../properties/swap.ts';
import * as sysctl from '../../properties/sysctl.ts';
import * as systemd from '../../properties/systemd.ts';
import * as timer from '../../properties/timer.ts';
import * as tmpfiles from '../../properties/tmpfiles.ts';
import * as user from '../../properties/user.ts';
import { type DebianRoot, cannotChroot, unpackDebian } from './_debian-root.ts';
import { FAR_PACKAGES } from './_far-host.ts';

const OPTIONS = { timeout: 120_000, skip: cannotChroot };

/** A property, and what is true of the root when it was applied. */
interface Row {
  readonly make: PropertyApplication;
  /** Paths and a part of their content; `→` and a target for a link; undefined: nothing is there. */
  readonly files?: Readonly<Record<string, RegExp | string | undefined>>;
  /** `ok`: nothing to do in an image. Default `changed`. */
  readonly outcome?: 'ok';
  /** A line of its plan. */
  readonly plan?: RegExp;
  /** What is not as it was when it has left the definition. Default: nothing. */
  readonly stays?: readonly string[];
}

const HASH = '$6$saltsalt$AbCdEfGhIjKlMnOpQrStUvWxYz0123456789AbCdEfGhIjKlMnOpQrStUvWxYz01234567890AbCdE';
const PRIVATE = 'a private key of three words';
const KEY = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHUvE2kn0Qz1R0vJmGrzq8YcLrbvTq0fXgB4Zf0mJq8s joe@desk';
const UNIT = '[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n';
const UNITS = 'etc/systemd/system';

const ROWS: readonly Row[] = [
  {
    make: apt.source('more', { uris: ['http://192.0.2.1/d'], suites: ['s'], signedBy: '/usr/share/keyrings/x.asc' }),
    files: { 'etc/apt/sources.list.d/more.sources': /^URIs: http:\/\/192\.0\.2\.1\/d$/m },
    plan: /\+Suites: s$/,
  },
  {
    make: apt.pinned('more', [{ packages: ['*'], pin: 'release n=s', priority: 100 }]),
    files: { 'etc/apt/preferences.d/more.pref': /^Pin-Priority: 100$/m },
  },
  {
    make: apt.held(['openssh-server', 'sudo']),
    files: { 'var/lib/dpkg/status': /^Package: sudo\nStatus: hold ok installed$/m },
    plan: /hold sudo/,
    stays: ['var/lib/dpkg/status-old'],
  },
  { make: apt.servicesHeldBack(), files: { 'usr/sbin/policy-rc.d': /exit 101/ } },
  {
    make: cron.job('backup', { schedule: '30 3 * * *', command: 'date +%s' }),
    files: { 'etc/cron.d/backup': '30 3 * * * root date +\\%s\n' },
  },
  { make: group.present({ name: 'builders', gid: 1234 }), files: { 'etc/group': /^builders:x:1234:$/m } },
  {
    make: user.present({ name: 'joe', home: '/home/joe', makeHome: true, shell: '/bin/bash', groups: ['adm'] }),
    files: { 'etc/passwd': /^joe:.*:\/home\/joe:\/bin\/bash$/m, 'home/joe': undefined },
    stays: ['home/joe'],
  },
  {
    make: user.hasPasswordHash('joe', { context: 'test', name: 'joe.hash' }),
    files: { 'etc/shadow': new RegExp(`^joe:${RegExp.escape(HASH)}:`, 'm') },
    plan: /\/etc\/shadow: joe: \[secret\]/,
  },
  {
    make: ssh.authorizedKeys('joe', [KEY]),
    files: { 'home/joe/.ssh/authorized_keys': `${KEY}\n` },
    plan: /there is no user joe yet/,
    stays: ['home/joe/.ssh', 'home/joe/.ssh/authorized_keys'],
  },
  {
    make: ssh.settings('keys-only', { PasswordAuthentication: false }),
    files: { 'etc/ssh/sshd_config.d/keys-only.conf': 'PasswordAuthentication no\n' },
  },
  {
    make: ssh.hostKeysMadeAtBoot('/state/host_key'),
    files: {
      'etc/ssh/ssh_host_ed25519_key': undefined,
      'etc/ssh/ssh_host_rsa_key.pub': undefined,
      'etc/ssh/sshd_config.d/host-key.conf': 'HostKey /state/host_key\n',
      [`${UNITS}/ssh.service.d/host-key.conf`]: /ssh-keygen -q -t ed25519 -N '' -f \/state\/host_key/,
    },
    stays: ['rsa', 'ecdsa', 'ed25519'].flatMap((type) => [
      `etc/ssh/ssh_host_${type}_key`,
      `etc/ssh/ssh_host_${type}_key.pub`,
    ]),
  },
  {
    make: file.hasData('/etc/tls.key', { context: 'test', name: 'tls.key' }),
    files: { 'etc/tls.key': PRIVATE },
    plan: /\/etc\/tls\.key: \[secret\]/,
  },
  {
    make: file.hasAttributes('/etc/debconf.conf', { mode: 0o600 }),
    plan: /0644 root:root → 0600 root:root/,
    stays: ['etc/debconf.conf'],
  },
  { make: file.absent('/etc/motd'), files: { 'etc/motd': undefined }, stays: ['etc/motd'] },
  {
    make: ini.hasSettings('/etc/systemd/journald.conf', 'Journal', { Storage: 'volatile', RuntimeMaxUse: '64M' }),
    files: { 'etc/systemd/journald.conf': /\[Journal\]\nAudit=no\nStorage=volatile\nRuntimeMaxUse=64M\n$/ },
    plan: /\+Storage=volatile/,
  },
  {
    make: hostname.is('inner-name'),
    files: { 'etc/hostname': 'inner-name\n', 'etc/hosts': /^127\.0\.1\.1 inner-name$/m },
    stays: ['etc/hostname', 'etc/hosts'],
  },
  {
    make: locale.is('C.UTF-8'),
    files: { 'etc/locale.conf': 'LANG=C.UTF-8\n', 'etc/default/locale': '→../locale.conf' },
    stays: ['etc/locale.conf', 'etc/default/locale'],
  },
  {
    make: locale.timezone('Etc/GMT+1'),
    files: { 'etc/localtime': '→/usr/share/zoneinfo/Etc/GMT+1' },
    stays: ['etc/localtime'],
  },
  { make: kernel.modules('test', ['dummy']), files: { 'etc/modules-load.d/test.conf': 'dummy\n' } },
  { make: kernel.blocked('no-sound', ['snd']), files: { 'etc/modprobe.d/no-sound.conf': 'blacklist snd\n' } },
  {
    make: kernel.moduleOptions('loop', { loop: 'max_loop=8' }),
    files: { 'etc/modprobe.d/loop.conf': 'options loop max_loop=8\n' },
  },
  { make: kernel.option('quiet'), outcome: 'ok' },
  { make: sysctl.is('test', { 'kernel.panic': 31 }), files: { 'etc/sysctl.d/test.conf': 'kernel.panic = 31\n' } },
  {
    make: mount.at('/srv/data', { device: 'LABEL=data', type: 'ext4', options: ['nofail'], pass: 2 }),
    files: { 'etc/fstab': /^LABEL=data \/srv\/data ext4 nofail 0 2$/m, 'srv/data': undefined },
    plan: /\+LABEL=data \/srv\/data ext4 nofail 0 2/,
    stays: ['srv/data'],
  },
  {
    make: swap.file('/swapfile', 64),
    files: { 'etc/fstab': /^\/swapfile none swap sw 0 0$/m, swapfile: undefined },
  },
  {
    make: network.device('enp1s0', { addresses: ['192.0.2.10/24'] }),
    files: { 'etc/systemd/network/50-enp1s0.network': /^Address=192\.0\.2\.10\/24$/m },
  },
  {
    make: network.file('10-br0.netdev', '[NetDev]\nName=br0\nKind=bridge\n'),
    files: { 'etc/systemd/network/10-br0.netdev': /^Kind=bridge$/m },
  },
  { make: systemd.unit('test.service', UNIT), files: { [`${UNITS}/test.service`]: UNIT } },
  {
    make: systemd.dropIn('test.service', '10-x.conf', '[Service]\nNice=5\n'),
    files: { [`${UNITS}/test.service.d/10-x.conf`]: /Nice=5/ },
  },
  {
    make: systemd.enabled(['test.service']),
    files: { [`${UNITS}/multi-user.target.wants/test.service`]: `→/${UNITS}/test.service` },
  },
  { make: systemd.started(['test.service']), outcome: 'ok' },
  { make: systemd.stopped(['ssh.service']), outcome: 'ok' },
  { make: systemd.restarted(['test.service']), outcome: 'ok' },
  { make: systemd.masked(['e2scrub_reap.service']), files: { [`${UNITS}/e2scrub_reap.service`]: '→/dev/null' } },
  {
    make: systemd.disabled(['apt-daily.timer']),
    files: { [`${UNITS}/timers.target.wants/apt-daily.timer`]: undefined },
  },
  {
    make: systemd.defaultTarget('rescue.target'),
    files: { [`${UNITS}/default.target`]: '→/usr/lib/systemd/system/rescue.target' },
  },
  {
    make: timer.runs('cleanup', { calendar: 'daily', command: '/bin/true' }),
    files: {
      [`${UNITS}/cleanup.service`]: /^Type=oneshot$/m,
      [`${UNITS}/timers.target.wants/cleanup.timer`]: `→/${UNITS}/cleanup.timer`,
    },
  },
  { make: tmpfiles.rule('test', 'd /run/test 0755 root root -'), files: { 'etc/tmpfiles.d/test.conf': /\/run\/test/ } },
  {
    make: onChange(file.hasContent('/etc/default/needs-a-reboot', 'x'), reboot.atEnd()),
    files: { 'etc/default/needs-a-reboot': 'x' },
  },
];

/** Folders that were made for files stay; and what tools of Debian leave when accounts and packages come and go. */
const TRACES =
  /^(etc\/modprobe\.d|etc\/systemd\/system\/[a-z]+\.service\.d|etc\/(passwd|group|shadow|gshadow|subuid|subgid)-?|etc\/\.pwd\.lock|var\/lib\/buildos(\/.*)?|var\/lib\/systemd(\/.*)?|var\/log(\/.*)?|var\/cache(\/.*)?|var\/lib\/(apt|dpkg)\/(lock.*|.*\/lock))$/;

let debian: DebianRoot;
let root: string;
let inside: Connection;
/** Every word that a program was started with, and all that plans and reports said. */
const started: string[] = [];
const said: string[] = [];
const data = new DataStore([
  {
    about: 'this test',
    find: async ({ name }) => ({ version: 1, read: async () => (name === 'joe.hash' ? `${HASH}\n` : PRIVATE) }),
  },
]);

before(async () => {
  if (cannotChroot !== false) return;
  debian = unpackDebian(FAR_PACKAGES);
  root = debian.path;
  writeFileSync(join(root, 'etc/motd'), 'hello\n');
  writeFileSync(join(root, 'etc/hosts'), '127.0.0.1 localhost\n');
  writeFileSync(join(root, 'etc/systemd/journald.conf'), '# ours\n[Journal]\nAudit=no\n');
  mkdirSync(join(root, 'etc/cron.d'), { recursive: true });
  const opened = await openChain([['chroot.fork', { into: root }]], { agent: agentBundle() });
  inside = {
    ...opened,
    run: async (argv, options) => {
      started.push([...argv, ...Object.values(options?.env ?? {})].join(' '));
      return await opened.run(argv, options);
    },
  };
});

after(async () => {
  await inside?.[Symbol.asyncDispose]();
  debian?.[Symbol.dispose]();
});

function host(rows: readonly Row[]): HostDefinition {
  const properties = rows.map(({ make }) => make);
  return { name: 'set', summary: 'all of it', base: { distribution: 'debian', suite: 'trixie' }, properties };
}

/** Inode, times, mode, owner, size and link target of all that is there; the time of reading left out. */
function snapshot(): Set<string> {
  const words = [root, '-printf', '%i %T@ %C@ %m %U:%G %s %l %p\\n'];
  return new Set(execFileSync('find', words, { encoding: 'utf8', maxBuffer: 64 * 1024 * 1024 }).split('\n'));
}

/** Nothing was written, not even the same again. */
function assertUntouched(before: ReadonlySet<string>): void {
  assert.deepEqual([...snapshot().symmetricDifference(before)], []);
}

/** Type, mode, owner and content by path, without inodes and times. */
function contents(): Map<string, string> {
  const found = new Map<string, string>();
  const visit = (folder: string): void => {
    for (const name of readdirSync(join(root, folder)).sort()) {
      const path = folder === '' ? name : `${folder}/${name}`;
      const full = join(root, path);
      const state = lstatSync(full);
      const mark = `${state.mode.toString(8)} ${state.uid}:${state.gid}`;
      if (state.isSymbolicLink()) found.set(path, `${mark} → ${readlinkSync(full)}`);
      else if (state.isFile())
        found.set(path, `${mark} ${state.size > 200_000 ? state.size : readFileSync(full, 'latin1')}`);
      else found.set(path, mark);
      if (state.isDirectory() && !/^(usr\/(share|lib|bin)|proc|sys|dev)$/.test(path)) visit(path);
    }
  };
  visit('');
  return found;
}

let asItWas = new Map<string, string>();

test('a plan says of each what would change, and changes nothing', OPTIONS, async () => {
  const before = snapshot();
  const plan = await planHost(host(ROWS), inside, { data });
  assertUntouched(before);
  const lines = plan.properties.flatMap((one) => [one.description, ...one.lines]);
  said.push(formatPlan(plan), JSON.stringify(plan));
  for (const { plan: wanted } of ROWS)
    if (wanted !== undefined)
      assert.ok(
        lines.some((line) => wanted.test(line)),
        `${wanted.source}\n${lines.join('\n')}`,
      );
});

test('each is applied once and holds', OPTIONS, async () => {
  asItWas = contents();
  const report = await deploy(host(ROWS), inside, { data, onProgress: (one) => said.push(JSON.stringify(one)) });
  said.push(JSON.stringify(report));
  checkReport(report);
  for (const [index, { make, files = {}, outcome = 'changed' }] of ROWS.entries()) {
    const result = report.results[index];
    assert.equal(result?.outcome, outcome, `${make.p}: ${result?.description}`);
    for (const [path, wanted] of Object.entries(files)) {
      const full = join(root, path);
      if (wanted === undefined) assert.equal(existsSync(full) && statSync(full).isFile(), false, path);
      else if (typeof wanted === 'string' && wanted.startsWith('→')) assert.equal(readlinkSync(full), wanted.slice(1));
      else if (typeof wanted === 'string') assert.equal(readFileSync(full, 'utf8'), wanted);
      else assert.match(readFileSync(full, 'utf8'), wanted);
    }
  }
  assert.equal(statSync(join(root, 'home/joe/.ssh/authorized_keys')).mode & 0o7777, 0o600);
  assert.equal(statSync(join(root, 'home/joe/.ssh')).uid, statSync(join(root, 'home/joe')).uid);
  assert.ok(!existsSync(join(root, 'var/lib/buildos/debts')));
});

test('sshd, systemd, apt and cron take what was written', OPTIONS, async () => {
  const sshd = 'mkdir -p /run/sshd /state; ssh-keygen -q -t ed25519 -N "" -f /state/host_key; sshd -T; rm -r /state';
  assert.match(text(await inside.run(['sh', '-ec', sshd])), /^passwordauthentication no$/m);
  await inside.run(['systemd-analyze', 'verify', '--man=no', '/etc/systemd/system/cleanup.timer']);
  assert.match(text(await inside.run(['apt-cache', 'policy'])), /^ +100 .*192\.0\.2\.1|Pinned packages:/m);
  assert.deepEqual(lines(await inside.run(['apt-mark', 'showhold'])), ['openssh-server', 'sudo']);
  assert.equal(
    text(await inside.run(['findmnt', '--fstab', '--noheadings', '--output=FSTYPE', '/srv/data'])).trim(),
    'ext4',
  );
});

test('then a plan has nothing to do, and neither it nor another deploy touches an inode', OPTIONS, async () => {
  const before = snapshot();
  const plan = await planHost(host(ROWS), inside, { data, memory: 'none' });
  assert.deepEqual(
    plan.properties.filter(({ state }) => state !== 'ok').map(({ description }) => description),
    [],
  );
  const report = await deploy(host(ROWS), inside, { data });
  assert.equal(
    report.outcome,
    'ok',
    JSON.stringify(
      report.results.filter(({ outcome }) => outcome !== 'ok'),
      undefined,
      1,
    ),
  );
  assertUntouched(before);
});

test(
  'in an image services do not start; name, clock, firmware and boot of the host that builds it are out of reach',
  OPTIONS,
  async () => {
    const outside = nameOfThisHost();
    await inside.run(['hostname', 'another']);
    assert.equal(nameOfThisHost(), outside);
    const effective = BigInt(
      `0x${/^CapEff:\s*(\w+)$/m.exec(text(await inside.run(['cat', '/proc/self/status'])))?.[1]}`,
    );
    // linux/capability.h
    const capabilities = { CAP_SYS_MODULE: 16n, CAP_SYS_RAWIO: 17n, CAP_SYS_BOOT: 22n, CAP_SYS_TIME: 25n };
    for (const [name, bit] of Object.entries(capabilities)) assert.equal((effective >> bit) & 1n, 0n, name);
    const script =
      'test -e /run/systemd/system || test -d /sys/firmware/efi/efivars && test -w /sys/firmware/efi/efivars';
    assert.notEqual((await inside.run(['sh', '-c', script], { okStatus: 'any' })).status, 0);
    assert.notEqual((await inside.run(['sh', '-c', ': > /sys/power/state'], { okStatus: 'any' })).status, 0);
    const boot = text(await inside.run(['stat', '-c', '%d:%i', '/boot'])).trim();
    const own = statSync(join(root, 'boot'));
    assert.equal(boot, `${own.dev}:${own.ino}`);
    const { stderr } = await inside.run(['systemctl', 'start', 'ssh.service']);
    assert.match(Buffer.from(stderr).toString(), /Running in chroot, ignoring command 'start'/);
  },
);

test('no secret was an argument of a program, or said, or kept, but in its file', OPTIONS, () => {
  const kept = ['var/lib/buildos', 'var/log']
    .flatMap((folder) => readdirSync(join(root, folder), { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile())
    .map((entry) => readFileSync(join(entry.parentPath, entry.name), 'latin1'));
  assert.ok(started.length > 100 && said.length > 50 && kept.length > 0);
  const shapes = [HASH, PRIVATE].flatMap((secret) => [
    secret,
    Buffer.from(secret).toString('base64'),
    Buffer.from(secret).toString('hex'),
    JSON.stringify(secret).slice(1, -1),
  ]);
  for (const one of [...started, ...said, ...kept]) for (const shape of shapes) assert.ok(!one.includes(shape), one);
});

test('what leaves the definition is taken back; what has no way back is said to stay', OPTIONS, async () => {
  const plan = await planHost(host([]), inside, { data });
  assert.deepEqual(plan.warnings.map((line) => line.replace(/ left the definition.*/, '')).sort(), [
    '"/etc/debconf.conf has its mode and owner"',
    '"/etc/motd is absent"',
  ]);
  checkReport(await deploy(host([]), inside, { data }));
  const now = contents();
  const stays = new Set(ROWS.flatMap(({ stays: paths = [] }) => paths));
  const differing = [...new Set([...asItWas.keys(), ...now.keys()])].filter(
    (path) => asItWas.get(path) !== now.get(path) && !stays.has(path) && !TRACES.test(path),
  );
  assert.deepEqual(differing, []);
  for (const path of ['etc/passwd', 'etc/group', 'etc/shadow'])
    assert.doesNotMatch(readFileSync(join(root, path), 'utf8'), /^(joe|builders):/m);
  const before = snapshot();
  assert.equal((await deploy(host([]), inside, { data })).outcome, 'ok');
  assertUntouched(before);
});
