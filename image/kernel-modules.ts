/**
 * Which kernel modules an image holds: whole classes by the path in the kernel's tree, and what they depend on.
 *
 * A distribution's kernel brings some 4,000 modules, 490 MB when unpacked; a build host needs the tenth part. Classes
 * are named by what they are for, so that a missing driver is found by asking "what is it?" and not by its name.
 */

/** Path prefixes below `/usr/lib/modules/<release>/kernel/` that belong together. */
export interface ModuleClass {
  readonly name: string;
  readonly summary: string;
  /** A prefix that ends in `/` is a folder; another one is the start of a module's file name. */
  readonly prefixes: readonly string[];
}

/** What a virtual machine needs: QEMU, KVM, Xen, Hyper-V, VMware and the clouds' network cards. */
export const VIRTUAL: readonly ModuleClass[] = [
  {
    name: 'virtual',
    summary: 'devices of hypervisors',
    prefixes: [
      'drivers/virtio/',
      'drivers/block/virtio_blk',
      'drivers/block/xen-',
      'drivers/block/loop',
      'drivers/block/nbd',
      'drivers/block/zram/',
      'drivers/net/virtio_net',
      'drivers/net/net_failover',
      'net/core/failover',
      'drivers/net/vmxnet3/',
      'drivers/net/hyperv/',
      'drivers/net/xen-',
      'drivers/net/ethernet/amazon/',
      'drivers/net/ethernet/google/',
      'drivers/net/ethernet/microsoft/',
      'drivers/net/ethernet/intel/e1000/',
      'drivers/net/ethernet/intel/e1000e/',
      'drivers/hv/',
      'drivers/xen/',
      'drivers/scsi/virtio_scsi',
      'drivers/scsi/hv_storvsc',
      'drivers/scsi/vmw_pvscsi',
      'drivers/scsi/scsi_mod',
      'drivers/scsi/scsi_common',
      'drivers/scsi/sd_mod',
      'drivers/scsi/sr_mod',
      'drivers/nvme/',
      'drivers/ata/ahci',
      'drivers/ata/libahci',
      'drivers/ata/libata',
      'drivers/ata/ata_piix',
      'drivers/ata/ata_generic',
      'drivers/char/hw_random/',
      'drivers/char/virtio_console',
      'drivers/firmware/qemu_fw_cfg',
      'drivers/input/serio/',
      'drivers/input/keyboard/',
    ],
  },
  {
    name: 'containers',
    summary: 'name spaces, bridges, NAT, virtual links',
    prefixes: [
      'drivers/net/veth',
      'drivers/net/tun',
      'drivers/net/tap',
      'drivers/net/dummy',
      'drivers/net/macvlan',
      'drivers/vhost/',
      'net/bridge/',
      'net/802/',
      'net/8021q/',
      'net/llc/',
      'net/netfilter/',
      'net/ipv4/',
      'net/ipv6/',
      'net/packet/',
      'net/unix/',
      'net/vmw_vsock/',
      'net/9p/',
      'net/tls/',
      'net/sched/',
      'arch/x86/kvm/',
      'virt/',
    ],
  },
  {
    name: 'filesystems',
    summary: 'what disks and images hold',
    prefixes: [
      'fs/9p/',
      'fs/autofs/',
      'fs/btrfs/',
      'fs/configfs/',
      'fs/efivarfs/',
      'fs/ext4/',
      'fs/jbd2/',
      'fs/mbcache',
      'fs/fat/',
      'fs/fuse/',
      'fs/isofs/',
      'fs/netfs/',
      'fs/nls/',
      'fs/overlayfs/',
      'fs/squashfs/',
      'fs/erofs/',
      'fs/xfs/',
      'drivers/md/',
    ],
  },
  {
    name: 'base',
    summary: 'ciphers, checksums, libraries',
    prefixes: ['crypto/', 'arch/x86/crypto/', 'lib/crypto/', 'mm/', 'block/'],
  },
];

/** What a server's metal needs besides. */
export const SERVER: readonly ModuleClass[] = [
  ...VIRTUAL,
  {
    name: 'network-cards',
    summary: 'wired Ethernet and what it stands on',
    prefixes: [
      'drivers/net/ethernet/',
      'drivers/net/phy/',
      'drivers/net/mdio/',
      'drivers/net/mdio',
      'drivers/net/pcs/',
      'drivers/net/mii',
      'drivers/net/bonding/',
      'drivers/ptp/',
      'drivers/pps/',
      'drivers/dca/',
      'net/core/',
      'net/devlink/',
    ],
  },
  {
    name: 'storage',
    summary: 'disks and their controllers',
    // Not all of drivers/block: looking for a floppy drive that is not there takes seconds.
    prefixes: ['drivers/ata/', 'drivers/scsi/', 'drivers/message/', 'drivers/mmc/'],
  },
  {
    name: 'console-and-buses',
    summary: 'keyboards and disks on USB, watchdogs, sensors, IPMI',
    prefixes: [
      'drivers/usb/core/',
      'drivers/usb/common/',
      'drivers/usb/host/',
      'drivers/usb/storage/',
      'drivers/hid/hid',
      'drivers/hid/usbhid/',
      'drivers/watchdog/',
      'drivers/hwmon/coretemp',
      'drivers/hwmon/k10temp',
      'drivers/char/ipmi/',
      'drivers/acpi/',
      'drivers/cpufreq/',
      'drivers/firmware/',
    ],
  },
];

/** The classes of each hardware profile. */
export const HARDWARE: Readonly<Record<Hardware, readonly ModuleClass[]>> = { vm: VIRTUAL, server: SERVER };

/** Where an image is to run. */
export type Hardware = 'vm' | 'server';

/**
 * Chooses the modules to keep: those of the classes, and all that they depend on.
 *
 * @param modulesDep - the text of `modules.dep` (depmod(8)): `path: dependency dependency …`
 * @param classes - see {@link HARDWARE}
 * @returns paths as they stand in `modules.dep`, sorted
 */
export function chooseModules(modulesDep: string, classes: readonly ModuleClass[]): readonly string[] {
  const dependencies = parseModulesDep(modulesDep);
  const prefixes = classes.flatMap((each) => each.prefixes.map((prefix) => `kernel/${prefix}`));
  const kept = new Set<string>();
  for (const [path, needs] of dependencies) {
    if (!prefixes.some((prefix) => path.startsWith(prefix))) continue;
    kept.add(path);
    for (const needed of needs) kept.add(needed);
  }
  return [...kept].sort();
}

/**
 * The order in which to load modules by name, with what they depend on before them.
 *
 * @param names - module names, `-` and `_` alike, without suffix
 * @returns paths as in `modules.dep`; a name that `modules.dep` lacks is left out (built in, or not there)
 */
export function loadOrder(modulesDep: string, names: readonly string[]): readonly string[] {
  const dependencies = parseModulesDep(modulesDep);
  const byName = new Map([...dependencies.keys()].map((path) => [moduleName(path), path]));
  const order: string[] = [];
  for (const name of names) {
    const path = byName.get(moduleName(name));
    if (path === undefined) continue;
    // depmod writes the nearest dependency first; what has none of its own stands last.
    for (const each of [...(dependencies.get(path) ?? [])].reverse()) if (!order.includes(each)) order.push(each);
    if (!order.includes(path)) order.push(path);
  }
  return order;
}

/** `kernel/fs/squashfs/squashfs.ko.xz` → `squashfs`. */
export function moduleName(path: string): string {
  const file = path.slice(path.lastIndexOf('/') + 1);
  return file.replace(/\.ko(\.(xz|zst|gz))?$/, '').replaceAll('-', '_');
}

function parseModulesDep(text: string): ReadonlyMap<string, readonly string[]> {
  const found = new Map<string, readonly string[]>();
  for (const line of text.split('\n')) {
    const colon = line.indexOf(':');
    if (colon > 0)
      found.set(
        line.slice(0, colon),
        line
          .slice(colon + 1)
          .split(' ')
          .filter(Boolean),
      );
  }
  return found;
}
