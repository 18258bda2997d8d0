/**
 * The build host: Debian with systemd, a network for machines, containers, a C compiler for bootstrapping, and our programs.
 *
 * A list of properties, in the order in which they are applied. The files behind it are in `build-host/`: what is in it
 * goes where the table {@link PLACES} says, by its suffix or its folder.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as apt from '../../properties/apt.ts';
import * as file from '../../properties/file.ts';
import type { HostDefinition } from '../../properties/host-definition.ts';
import * as image from '../../properties/image.ts';
import * as kernel from '../../properties/kernel.ts';
import type { PropertyApplication } from '../../properties/property.ts';
import * as systemd from '../../properties/systemd.ts';
import * as user from '../../properties/user.ts';
import type { ImageInputs } from '../build-inputs.ts';
import { lean } from './_lean.ts';
import { nodeRuntime } from './_node-runtime.ts';
import { slim } from './_slim.ts';

const FILES = join(import.meta.dirname, 'build-host');

const UNITS = '/etc/systemd/system';

/** Where the files of `build-host/` go: the first fitting row counts. */
const PLACES: readonly { readonly pattern: RegExp; readonly folder: string }[] = [
  { pattern: /\.(network|netdev|link)$/, folder: '/etc/systemd/network' },
  { pattern: /\.(service|socket|mount|swap|target|path|timer)$/, folder: UNITS },
  { pattern: /\.rules$/, folder: '/etc/udev/rules.d' },
  { pattern: /^tmpfiles\.d\//, folder: '/etc/tmpfiles.d' },
  { pattern: /^sysctl\.d\//, folder: '/etc/sysctl.d' },
];

/** The user that monitor, agents and bootstraps run as. */
const BUILD = { name: 'build', id: 1000, home: '/build' } as const;

const SYSTEM_PACKAGES = [
  'linux-image-amd64',
  'systemd-sysv',
  'systemd-resolved',
  'systemd-container', // systemd-nspawn
  'udev',
  'kmod',
  'iproute2',
  'nftables',
  'openssh-server',
  'btrfs-progs',
  'e2fsprogs',
  'ca-certificates',
  'less',
];

/** What init (busybox) and Node need. */
const RUNTIME_PACKAGES = ['busybox-static', 'libatomic1', 'libstdc++6'];

/** What a toolchain may take for granted when it bootstraps: a C compiler and archivers. */
const BOOTSTRAP_PACKAGES = ['gcc', 'libc6-dev', 'xz-utils', 'bzip2', 'zstd'];

/** The build host as an image; a definition in the sense of `image build`. */
export function buildHost(inputs: ImageInputs): HostDefinition {
  return {
    name: 'build-host',
    summary: 'Build OS: a diskless host that builds software in one-shot machines',
    base: { distribution: 'debian', suite: 'trixie' },
    properties: [
      apt.installed([...SYSTEM_PACKAGES, ...RUNTIME_PACKAGES, ...BOOTSTRAP_PACKAGES]),
      kernel.supports(['filesystems', 'containers', 'virtual-machines']),
      ...accounts(),
      ...runtime(),
      ...filesOfFolder(),
      ...services(),
      ...identity(inputs),
      ...slim(),
      ...slimCompiler(),
      // Last, and nothing but files of this machine: so they are a layer of the image of their own.
      ...programs(inputs),
    ],
  };
}

function accounts(): PropertyApplication[] {
  return [
    user.present({ name: BUILD.name, uid: BUILD.id, gid: BUILD.id, home: BUILD.home, shell: '/bin/bash' }),
    // The home itself is root's: who owns a folder may put another one in the place of what is in it.
    file.directory(BUILD.home),
    ...['tftp', 'toolchains', 'agents'].map((folder) =>
      file.directory(`${BUILD.home}/${folder}`, { owner: `${BUILD.name}:${BUILD.name}` }),
    ),
    file.directory('/build/machines'),
    file.directory('/build/machines/default'),
    file.directory('/state'),
  ];
}

/** What runs our programs. */
function runtime(): PropertyApplication[] {
  return [
    file.directory('/usr/lib/buildos'),
    // init binds the initramfs's Node over it.
    file.hasContent('/usr/lib/buildos/node', '', { mode: 0o755 }),
    nodeRuntime('/usr/lib/buildos/lib'),
    file.symlink('/usr/local/bin/node', '/usr/lib/buildos/node'),
  ];
}

function programs(inputs: ImageInputs): PropertyApplication[] {
  const { 'monitor.mjs': monitor, 'helper.mjs': helper } = inputs.programs;
  return [
    file.hasFile('/usr/lib/buildos/monitor.mjs', { source: monitor.file, sha256: monitor.sha256 }),
    file.hasFile('/usr/lib/buildos/helper.mjs', { source: helper.file, sha256: helper.sha256 }),
  ];
}

/** Units, network, udev rules and so on, as they stand in `build-host/`; a unit that says how is enabled. */
function filesOfFolder(): PropertyApplication[] {
  const names = readdirSync(FILES, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(FILES.length + 1))
    .sort();
  const enabled: string[] = [];
  const properties = names.map((name) => {
    const place = PLACES.find(({ pattern }) => pattern.test(name));
    if (place === undefined) throw new TypeError(`Cannot place ${join(FILES, name)}: no row of PLACES fits its name`);
    const text = readFileSync(join(FILES, name), 'utf8');
    if (place.folder === UNITS && /^\[Install\]$/m.test(text)) enabled.push(name);
    return file.hasContent(`${place.folder}/${name.slice(name.lastIndexOf('/') + 1)}`, text);
  });
  return [...properties, systemd.enabled(enabled)];
}

function services(): PropertyApplication[] {
  return [
    systemd.enabled(['systemd-networkd.service', 'systemd-resolved.service', 'ssh.service']),
    ...lean(),
    systemd.defaultTarget('multi-user.target'),
    ...remoteLogin(),
    file.hasContent('/etc/systemd/journald.conf.d/buildos.conf', '[Journal]\nStorage=volatile\nRuntimeMaxUse=64M\n'),
    file.symlink('/etc/resolv.conf', '../run/systemd/resolve/stub-resolv.conf'),
    // With DNS over TLS it finds a certificate by the name of its file; else it would read all of them at its start, for nothing.
    systemd.dropIn('systemd-resolved.service', 'certificates.conf', '[Service]\nEnvironment=SSL_CERT_FILE=/dev/null\n'),
  ];
}

/** ssh for the user `build`, with a key only: without `buildos.ssh_key` nobody can log in, so nothing listens. */
function remoteLogin(): PropertyApplication[] {
  const key = '/state/ssh/ssh_host_ed25519_key';
  return [
    file.hasContent(
      '/etc/ssh/sshd_config.d/buildos.conf',
      `HostKey ${key}\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin no\nAllowUsers ${BUILD.name}\n`,
    ),
    systemd.dropIn(
      'ssh.service',
      'buildos.conf',
      [
        '[Unit]',
        `ConditionPathExists=${BUILD.home}/.ssh/authorized_keys`,
        'After=buildos-state.service',
        '[Service]',
        'ExecStartPre=',
        `ExecStartPre=/bin/sh -c "[ -s ${key} ] || ssh-keygen -q -t ed25519 -N '' -f ${key}"`,
        'ExecStartPre=/usr/sbin/sshd -t',
        '',
      ].join('\n'),
    ),
    // Keys that the package made would be the same on every host.
    ...['rsa', 'ecdsa', 'ed25519'].flatMap((type) =>
      ['', '.pub'].map((suffix) => file.absent(`/etc/ssh/ssh_host_${type}_key${suffix}`)),
    ),
  ];
}

function identity(inputs: ImageInputs): PropertyApplication[] {
  return [
    // From buildos.hostname, DHCP or the MAC address, when the host runs.
    file.hasContent('/etc/hostname', ''),
    file.hasContent('/etc/machine-id', ''),
    file.hasContent('/etc/fstab', ''),
    file.hasContent('/etc/buildos-note', inputs.note === '' ? '' : `${inputs.note}\n`),
    // A panic ends in a reboot: nobody is there to press a button.
    kernel.option('panic=30'),
  ];
}

/** Of the packages of this host, what is for other languages than C, for debugging compilers, and time zones counted otherwise. */
function slimCompiler(): PropertyApplication[] {
  return [
    image.excludes([
      'usr/bin/{*lto-dump*,*gprof*}',
      'usr/lib/x86_64-linux-gnu/lib{asan,hwasan,lsan,tsan,ubsan}.so*',
      'usr/lib/gcc/x86_64-linux-gnu/*/lib*san*',
      'usr/lib/gcc/x86_64-linux-gnu/*/plugin',
      'usr/libexec/gcc/x86_64-linux-gnu/*/{lto1,lto-wrapper,g++-mapper-server}',
      'usr/share/zoneinfo/{posix,right}',
    ]),
  ];
}
