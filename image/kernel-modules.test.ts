import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chooseModules, HARDWARE, loadOrder, moduleName } from './kernel-modules.ts';

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

test('chooseModules() keeps classes with what they depend on, and nothing else', () => {
  const server = chooseModules(MODULES_DEP, HARDWARE.server);
  assert.ok(server.includes('kernel/drivers/net/ethernet/broadcom/tg3.ko.xz'));
  assert.ok(server.includes('kernel/drivers/ptp/ptp.ko.xz'));
  assert.ok(!server.includes('kernel/sound/core/snd.ko.xz'));
  const vm = chooseModules(MODULES_DEP, HARDWARE.vm);
  assert.ok(vm.includes('kernel/drivers/net/virtio_net.ko.xz'));
  assert.ok(!vm.includes('kernel/drivers/net/ethernet/broadcom/tg3.ko.xz'));
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
