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
  // The same as systemd-tmpfiles-setup-dev.service, which comes right behind it, once there are users; here they are in the image.
  'systemd-tmpfiles-setup-dev-early.service',
  'systemd-tpm2-setup.service',
  'systemd-tpm2-setup-early.service',
  'systemd-udev-load-credentials.service',
  'systemd-update-done.service',
  'systemd-update-utmp.service',
  // Lets people in who were kept out during the boot: nobody is (see TMPFILES).
  'systemd-user-sessions.service',
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
  // A view into what FUSE is doing; FUSE itself is in the kernel.
  'modprobe@fuse.service',
  'sys-fs-fuse-connections.mount',
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

/** Rules for desktops, people at a screen and media: udev reads each at its start, and asks it about every device. */
const UDEV_RULES = [
  '60-autosuspend.rules',
  '60-drm.rules',
  '60-evdev.rules',
  '60-fido-id.rules',
  '60-input-id.rules',
  '60-persistent-alsa.rules',
  '60-persistent-input.rules',
  '60-persistent-v4l.rules',
  '60-sensor.rules',
  '70-camera.rules',
  '70-joystick.rules',
  '70-mouse.rules',
  '70-power-switch.rules',
  '70-touchpad.rules',
  '70-uaccess.rules',
  '71-seat.rules',
  '73-seat-late.rules',
  '78-sound-card.rules',
];

/** It makes /run/nologin, which systemd-user-sessions.service would have to remove. */
const TMPFILES = ['systemd-nologin.conf'];

/**
 * The devices that a boot waits for: disks, network cards, and the buses that they are found on (platform: that of Hyper-V, since
 * Linux 6.4). All others, with modules such as kvm (a fifth of the boot), power buttons, sensors and watchdogs, are looked at when the
 * host is up; a device that is plugged in is seen at once, whatever it is.
 */
const EARLY_DEVICES = [
  'block',
  'mmc',
  'mmc_host',
  'net',
  'nvme',
  'nvme-subsystem',
  'pci',
  'platform',
  'scsi',
  'scsi_device',
  'scsi_host',
  'usb',
  'virtio',
  'vmbus',
  'xen',
];
const LATE_AFTER_S = 10;

/** To look for disks is to wait, seconds at times: whoever begins with that waits while other services start, and not after them. */
const DEVICES_FIRST = '[Service]\nStartupCPUWeight=1000\n';

const LATE_SERVICE = `# What systemd-udev-trigger.service leaves out on this host: devices that no boot waits for.
[Unit]
Description=Coldplug the other devices
After=systemd-udevd.service systemd-udev-trigger.service
ConditionPathIsReadWrite=/sys

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=-udevadm trigger --type=all --action=add ${EARLY_DEVICES.map((name) => `--subsystem-nomatch=${name}`).join(' ')}
`;

const LATE_TIMER = `[Unit]
Description=Coldplug the other devices, a moment after the boot

[Timer]
OnActiveSec=${LATE_AFTER_S}
AccuracySec=1

[Install]
WantedBy=timers.target
`;

/**
 * Modules that systemd loads by name at its start, needed or not; \`modprobe\` loads them all the same when somebody asks.
 * ip_tables: the firewall here is nftables. qemu_fw_cfg: what QEMU is given with -fw_cfg; systemd reads credentials out of
 * \`-smbios type=11\` without it.
 */
const NOT_AT_START = ['ip_tables', 'qemu_fw_cfg'];

/**
 * Steps of the kernel's start. The first tests a source of random numbers for a twentieth of the boot, though the kernel has better ones.
 * The others look through all trace events for names of constants, to put numbers there, and through all functions for those that
 * cannot be traced; tracing works without: the latter is found out when it is asked for.
 */
const KERNEL_STEPS = ['jent_mod_init', 'trace_eval_init', 'ftrace_check_for_weak_functions'];

/**
 * What the kernel would test of its ciphers and signatures when each is registered, RSA with keys of 4096 bits among them: a seventh of
 * the boot. They are tests of its code, which is the same at every boot.
 */
const NO_CIPHER_TESTS = 'cryptomgr.notests=1';

/** The properties. */
export function lean(): PropertyApplication[] {
  return [
    systemd.masked(UNITS),
    ...GENERATORS.map((name) => file.symlink(`/etc/systemd/system-generators/${name}`, '/dev/null')),
    ...UDEV_RULES.map((name) => file.symlink(`/etc/udev/rules.d/${name}`, '/dev/null')),
    ...TMPFILES.map((name) => file.symlink(`/etc/tmpfiles.d/${name}`, '/dev/null')),
    // It names no module, and makes systemd start a program that reads it.
    file.absent('/etc/modules-load.d/modules.conf'),
    file.hasContent('/etc/modprobe.d/buildos-lean.conf', NOT_AT_START.map((name) => `blacklist ${name}\n`).join('')),
    systemd.dropIn(
      'systemd-udev-trigger.service',
      'early.conf',
      `[Service]\nExecStart=\nExecStart=-udevadm trigger --action=add --prioritized-subsystem=block,net ${EARLY_DEVICES.map((name) => `--subsystem-match=${name}`).join(' ')}\n`,
    ),
    systemd.dropIn('systemd-udevd.service', 'first.conf', DEVICES_FIRST),
    systemd.unit('udev-trigger-late.service', LATE_SERVICE),
    systemd.unit('udev-trigger-late.timer', LATE_TIMER),
    systemd.enabled(['udev-trigger-late.timer']),
    kernel.option(`lsm=${SECURITY_MODULES}`),
    kernel.option(`initcall_blacklist=${KERNEL_STEPS.join(',')}`),
    kernel.option(NO_CIPHER_TESTS),
  ];
}
