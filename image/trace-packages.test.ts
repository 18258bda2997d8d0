import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type InstalledRoot, tracePackages } from './trace-packages.ts';
import { describeOrigin } from './explain/origins.ts';

/** A root with packages: paths of `files` are there, and `name: paths` are what packages ship. */
function rootOf(options: {
  readonly files: Readonly<Record<string, string | undefined>>;
  readonly ships: Readonly<Record<string, readonly string[]>>;
  readonly scripts?: Readonly<Record<string, string>>;
  readonly diversions?: InstalledRoot['diversions'];
  readonly alternatives?: Readonly<Record<string, string>>;
}): InstalledRoot {
  return {
    paths: new Map(Object.entries(options.files)),
    packages: Object.entries(options.ships).map(([name, list]) => ({
      name,
      version: '1',
      list,
      scripts: options.scripts?.[name] ?? '',
    })),
    diversions: options.diversions ?? [],
    alternatives: new Map(Object.entries(options.alternatives ?? {})),
  };
}

function traced(root: InstalledRoot): Readonly<Record<string, string>> {
  const lines = tracePackages(root).origins.flatMap(({ origin, paths }) =>
    paths.map((path): [string, string] => [path, describeOrigin(origin)]),
  );
  return Object.fromEntries(lines);
}

test('tracePackages() finds who ships a file, through the links of a merged /usr', () => {
  const root = rootOf({
    files: { bin: 'usr/bin', usr: undefined, 'usr/bin': undefined, 'usr/bin/sh': undefined },
    ships: { dash: ['/.', '/bin', '/bin/sh', '/usr', '/usr/bin'], 'base-files': ['/.', '/bin', '/usr', '/usr/bin'] },
  });
  assert.deepEqual(traced(root), {
    bin: 'package base-files 1',
    usr: 'package base-files 1',
    'usr/bin': 'package base-files 1',
    'usr/bin/sh': 'package dash 1',
  });
});

test('tracePackages() follows diversions: the file that was moved away is that of the other package', () => {
  const root = rootOf({
    files: { 'usr/bin/x': undefined, 'usr/bin/x.orig': undefined },
    ships: { one: ['/usr/bin/x'], other: ['/usr/bin/x'] },
    diversions: [{ from: '/usr/bin/x', to: '/usr/bin/x.orig', by: 'other' }],
  });
  assert.deepEqual(traced(root), { 'usr/bin/x': 'package other 1', 'usr/bin/x.orig': 'package one 1' });
});

test('tracePackages() finds what scripts make: alternatives, links, named paths, folders of one package', () => {
  const root = rootOf({
    files: {
      'etc/alternatives/awk': '/usr/bin/mawk',
      'usr/bin/awk': '/etc/alternatives/awk',
      'usr/share/man/awk.1': '/etc/alternatives/awk.1',
      'etc/alternatives/awk.1': '/usr/share/man/mawk.1',
      'usr/share/man/mawk.1': undefined,
      'usr/bin/mawk': undefined,
      'etc/systemd/system/multi.wants': undefined,
      'etc/systemd/system/multi.wants/ssh.service': '/lib/systemd/system/ssh.service',
      'usr/lib/systemd/system/ssh.service': undefined,
      'etc/ssh/sshd_config': undefined,
      'etc/ssh/sshd_config.d': undefined,
      'var/lib/wtf': undefined,
      'var/lib/wtf/cache': undefined,
      'etc/passwd': undefined,
      'var/lib/dpkg/status': undefined,
      'usr/lib/modules/6/modules.dep': undefined,
      'var/lib/nobody/knows': undefined,
    },
    ships: {
      mawk: ['/usr/bin/mawk', '/usr/share/man/mawk.1'],
      'openssh-server': ['/lib/systemd/system/ssh.service', '/etc/ssh/sshd_config.d'],
      wtf: ['/var/lib/wtf'],
      'base-passwd': ['/var', '/var/lib'],
      adduser: ['/var', '/var/lib'],
    },
    scripts: {
      'openssh-server': 'cat > "/etc/ssh/sshd_config" <<',
      adduser: 'grep x /etc/passwd /etc/ssh/sshd_config.d',
    },
    alternatives: {
      awk: 'auto\n/usr/bin/awk\nawk.1\n/usr/share/man/awk.1\n\n/usr/bin/mawk\n5\n/usr/share/man/mawk.1\n\n',
    },
  });
  const found = traced(root);
  assert.equal(found['etc/alternatives/awk'], 'package mawk 1, as an alternative');
  assert.equal(found['usr/bin/awk'], 'package mawk 1, as an alternative');
  assert.equal(found['usr/share/man/awk.1'], 'package mawk 1, as an alternative');
  const unit = 'etc/systemd/system/multi.wants/ssh.service';
  assert.equal(found[unit], 'package openssh-server 1, by a link that leads to a file of it');
  assert.equal(found['etc/systemd/system/multi.wants'], 'package openssh-server 1, made in a folder of it');
  assert.equal(found['etc/ssh/sshd_config'], 'package openssh-server 1, made when it is installed');
  assert.equal(found['var/lib/wtf/cache'], 'package wtf 1, made in a folder of it');
  assert.equal(found['etc/passwd'], 'package base-passwd 1, made when it is installed');
  assert.equal(found['var/lib/dpkg/status'], "our step: dpkg's database");
  assert.equal(found['usr/lib/modules/6/modules.dep'], 'our step: index of kernel modules (depmod)');
  assert.match(found['var/lib/nobody/knows'] ?? '', /a script that is not known/);
});
