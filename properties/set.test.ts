/** The property set, without a host: which arguments are refused, what does not go together, what texts come of it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type FstabEntry, hasEntry, withEntry, withoutEntry } from './_fstab.ts';
import { toyDefinition } from './_toy.ts';
import * as apt from './apt.ts';
import { PropertyArgumentError } from './args.ts';
import * as cron from './cron.ts';
import * as file from './file.ts';
import * as group from './group.ts';
import { hostAttrs } from './host-definition.ts';
import * as hostname from './hostname.ts';
import * as ini from './ini.ts';
import * as kernel from './kernel.ts';
import * as locale from './locale.ts';
import * as mount from './mount.ts';
import * as network from './network.ts';
import { InapplicablePropertyError, type PropertyApplication, readRegistered } from './property.ts';
import * as reboot from './reboot.ts';
import * as ssh from './ssh.ts';
import * as swap from './swap.ts';
import * as sysctl from './sysctl.ts';
import * as systemd from './systemd.ts';
import * as timer from './timer.ts';
import * as tmpfiles from './tmpfiles.ts';
import * as user from './user.ts';

const SHA = { source: '/x', sha256: '0'.repeat(63) };

/** The call, the argument that is wrong, a part of the reason. */
const REFUSED: readonly (readonly [make: () => PropertyApplication, argument: string | undefined, reason: RegExp])[] = [
  [() => apt.installed(['Not A Name']), 'names', /\[0\].*cannot be the name of a package/],
  [() => apt.removed([]), 'names', /must not be empty/],
  [() => apt.sources(['http://deb.debian.org']), 'lines', /not a line like/],
  [() => apt.source('a/b', { uris: ['http://x'], suites: ['x'], signedBy: '/k' }), 'name', /apt reads no other file/],
  [() => apt.source('a', { uris: ['nowhere'], suites: ['x'], signedBy: '/k' }), 'source', /\.uris\[0\].*a URL/],
  [() => apt.source('a', { uris: ['http://x'], suites: ['x'], signedBy: 'k' }), 'source', /\.signedBy.*keyring/],
  [
    () => apt.source('a', { uris: ['http://x'], suites: ['./'], components: ['main'], signedBy: '/k' }),
    undefined,
    /has no components/,
  ],
  [() => apt.pinned('a', [{ packages: ['x'], pin: 'trixie', priority: 1 }]), 'pins', /"release …"/],
  [() => apt.held([]), 'names', /must not be empty/],
  [() => cron.job('a.b', { schedule: '@daily', command: 'x' }), 'name', /cron reads no other file/],
  [() => cron.job('a', { schedule: '* * *', command: 'x' }), 'job', /\.schedule.*five fields/],
  [() => cron.job('a', { schedule: '@daily', command: 'x\ny' }), 'job', /\.command.*one line/],
  [() => file.hasContent('etc/motd', ''), 'path', /absolute path/],
  [() => file.hasContent('/etc/../motd', ''), 'path', /absolute path/],
  [() => file.hasFile('/x', SHA), 'source', /\.sha256.*64 hex digits/],
  [() => file.hasLines('/x', ['a\nb']), 'lines', /newline/],
  [() => file.hasAttributes('/x', { mode: 0o10000 }), 'options', /\.mode/],
  [() => file.directory('/x', { owner: 'a b' }), 'options', /\.owner.*"user:group"/],
  [() => group.present({ name: 'a:b' }), 'group', /\.name.*user or group/],
  [() => hostname.is('No_Host'), 'name', /RFC 1123/],
  [() => ini.hasSettings('/x', 'a]', {}), 'section', /has "\["/],
  [() => ini.hasSettings('/x', 'a', { '[b': 1 }), 'settings', /cannot be a key/],
  [() => ini.hasSettings('/x', 'a', { b: 'c\nd' }), 'settings', /newline/],
  [() => kernel.option('two words'), 'word', /one word/],
  [() => kernel.modules('x', ['../x']), 'names', /kernel module/],
  [() => kernel.moduleOptions('x', { loop: 'a\nb' }), 'options', /words/],
  [() => locale.is('rm -rf'), 'name', /a locale/],
  [() => locale.generated(['C.UTF-8']), 'names', /such as de_DE.UTF-8/],
  [() => locale.timezone('../../etc/passwd'), 'name', /a time zone/],
  [() => mount.at('srv', { device: 'x' }), 'where', /absolute path/],
  [() => mount.at('/srv', { device: 'a b' }), 'mount', /\.device.*without blanks/],
  [() => mount.at('/srv', { device: 'x', options: ['a,b'] }), 'mount', /one option/],
  [() => network.file('lan', '[Match]\n'), 'name', /20-lan.network/],
  [() => network.file('20-lan.network', 'Name=x\n'), 'text', /section such as \[Match\]/],
  [() => network.device('enp1s0', { addresses: ['192.0.2.1'] }), 'device', /prefix/],
  [() => reboot.soon(0), 'delaySeconds', />=1/],
  [() => ssh.authorizedKeys('root', ['ssh-dss what?']), 'keys', /a public key/],
  [() => ssh.authorizedKeys('root', ['command="x" ssh-ed25519 AAAA']), 'keys', /a public key/],
  [() => ssh.settings('x', { permitRootLogin: true }), 'settings', /no keyword/],
  [() => swap.file('/swap', 0.5), 'sizeMiB', /int/],
  [() => sysctl.is('x', { ip_forward: 1 }), 'settings', /name of a kernel setting/],
  [() => systemd.started(['ssh']), 'names', /full name of a unit/],
  [() => systemd.unit('x.service', 'ExecStart=/bin/true\n'), 'text', /section such as \[Service\]/],
  [() => timer.runs('x', { calendar: 'daily', command: 'true' }), 'timer', /\.command.*absolute path/],
  [() => timer.runs('x', { calendar: 'a\nb', command: '/bin/true' }), 'timer', /\.calendar/],
  [() => tmpfiles.rule('x', '/run/x'), 'lines', /not a rule/],
  [() => user.present({ name: 'a', home: 'x' }), 'user', /\.home.*absolute path/],
  [() => user.hasPasswordHash('a', { context: '..', name: 'x' }), 'data', /context/],
];

for (const [make, argument, reason] of REFUSED) {
  test(`refused: ${/=> (.*)$/s.exec(make.toString())?.[1]?.replaceAll(/\s+/g, ' ')}`, () => {
    assert.throws(make, (error) => {
      assert.ok(error instanceof PropertyArgumentError);
      assert.equal(error.argument, argument);
      assert.match(error.message, reason);
      assert.match(error.message, /set\.test\.ts:\d+: /);
      return true;
    });
  });
}

/** Properties that cannot hold on one host. */
const CLASHES: readonly (readonly [reason: RegExp, ...properties: PropertyApplication[]])[] = [
  [/both removed and installed/, apt.removed(['less']), apt.installed(['less'])],
  [/both installed and removed/, apt.installed(['less']), apt.removed(['less'])],
  [/both removed and held/, apt.removed(['less']), apt.held(['less'])],
  [/both enabled and masked/, systemd.enabled(['a.service']), systemd.masked(['a.service'])],
  [/both masked and enabled or started/, systemd.masked(['a.service']), systemd.enabled(['a.service'])],
  [/both masked and enabled or started/, systemd.masked(['a.timer']), systemd.started(['a.timer'])],
  [/both loaded and blocked/, kernel.modules('a', ['loop']), kernel.blocked('b', ['loop'])],
  [/both loaded and blocked/, kernel.blocked('b', ['loop']), kernel.modules('a', ['loop'])],
  [/mounts "a" and "b" at \/srv/, mount.at('/srv', { device: 'a' }), mount.at('/srv', { device: 'b' })],
  [/gives uid 7 to "a" and "b"/, user.present({ name: 'a', uid: 7 }), user.present({ name: 'b', uid: 7 })],
];

for (const [reason, ...properties] of CLASHES) {
  test(`before connecting: ${reason.source}`, () => {
    assert.throws(
      () => hostAttrs(toyDefinition(...properties)),
      (error) => error instanceof InapplicablePropertyError && reason.test(error.message),
    );
  });
}

/** What a property writes into the file of its own. */
function textOf(application: PropertyApplication): readonly string[] {
  const { type, definition } = readRegistered(application.p);
  if (type === 'combinator') return definition.children(...application.a).flatMap(textOf);
  const text = application.a[1];
  return ['file.hasContent', 'systemd.unit'].includes(application.p) && typeof text === 'string' ? [text] : [];
}

const TEXTS: readonly (readonly [application: PropertyApplication, ...texts: string[]])[] = [
  [
    apt.source('a', {
      uris: ['http://x/d'],
      suites: ['s', 's-updates'],
      components: ['main', 'more'],
      signedBy: '/k.asc',
    }),
    'Types: deb\nURIs: http://x/d\nSuites: s s-updates\nComponents: main more\nSigned-By: /k.asc\n',
  ],
  [
    apt.source('a', {
      uris: ['http://x'],
      suites: ['./'],
      signedBy: '-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQ\n-----END PGP PUBLIC KEY BLOCK-----\n',
    }),
    'Types: deb\nURIs: http://x\nSuites: ./\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQ\n -----END PGP PUBLIC KEY BLOCK-----\n',
  ],
  [
    apt.pinned('a', [
      { packages: ['x', 'y*'], pin: 'release n=s', priority: 900 },
      { packages: ['z'], pin: 'version 1.*', priority: -1 },
    ]),
    'Package: x y*\nPin: release n=s\nPin-Priority: 900\n\nPackage: z\nPin: version 1.*\nPin-Priority: -1\n',
  ],
  [cron.job('a', { schedule: '@daily', command: String.raw`date +%s \%` }), '@daily root date +\\%s \\%\n'],
  [
    timer.runs('a', { calendar: 'daily', command: '/bin/x y', user: 'u', persistent: true, spreadSeconds: 60 }),
    '[Unit]\nDescription=a\n[Service]\nType=oneshot\nExecStart=/bin/x y\nUser=u\n',
    '[Unit]\nDescription=a\n[Timer]\nOnCalendar=daily\nPersistent=yes\nRandomizedDelaySec=60\n[Install]\nWantedBy=timers.target\n',
  ],
  [network.device('e*', { mode: 'dhcp' }), '[Match]\nName=e*\n[Network]\nDHCP=yes\n'],
  [
    network.device('e0', {
      addresses: ['192.0.2.2/24', '2001:db8::2/64'],
      gateways: ['192.0.2.1'],
      dns: ['192.0.2.3'],
    }),
    '[Match]\nName=e0\n[Network]\nAddress=192.0.2.2/24\nAddress=2001:db8::2/64\nGateway=192.0.2.1\nDNS=192.0.2.3\n',
  ],
  [
    ssh.settings('a', { Port: 22, X11Forwarding: false, AllowUsers: 'a b' }),
    'Port 22\nX11Forwarding no\nAllowUsers a b\n',
  ],
  [kernel.blocked('a', ['b', 'c']), 'blacklist b\nblacklist c\n'],
  [kernel.moduleOptions('a', { kvm_intel: 'nested=1 ept=1' }), 'options kvm_intel nested=1 ept=1\n'],
  [sysctl.is('a', { 'vm.swappiness': 10, 'kernel.panic': 30 }), 'vm.swappiness = 10\nkernel.panic = 30\n'],
];

for (const [application, ...texts] of TEXTS) {
  test(`the text of ${application.p} ${JSON.stringify(application.a)}`, () => {
    assert.deepEqual(textOf(application), texts);
  });
}

const JOURNAL = '# top\n[Journal]\n#Storage=auto\nStorage = auto\nStorage = none\n\n[Other]\nA=1\n';

const INI: readonly (readonly [
  what: string,
  before: string,
  section: string,
  settings: ini.IniSettings,
  after: string,
])[] = [
  ['an empty text', '', 'A', { b: 1 }, '[A]\nb=1\n'],
  ['no section', '', '', { b: true }, 'b=true\n'],
  ['before the first section', '# c\nx=1\n\n[A]\nx=2\n', '', { y: 1 }, '# c\nx=1\ny=1\n\n[A]\nx=2\n'],
  ['the last of the same key counts', JOURNAL, 'Journal', { Storage: 'volatile' }, JOURNAL.replace('none', 'volatile')],
  ['a new key, after what the section says', JOURNAL, 'Journal', { B: 2 }, JOURNAL.replace('none\n', 'none\nB=2\n')],
  ['a new section', 'x=1\n', 'A', { b: '' }, 'x=1\n\n[A]\nb=\n'],
  ['the section in two places', '[A]\na=1\n[B]\n[A]\na=2\n', 'A', { a: 3 }, '[A]\na=1\n[B]\n[A]\na=3\n'],
  ['a text without a last newline', '[A]\na=1', 'A', { a: 2 }, '[A]\na=2\n'],
  ['what holds already', JOURNAL, 'Other', { A: 1 }, JOURNAL],
];

for (const [what, before, section, settings, after] of INI) {
  test(`settings: ${what}`, () => {
    assert.equal(ini.withSettings(before, section, settings), after);
    assert.equal(ini.withSettings(after, section, settings), after);
    const gone = ini.withoutSettings(after, section, Object.keys(settings));
    assert.equal(ini.withoutSettings(gone, section, Object.keys(settings)), gone);
    assert.notEqual(gone, after);
  });
}

const SRV: FstabEntry = { device: 'LABEL=s', where: '/srv', type: 'ext4', options: ['ro', 'nofail'], pass: 2 };
const LINE = 'LABEL=s /srv ext4 ro,nofail 0 2\n';
const SWAP: FstabEntry = { device: '/swap', where: 'none', type: 'swap', options: ['sw'], pass: 0 };

const FSTAB: readonly (readonly [what: string, before: string, entry: FstabEntry, after: string])[] = [
  ['an empty file', '', SRV, LINE],
  ['a comment without a newline', '# /srv', SRV, `# /srv\n${LINE}`],
  [
    'another entry for the same mount point',
    `a / x x 0 0\n/dev/sda1\t/srv  ext4 defaults\nb /b x x 0 0\n`,
    SRV,
    `a / x x 0 0\n${LINE}b /b x x 0 0\n`,
  ],
  ['two of them', `x /srv x\ny /srv y\n`, SRV, LINE],
  ['tabs where we have blanks', LINE.replaceAll(' ', '\t'), SRV, LINE.replaceAll(' ', '\t')],
  ['swap', '/swap2 none swap sw 0 0\n', SWAP, '/swap2 none swap sw 0 0\n/swap none swap sw 0 0\n'],
  ['a blank in a path', '', { ...SRV, where: '/a b' }, 'LABEL=s /a\\040b ext4 ro,nofail 0 2\n'],
  ['no options', '', { ...SRV, options: [] }, 'LABEL=s /srv ext4 defaults 0 2\n'],
];

for (const [what, before, entry, after] of FSTAB) {
  test(`fstab: ${what}`, () => {
    const text = hasEntry(before, entry) ? before : withEntry(before, entry);
    assert.equal(text, after);
    assert.ok(hasEntry(text, entry));
    const gone = withoutEntry(text, entry);
    assert.ok(!hasEntry(gone, entry));
    assert.equal(withoutEntry(gone, entry), gone);
  });
}
