/** The least that boots, answers on the network and can be logged in to: Debian with systemd and sshd in RAM. */
import * as apt from '../../properties/apt.ts';
import * as file from '../../properties/file.ts';
import * as image from '../../properties/image.ts';
import type { PropertyApplication } from '../../properties/property.ts';
import * as systemd from '../../properties/systemd.ts';
import * as user from '../../properties/user.ts';
import { lean } from './_lean.ts';

const PACKAGES = [
  'systemd',
  'systemd-sysv',
  'udev',
  'openssh-server',
  'iproute2',
  'kmod',
  // What init (busybox) and Node need.
  'busybox-static',
  'libatomic1',
  'libstdc++6',
];

const KEY = '/etc/ssh/ssh_host_ed25519_key';

const NETWORK = '[Match]\nType=ether\nKind=!*\n\n[Network]\nDHCP=yes\n\n[DHCPv4]\nClientIdentifier=mac\n';

/**
 * The properties. Without a key in the image or on the kernel command line nobody can log in.
 *
 * @param kernelPackage - such as `linux-image-amd64`
 */
export function minimalSystem(kernelPackage: string): PropertyApplication[] {
  return [
    apt.installed([kernelPackage, ...PACKAGES]),
    // The user that init gives `buildos.ssh_key` to, and the file that it binds Node over.
    user.present({ name: 'build', uid: 1000, gid: 1000, home: '/build', shell: '/bin/bash' }),
    file.directory('/build'),
    file.directory('/build/tftp', { owner: 'build:build' }),
    file.directory('/usr/lib/buildos'),
    file.hasContent('/usr/lib/buildos/node', '', { mode: 0o755 }),
    file.hasContent('/etc/systemd/network/80-dhcp.network', NETWORK),
    // sshd and its key are made when somebody comes.
    systemd.enabled(['systemd-networkd.service', 'ssh.socket']),
    systemd.disabled(['ssh.service']),
    ...lean(),
    systemd.dropIn(
      'ssh.service',
      'host-key.conf',
      `[Service]\nExecStartPre=\nExecStartPre=/bin/sh -c "[ -s ${KEY} ] || ssh-keygen -q -t ed25519 -N '' -f ${KEY}"\n`,
    ),
    systemd.defaultTarget('multi-user.target'),
    file.hasContent('/etc/hostname', ''),
    file.hasContent('/etc/fstab', ''),
    image.excludes([
      'boot/*',
      'etc/{apt,dpkg,initramfs-tools,kernel}',
      'usr/bin/{apt*,dpkg*,debconf*,perl*,localedef,sqv}',
      'usr/lib/{apt,dpkg,initramfs-tools,klibc,python3}',
      'usr/lib/systemd/{catalog,boot,portable,ukify}',
      'usr/lib/udev/{hwdb.bin,hwdb.d}',
      'usr/lib/x86_64-linux-gnu/{gconv,perl-base}',
      'usr/lib/x86_64-linux-gnu/lib{apt-pkg,apt-private,perl}*',
      'usr/share/{bash-completion,bug,debconf,doc,doc-base,gcc,i18n,info,initramfs-tools,lintian,locale,man,menu,perl*,pixmaps,zsh}',
      'usr/share/zoneinfo',
      'var/cache/*',
      'var/lib/{apt,dpkg,initramfs-tools}',
      'var/log/*',
    ]),
  ];
}
