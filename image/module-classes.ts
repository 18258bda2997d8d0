/**
 * The classes of kernel modules: by what they are for, so that a missing driver is found by asking "what is it?" and not by
 * its name. Hardware is chosen when the image is built (`--hardware`), the rest by the host's definition (`kernel.supports`).
 */
import { KERNEL_CLASSES, type KernelClass } from '../properties/kernel-classes.ts';

/** Path prefixes below `/usr/lib/modules/<release>/kernel/` that belong together. */
export interface ModuleClass {
  readonly name: string;
  readonly summary: string;
  /** A prefix that ends in `/` is a folder; another one is the start of a module's file name. */
  readonly prefixes: readonly string[];
}

/** What every image needs: its own root in RAM, DHCP, the console. */
const BASE: ModuleClass = {
  name: 'base',
  summary: 'the root in RAM, DHCP, addresses',
  prefixes: [
    'drivers/block/loop',
    'drivers/block/zram/',
    'fs/autofs/',
    'fs/efivarfs/',
    'fs/fuse/',
    'fs/overlayfs/',
    'fs/squashfs/',
    'net/ipv6/ipv6.',
    'net/packet/af_packet.',
    'net/unix/unix.',
  ],
};

/** What a virtual machine needs: QEMU, KVM, Xen, Hyper-V, VMware and the clouds' network cards. */
const VIRTUAL: ModuleClass = {
  name: 'virtual',
  summary: 'devices of hypervisors, seen from a guest',
  prefixes: [
    'drivers/virtio/',
    'drivers/block/virtio_blk',
    'drivers/block/xen-blkfront',
    'drivers/net/virtio_net',
    'drivers/net/net_failover',
    'net/core/failover',
    'net/vmw_vsock/',
    'drivers/net/vmxnet3/',
    'drivers/net/hyperv/',
    'drivers/net/xen-netfront',
    'drivers/net/ethernet/amazon/',
    'drivers/net/ethernet/google/',
    'drivers/net/ethernet/microsoft/',
    'drivers/net/ethernet/intel/e1000/',
    'drivers/net/ethernet/intel/e1000e/',
    'drivers/hv/',
    'drivers/xen/xen-evtchn',
    'drivers/xen/xen-gntdev',
    'drivers/xen/xen-privcmd',
    'drivers/xen/xenfs/',
    'drivers/scsi/virtio_scsi',
    'drivers/scsi/hv_storvsc',
    'drivers/scsi/vmw_pvscsi',
    'drivers/scsi/scsi_mod',
    'drivers/scsi/scsi_common',
    'drivers/scsi/sd_mod',
    'drivers/scsi/sr_mod',
    'drivers/nvme/host/nvme.',
    'drivers/nvme/host/nvme-core.',
    'drivers/ata/ahci.',
    'drivers/ata/libahci.',
    'drivers/ata/libata.',
    'drivers/ata/ata_piix.',
    'drivers/ata/ata_generic.',
    'drivers/char/hw_random/',
    'drivers/char/virtio_console',
    'drivers/firmware/qemu_fw_cfg',
    'drivers/input/serio/',
    'drivers/input/keyboard/',
  ],
};

/** What a server's metal needs besides. */
const METAL: readonly ModuleClass[] = [
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
    prefixes: ['drivers/ata/', 'drivers/scsi/', 'drivers/message/', 'drivers/mmc/', 'drivers/nvme/host/'],
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

/** Where an image is to run. */
export type Hardware = 'vm' | 'server';

/** The classes of each. A server has a virtual machine's too: the same image boots in one, to be tried. */
const HARDWARE: Readonly<Record<Hardware, readonly ModuleClass[]>> = {
  vm: [BASE, VIRTUAL],
  server: [BASE, VIRTUAL, ...METAL],
};

const FIREWALL: readonly string[] = [
  'net/netfilter/',
  'net/ipv4/netfilter/',
  'net/ipv6/netfilter/',
  'net/bridge/netfilter/',
];

/** What each class of a definition brings; `kernel.supports` says what it is for. */
const USES: Readonly<Record<KernelClass, readonly string[]>> = {
  filesystems: [
    'fs/btrfs/',
    'fs/configfs/',
    'fs/erofs/',
    'fs/exfat/',
    'fs/ext4/',
    'fs/jbd2/',
    'fs/mbcache',
    'fs/fat/',
    'fs/isofs/',
    'fs/nls/',
    'fs/udf/',
    'fs/xfs/',
  ],
  'network-filesystems': [
    'fs/9p/',
    'net/9p/',
    'fs/nfs/',
    'fs/nfs_common/',
    'fs/lockd/',
    'net/sunrpc/',
    'fs/smb/client/',
    'drivers/block/nbd',
    'drivers/nvme/host/',
  ],
  volumes: ['drivers/md/'],
  containers: [
    'drivers/net/veth',
    'drivers/net/dummy',
    'drivers/net/macvlan',
    'drivers/net/tun',
    'net/bridge/',
    'net/802/',
    'net/8021q/',
    'net/llc/',
    ...FIREWALL,
  ],
  firewall: FIREWALL,
  networking: [
    'drivers/net/bonding/',
    'drivers/net/dummy',
    'drivers/net/geneve',
    'drivers/net/ifb',
    'drivers/net/ipvlan/',
    'drivers/net/macsec',
    'drivers/net/macvlan',
    'drivers/net/team/',
    'drivers/net/tun',
    'drivers/net/tap',
    'drivers/net/veth',
    'drivers/net/vrf',
    'drivers/net/vxlan/',
    'drivers/net/wireguard/',
    'net/802/',
    'net/8021q/',
    'net/bridge/',
    'net/ipv4/',
    'net/ipv6/',
    'net/llc/',
    'net/sched/',
    'net/tls/',
    'net/xfrm/',
  ],
  'virtual-machines': [
    'arch/x86/kvm/',
    'virt/',
    'drivers/vhost/',
    'drivers/net/tun',
    'drivers/net/tap',
    'drivers/vfio/',
  ],
  ciphers: ['crypto/', 'arch/x86/crypto/', 'lib/crypto/'],
};

/** All classes there are, those of hardware first. */
export const ALL_CLASSES: readonly ModuleClass[] = [
  ...HARDWARE.server,
  ...KERNEL_CLASSES.map(({ name, summary }) => ({ name, summary, prefixes: USES[name] })),
];

/** The classes of an image: of its hardware, then of its definition. */
export function classesOf(hardware: Hardware, asked: readonly KernelClass[]): readonly ModuleClass[] {
  return ALL_CLASSES.filter((each) => HARDWARE[hardware].includes(each) || asked.some((name) => name === each.name));
}
