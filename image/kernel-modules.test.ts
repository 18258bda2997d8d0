import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chooseModules, loadOrder, MissingModuleError, moduleName } from './kernel-modules.ts';
import { classesOf } from './module-classes.ts';

const MODULES_DEP = `kernel/fs/btrfs/btrfs.ko.xz: kernel/crypto/xor.ko.xz kernel/lib/raid6/raid6_pq.ko.xz kernel/lib/libcrc32c.ko.xz
kernel/crypto/xor.ko.xz:
kernel/lib/raid6/raid6_pq.ko.xz:
kernel/lib/libcrc32c.ko.xz:
kernel/drivers/net/virtio_net.ko.xz: kernel/drivers/net/net_failover.ko.xz kernel/net/core/failover.ko.xz
kernel/drivers/net/net_failover.ko.xz: kernel/net/core/failover.ko.xz
kernel/net/core/failover.ko.xz:
kernel/drivers/net/ethernet/broadcom/tg3.ko.xz: kernel/drivers/ptp/ptp.ko.xz
kernel/drivers/ptp/ptp.ko.xz:
kernel/sound/core/snd.ko.xz:
`;

const INDEX = {
  dep: `${MODULES_DEP}kernel/arch/x86/crypto/crc32c-intel.ko.xz:\nkernel/crypto/blake2b_generic.ko.xz:\nkernel/fs/fat/vfat.ko.xz:\n`,
  softdep: 'softdep btrfs pre: crypto-crc32c\nsoftdep btrfs pre: blake2b-256\n',
  alias:
    'alias fs-vfat vfat\nalias crypto-crc32c crc32c_intel\nalias blake2b-256 blake2b_generic\nalias pci:v*d* snd\n',
  builtin: 'kernel/fs/ext4/ext4.ko\n',
} as const;

const choose = (options: Partial<Parameters<typeof chooseModules>[1]>): readonly string[] =>
  chooseModules(INDEX, { release: '6.1-test', classes: [], wanted: [], ...options }).map(moduleName);

test('chooseModules() keeps the classes of the hardware with what they depend on, and nothing else', () => {
  const server = choose({ classes: classesOf('server', []) });
  assert.ok(server.includes('tg3') && server.includes('ptp') && server.includes('virtio_net'));
  assert.ok(!server.includes('snd') && !server.includes('btrfs'));
  assert.deepEqual(choose({ classes: classesOf('vm', []) }), ['net_failover', 'virtio_net', 'failover']);
});

test('chooseModules() keeps the classes that a definition asks for, with what their modules load when they run', () => {
  assert.deepEqual(choose({ classes: classesOf('vm', ['filesystems']) }).toSorted(), [
    'blake2b_generic',
    'btrfs',
    'crc32c_intel',
    'failover',
    'libcrc32c',
    'net_failover',
    'raid6_pq',
    'vfat',
    'virtio_net',
    'xor',
  ]);
});

test('chooseModules() keeps modules that are named, also by alias; what is built in is there', () => {
  assert.deepEqual(choose({ wanted: ['virtio-net', 'fs-vfat', 'ext4'] }).toSorted(), [
    'failover',
    'net_failover',
    'vfat',
    'virtio_net',
  ]);
});

test('chooseModules() names the modules that the kernel does not have', () => {
  assert.throws(
    () => choose({ wanted: ['btrfs', 'btfrs', 'zfs'] }),
    (error) => {
      assert.ok(error instanceof MissingModuleError);
      assert.deepEqual(error.names, ['btfrs', 'zfs']);
      assert.match(error.message, /Linux 6\.1-test has no kernel module "btfrs", "zfs"/);
      return true;
    },
  );
});

test('loadOrder() puts dependencies first, each module once, and passes over what is built in', () => {
  assert.deepEqual(loadOrder(MODULES_DEP, ['virtio-net', 'net_failover', 'ext4']).map(moduleName), [
    'failover',
    'net_failover',
    'virtio_net',
  ]);
});

test('moduleName() is what the kernel calls it', () => {
  assert.equal(moduleName('kernel/drivers/block/xen-blkfront.ko.xz'), 'xen_blkfront');
  assert.equal(moduleName('a/b.ko'), 'b');
});
