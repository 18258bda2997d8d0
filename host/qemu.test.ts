import assert from 'node:assert/strict';
import { test } from 'node:test';
import { cpuModel, parseQemuVersion, qemuArgv } from './qemu.ts';
import type { QemuGuest } from './qemu.ts';

const GUEST: QemuGuest = {
  name: 'host-1',
  version: { major: 7, minor: 2 },
  accelerator: 'tcg',
  firmware: 'bios',
  memoryMiB: 2048,
  cpus: 2,
  network: { tap: 'tap1', mac: '52:54:00:77:00:01' },
  consoleSocket: '/run/c.sock',
  consoleLog: '/run/c.log',
  qmpSocket: '/run/q.sock',
};

test('a BIOS guest boots from the ROM of its network card', () => {
  const argv = qemuArgv(GUEST);
  assert.ok(argv.includes('virtio-net-pci,netdev=net0,mac=52:54:00:77:00:01,bootindex=1'));
  assert.ok(!argv.includes('-no-reboot'));
  assert.ok(!argv.includes('-kernel'));
});

test('a UEFI guest has its own variables, and no option ROM', () => {
  const argv = qemuArgv({ ...GUEST, firmware: 'uefi', ovmf: { code: '/f/code.fd', vars: '/tmp/a,b/vars.fd' } });
  assert.ok(argv.includes('virtio-net-pci,netdev=net0,mac=52:54:00:77:00:01,bootindex=1,romfile='));
  assert.ok(argv.includes('if=pflash,unit=1,format=raw,file=/tmp/a,,b/vars.fd'));
  assert.throws(() => qemuArgv({ ...GUEST, firmware: 'uefi' }), TypeError);
});

test('a direct boot names kernel, initrd and arguments', () => {
  const argv = qemuArgv({
    ...GUEST,
    firmware: 'direct',
    kernel: { file: '/k', initrd: '/i', append: 'console=ttyS0' },
  });
  assert.deepEqual(argv.slice(argv.indexOf('-kernel'), argv.indexOf('-kernel') + 6), [
    '-kernel',
    '/k',
    '-initrd',
    '/i',
    '-append',
    'console=ttyS0',
  ]);
  assert.throws(() => qemuArgv({ ...GUEST, firmware: 'direct' }), TypeError);
});

test('a snapshot disk leaves its file alone', () => {
  const argv = qemuArgv({ ...GUEST, disks: [{ file: '/m.img', format: 'raw', snapshot: true }] });
  assert.ok(argv.some((word) => word.includes('snapshot=on,file=/m.img')));
});

test('cpuModel() avoids cmpxchg16b where QEMU is older than 10', () => {
  assert.equal(cpuModel('tcg', { major: 7, minor: 2 }), 'qemu64,-cx16,+rdrand');
  assert.equal(cpuModel('tcg', { major: 10, minor: 0 }), 'max');
  assert.equal(cpuModel('kvm', { major: 7, minor: 2 }), 'host');
});

test('parseQemuVersion() reads what Debian prints, and refuses what is no version', () => {
  assert.deepEqual(parseQemuVersion('QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\n'), {
    major: 7,
    minor: 2,
  });
  assert.throws(() => parseQemuVersion('command not found'), RangeError);
});
