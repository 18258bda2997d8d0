import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { OPTION_NAMES, formatProblem, parseKernelCommandLine, splitKernelCommandLine } from './kernel-cmdline.ts';

/** A real minisign public key: `Ed`, key id, 32 bytes. */
const MINISIGN = 'RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3';
const FINGERPRINT = Array.from({ length: 32 }, (_, index) => (index + 160).toString(16).toUpperCase()).join(':');
const SSH_KEY = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKAd3qAkB5kzmXtZ3uT4rF0yqkQmQyN8oHhH5w0q3X1v me@there';

const problemsOf = (text: string): string[] => parseKernelCommandLine(text).problems.map(formatProblem);

test('split() cuts at blanks and drops the quotes the kernel drops', () => {
  assert.deepEqual(splitKernelCommandLine('quiet  a=1\tb="x y" "c=x y" d=x"y z"  "e f"\n'), [
    { name: 'quiet' },
    { name: 'a', value: '1' },
    { name: 'b', value: 'x y' },
    { name: 'c', value: 'x y' },
    { name: 'd', value: 'x"y z"' },
    { name: 'e f' },
  ]);
  assert.deepEqual(splitKernelCommandLine('a== =b c= d="" e="open q'), [
    { name: 'a', value: '=' },
    { name: '=b' },
    { name: 'c', value: '' },
    { name: 'd', value: '' },
    { name: 'e', value: 'open q' },
  ]);
});

test('parse() gives the defaults for a line without options', () => {
  assert.deepEqual(parseKernelCommandLine('BOOT_IMAGE=buildos-image console=ttyS0 panic=10 --'), {
    options: { monitorIntervalSeconds: 60, sshKeys: [], initDebug: false, initShell: false, toolchains: {} },
    problems: [],
  });
});

test('parse() reads every option of the host', () => {
  const { options, problems } = parseKernelCommandLine(
    [
      'buildos.buildid_url=tftp://boot/buildos-buildid',
      `buildos.buildid_trust=${MINISIGN}`,
      'buildos.config_url=https://boot.example/host.conf',
      `buildos.config_trust=${MINISIGN}`,
      'buildos.monitor_interval=5m',
      'buildos.tftp_size=2G',
      'buildos.smtp_relay=mail.example:587',
      'buildos.admin_email=ops@example.org',
      `buildos.ssh_key="${SSH_KEY}"`,
      `"buildos.ssh_key=${SSH_KEY}2"`,
      'buildos.hostname=build-7.example.org',
      'buildos.init_debug',
      'buildos.init_shell=false',
    ].join(' '),
  );
  assert.deepEqual([...new Set(problems.map(({ message }) => message))], ['has no effect in this version']);
  assert.deepEqual(options, {
    buildidUrl: 'tftp://boot/buildos-buildid',
    buildidTrust: MINISIGN,
    configUrl: 'https://boot.example/host.conf',
    configTrust: MINISIGN,
    monitorIntervalSeconds: 300,
    tftpSizeMiB: 2048,
    smtpRelay: 'mail.example:587',
    adminEmail: 'ops@example.org',
    sshKeys: [SSH_KEY, `${SSH_KEY}2`],
    hostname: 'build-7.example.org',
    initDebug: true,
    initShell: false,
    toolchains: {},
  });
});

test('parse() reads the options of toolchains by their suffix', () => {
  const { options, problems } = parseKernelCommandLine(
    [
      'buildos.toolchain_url=http://boot/toolchain.sha256',
      'buildos.controller_url=https://a.example,102=http://b.example/path?x=1',
      'buildos.ram=1048576',
      'buildos.toolchain_url.stage-2=http://boot/stage.sha256',
      `buildos.toolchain_trust.stage-2=${MINISIGN}`,
      `buildos.controller_trust.stage-2=${FINGERPRINT},${FINGERPRINT.toLowerCase()}`,
      'buildos.instances.stage-2=3',
      'buildos.ncpu.stage-2=8',
      'buildos.ram.stage-2=4GiB',
      'buildos.interactive.stage-2=both',
    ].join('\n'),
  );
  assert.deepEqual([...new Set(problems.map(({ message }) => message))], ['has no effect in this version']);
  assert.deepEqual(options.toolchains, {
    default: {
      url: 'http://boot/toolchain.sha256',
      controllers: [
        { priority: '0', url: 'https://a.example' },
        { priority: '102', url: 'http://b.example/path?x=1' },
      ],
      controllerTrust: [],
      ramMiB: 1024,
      interactive: 'false',
    },
    'stage-2': {
      url: 'http://boot/stage.sha256',
      trust: MINISIGN,
      controllers: [],
      controllerTrust: [FINGERPRINT, FINGERPRINT],
      instances: 3,
      ncpu: 8,
      ramMiB: 4096,
      interactive: 'both',
    },
  });
});

test('parse() lets the last good value win', () => {
  const { options, problems } = parseKernelCommandLine('buildos.hostname=a buildos.hostname=b buildos.hostname=-');
  assert.equal(options.hostname, 'b');
  assert.equal(problems.length, 1);
});

test('parse() names the nearest known option for an unknown one', () => {
  assert.deepEqual(problemsOf('buildos.controler_url.stage=http://c'), [
    'buildos.controler_url.stage=http://c: unknown option (did you mean buildos.controller_url.stage?)',
  ]);
  assert.deepEqual(problemsOf('BuildOS.Hostname=x'), [
    'BuildOS.Hostname=x: unknown option (did you mean buildos.hostname?)',
  ]);
  assert.deepEqual(problemsOf('buildos.init-debug'), [
    'buildos.init-debug: unknown option (did you mean buildos.init_debug?)',
  ]);
  assert.match(problemsOf('buildos.xyzzyxyzzy=1')[0] ?? '', /unknown option \(known are: admin_email, .*tftp_size/);
  assert.deepEqual(problemsOf('buildos.hostname.stage=x'), [
    'buildos.hostname.stage=x: unknown option (buildos.hostname is for the whole host and takes no toolchain name)',
  ]);
});

test('parse() refuses bad values by name and keeps the default', () => {
  const bad = [
    'buildos.buildid_url=ftp://x',
    'buildos.toolchain_url=http://',
    'buildos.controller_url=tftp://x',
    'buildos.controller_url=123456=http://x',
    'buildos.controller_url=http://x,',
    'buildos.controller_trust=AB:CD',
    'buildos.instances=0',
    'buildos.ncpu=two',
    'buildos.ram=4096',
    'buildos.interactive=yes',
    'buildos.monitor_interval=1',
    'buildos.tftp_size=1024',
    'buildos.smtp_relay=mail:99999',
    'buildos.admin_email=ops',
    'buildos.ssh_key=ssh-ed25519',
    'buildos.hostname=a_b',
    'buildos.init_debug=maybe',
    'buildos.ram.a/b=4G',
    'buildos.hostname',
    'buildos.hostname=',
    'buildos.',
  ];
  for (const word of bad) {
    const { options, problems } = parseKernelCommandLine(word);
    assert.equal(problems.length, 1, word);
    assert.equal(problems[0]?.name, word.split('=')[0]);
    assert.deepEqual(options, parseKernelCommandLine('').options, word);
  }
  assert.match(problemsOf('buildos.ram=4096')[0] ?? '', /write 4096M or 4096G/);
});

test('parse() keeps a key that is none, and says so: to trust nothing is not to trust anything', () => {
  const url = 'buildos.toolchain_url.stage=http://s buildos.buildid_url=http://b';
  for (const bad of ['RWQ', `${MINISIGN}A`, `RWU${MINISIGN.slice(3)}`, `A${MINISIGN.slice(1)}`, '']) {
    const { options, problems } = parseKernelCommandLine(
      `buildos.toolchain_trust.stage=${bad} ${url} buildos.buildid_trust=${bad}`,
    );
    assert.equal(options.buildidTrust, bad);
    assert.equal(options.toolchains['stage']?.trust, bad);
    assert.deepEqual(
      problems.map(({ name, value }) => [name, value]),
      [
        ['buildos.toolchain_trust.stage', bad],
        ['buildos.buildid_trust', bad],
      ],
    );
    assert.match(problems[0]?.message ?? '', /^is no minisign public key, so nothing is taken as signed by it$/);
  }
  assert.equal(parseKernelCommandLine(`${url} buildos.buildid_trust`).options.buildidTrust, '');
  assert.deepEqual(
    problemsOf(`buildos.toolchain_trust.stage=${MINISIGN} ${url} buildos.buildid_trust=${MINISIGN}`),
    [],
  );
});

test('parse() reports a key for an image that is not watched', () => {
  assert.deepEqual(problemsOf(`buildos.buildid_trust=${MINISIGN}`), [
    'buildos.buildid_url: not given, so buildos.buildid_trust has no effect (add buildos.buildid_url=<url>)',
  ]);
});

test('parse() says of options that nothing acts upon yet that they have no effect', () => {
  assert.deepEqual(problemsOf('buildos.admin_email=ops@example.org'), [
    'buildos.admin_email=ops@example.org: has no effect in this version (nothing is checked or sent because of it)',
  ]);
});

test('parse() reports options of a toolchain without a list', () => {
  assert.deepEqual(problemsOf('buildos.toolchain_url.stage=http://s buildos.instances.stag=1'), [
    'buildos.toolchain_url.stag: not given, so the other options of toolchain "stag" have no effect' +
      ' (add it, or did you mean toolchain "stage"?)',
  ]);
});

test('parse() takes any text without an error and reports only buildos. words', () => {
  const word = fc.oneof(
    fc.string(),
    fc.tuple(fc.constantFrom(...OPTION_NAMES), fc.string(), fc.string()).map(([name, tail, value]) => {
      return `buildos.${name}${tail}=${value}`;
    }),
  );
  fc.assert(
    fc.property(fc.array(word), (words) => {
      const { problems } = parseKernelCommandLine(words.join(' '));
      for (const problem of problems) assert.match(problem.name, /^buildos\./i);
    }),
  );
});
