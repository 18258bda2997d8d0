/** What a kernel can be used for: classes of its modules, which `kernel.supports` takes. What is in them: `image/module-classes.ts`. */
export const KERNEL_CLASSES = [
  { name: 'filesystems', summary: 'disks and sticks: btrfs, xfs, ext4, FAT, ISO 9660, UDF, erofs' },
  { name: 'network-filesystems', summary: 'NFS, SMB, 9p (folders that QEMU shares), NBD, NVMe over the network' },
  { name: 'volumes', summary: 'LVM, RAID, dm-crypt, dm-verity, thin pools, bcache' },
  { name: 'containers', summary: 'virtual links, bridges, VLANs, tun and tap, NAT and packet filters' },
  { name: 'firewall', summary: 'nftables and iptables' },
  { name: 'networking', summary: 'WireGuard, VXLAN, tunnels, IPsec, bonds and teams, traffic control' },
  { name: 'virtual-machines', summary: 'KVM, vhost, VFIO: for a host of virtual machines' },
  { name: 'ciphers', summary: 'all ciphers and digests; those that a module of another class asks for come with it' },
] as const;

/** One of {@link KERNEL_CLASSES}. */
export type KernelClass = (typeof KERNEL_CLASSES)[number]['name'];
