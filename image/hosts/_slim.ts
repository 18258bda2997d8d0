/**
 * What an operating system in RAM never reads. The packages are installed as ever where the image is built, so nothing is missing
 * there; these paths are left out when it is packed. Libraries stay, whoever wants them: a package may be added that does.
 *
 * `buildos image explain IMAGE PATH` says of a path that it was left out, and by which pattern.
 */
import * as image from '../../properties/image.ts';
import type { PropertyApplication } from '../../properties/property.ts';

/** Packages are chosen, installed and configured when the image is built, and never again. */
const PACKAGE_MANAGEMENT = [
  'etc/{apt,dpkg}',
  'usr/bin/{apt*,dpkg*,debconf*,perl*,sqv,ucf*,savelog,deb-systemd-*,update-alternatives}',
  'usr/lib/{apt,dpkg,python3}',
  'usr/lib/x86_64-linux-gnu/lib{apt-pkg,apt-private,perl}*',
  'usr/lib/x86_64-linux-gnu/perl-base',
  'usr/share/{bug,debconf,dpkg,keyrings,lintian,perl*}',
  'var/cache/*',
  'var/lib/{apt,dpkg,ucf}',
  'var/lib/systemd/deb-systemd-*',
  'var/log/*',
];

/** The kernel is in the image's own file, and the initrd is ours. */
const KERNEL_PACKAGING = [
  'boot/*',
  'etc/{initramfs-tools,kernel}',
  'usr/bin/{kernel-install,linux-*,lsinitramfs,unmkinitramfs}',
  'usr/lib/{dracut,initramfs-tools,kernel,klibc,klibc-*}',
  'usr/sbin/{mkinitramfs,update-initramfs,installkernel}',
  'usr/share/initramfs-tools',
];

/** For people who look things up, and for desktops. */
const DOCUMENTATION = [
  'usr/share/{bash-completion,common-licenses,doc,doc-base,fish,gcc,gdb,i18n,info,locale,man,menu,pixmaps,zsh}',
  'usr/lib/systemd/catalog',
  'var/lib/systemd/catalog',
];

/** Conversion of texts between languages' encodings; what glibc has built in (UTF-8, Latin-1, …) stays. */
const ENCODINGS = ['usr/bin/localedef', 'usr/sbin/iconvconfig', 'usr/lib/x86_64-linux-gnu/gconv'];

/**
 * Programs of units that `lean()` masks, and of those that D-Bus would start; with the commands that only talk to these. And of
 * what systemd has for disks that it boots from, encrypts, grows or hibernates to, for TPMs, and for a boot loader of its own.
 */
const SYSTEMD = [
  'usr/bin/{bootctl,hostnamectl,localectl,loginctl,timedatectl,systemd-{firstboot,sysext,confext}}',
  'usr/lib/pcrlock.d',
  'usr/lib/systemd/{boot,portable,ukify}',
  `usr/lib/systemd/systemd-{${[
    'backlight',
    'bless-boot',
    'boot-check-no-failures',
    'growfs',
    'hibernate-resume',
    'hostnamed',
    'initctl',
    'localed',
    'logind',
    'makefs',
    'measure',
    'network-generator',
    'networkd-wait-online',
    'pcrextend',
    'pcrlock',
    'pstore',
    'quotacheck',
    'rfkill',
    'sleep',
    'storagetm',
    'sysupdate',
    'timedated',
    'tpm2-setup',
    'update-done',
    'update-utmp',
    'vconsole-setup',
  ].join(',')}}`,
  'usr/lib/udev/{hwdb.bin,hwdb.d}',
];

/** The properties. */
export function slim(): PropertyApplication[] {
  return [PACKAGE_MANAGEMENT, KERNEL_PACKAGING, DOCUMENTATION, ENCODINGS, SYSTEMD].map((paths) =>
    image.excludes(paths),
  );
}
