/** The least that boots, answers on the network and can be logged in to: Debian with systemd and sshd in RAM. */
import * as apt from '../../properties/apt.ts';
import * as file from '../../properties/file.ts';
import * as image from '../../properties/image.ts';
import type { PropertyApplication } from '../../properties/property.ts';
import * as systemd from '../../properties/systemd.ts';
import * as user from '../../properties/user.ts';
import { lean } from './_lean.ts';
import { slim } from './_slim.ts';

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

/** What nobody needs who asks for none of these packages by name. */
const UNUSED: readonly { readonly paths: readonly string[]; readonly unless: readonly string[] }[] = [
  // Keys in agents, on cards and tokens, of hosts that hosts trust; ssh, scp, sftp and ssh-keygen stay.
  {
    paths: [
      'usr/bin/{ssh-add,ssh-agent,ssh-argv0,ssh-copy-id,ssh-keyscan}',
      'usr/lib/openssh/{ssh-keysign,ssh-pkcs11-helper,ssh-sk-helper}',
    ],
    unless: ['openssh-client'],
  },
  // Primes for an exchange of keys that clients have not preferred for ten years; sshd has some built in.
  { paths: ['etc/ssh/moduli'], unless: ['openssh-client'] },
  // Infiniband, data center bridging, TIPC, vDPA, ARP in user space, counters of routes.
  {
    paths: ['usr/bin/{rdma,rtstat,lnstat,nstat,ctstat,routel}', 'usr/sbin/{arpd,dcb,genl,rtacct,rtmon,tipc,vdpa}'],
    unless: ['rdma-core', 'ibverbs-utils', 'lldpd'],
  },
  // Finds libraries that were installed: all were, when the image was made. Python asks it.
  { paths: ['usr/sbin/ldconfig'], unless: ['python3', 'python3-minimal'] },
];

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
    ...slim(),
    // init's is in the initrd.
    image.excludes(['usr/bin/busybox']),
    ...UNUSED.map(({ paths, unless }) => image.excludes(paths, unless)),
  ];
}
