/**
 * What an operating system in RAM starts with nothing of: units and generators that serve disks, people at a console, or a
 * root that outlives the boot. Each costs time at every boot. `npm run bench -- boot` tells what.
 */
import * as file from '../../properties/file.ts';
import * as kernel from '../../properties/kernel.ts';
import type { PropertyApplication } from '../../properties/property.ts';
import * as systemd from '../../properties/systemd.ts';

/** Nobody has a password, so a login prompt on the console would only be a riddle; `systemd.debug_shell` gives a shell there. */
const UNITS = [
  'apt-daily.timer',
  'apt-daily-upgrade.timer',
  'dpkg-db-backup.timer',
  'e2scrub_all.timer',
  'e2scrub_reap.service',
  'fstrim.timer',
  'getty-static.service',
  'ldconfig.service',
  'systemd-firstboot.service',
  'dbus.service',
  'dbus.socket',
  'systemd-hostnamed.service',
  'systemd-hostnamed.socket',
  'systemd-hwdb-update.service',
  'systemd-importd.socket',
  'systemd-journal-catalog-update.service',
  'systemd-journal-flush.service',
  'systemd-logind.service',
  'systemd-machine-id-commit.service',
  'systemd-network-generator.service',
  'systemd-networkd-persistent-storage.service',
  'systemd-networkd-wait-online.service',
  'systemd-pcrmachine.service',
  'systemd-pcrphase.service',
  'systemd-pcrphase-sysinit.service',
  'systemd-pstore.service',
  'systemd-random-seed.service',
  'systemd-remount-fs.service',
  'systemd-sysext.socket',
  'systemd-sysusers.service',
  'systemd-tpm2-setup.service',
  'systemd-tpm2-setup-early.service',
  'systemd-udev-load-credentials.service',
  'systemd-update-done.service',
  'systemd-update-utmp.service',
  'systemd-hibernate-clear.service',
  'systemd-ask-password-console.path',
  'systemd-ask-password-wall.path',
  'systemd-creds.socket',
  'systemd-initctl.socket',
  'systemd-pcrextend.socket',
  'systemd-pcrlock.socket',
  'sshd-unix-local.socket',
  'modprobe@configfs.service',
  'modprobe@drm.service',
  'modprobe@efi_pstore.service',
  'sys-kernel-config.mount',
  'sys-kernel-debug.mount',
  'sys-kernel-tracing.mount',
  'dev-hugepages.mount',
  'dev-mqueue.mount',
  'run-lock.mount',
  'console-getty.service',
  'getty@.service',
  'serial-getty@.service',
];

/** Generators (systemd.generator(7)) but for those of `systemd.debug_shell` and `systemd.run`: there are no disks to find. */
const GENERATORS = [
  'systemd-bless-boot-generator',
  'systemd-cryptsetup-generator',
  'systemd-fstab-generator',
  'systemd-getty-generator',
  'systemd-gpt-auto-generator',
  'systemd-hibernate-resume-generator',
  'systemd-integritysetup-generator',
  'systemd-rc-local-generator',
  'systemd-ssh-generator',
  'systemd-system-update-generator',
  'systemd-sysv-generator',
  'systemd-tpm2-generator',
  'systemd-veritysetup-generator',
];

/**
 * Security modules that hosts of ours have rules for: none but Yama and Landlock, which need none. Without `bpf` systemd does
 * not load its program for RestrictFileSystems=, which costs more than all units together.
 */
const SECURITY_MODULES = 'landlock,lockdown,yama';

/** The properties. */
export function lean(): PropertyApplication[] {
  return [
    systemd.masked(UNITS),
    ...GENERATORS.map((name) => file.symlink(`/etc/systemd/system-generators/${name}`, '/dev/null')),
    kernel.option(`lsm=${SECURITY_MODULES}`),
  ];
}
