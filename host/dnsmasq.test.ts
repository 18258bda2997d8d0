import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BOOT_FILES, dnsmasqArgv, formatBootOptions, parseDhcpLine } from './dnsmasq.ts';

test('dnsmasq serves DHCP only, and sends each firmware its own boot file', () => {
  const argv = dnsmasqArgv({
    interface: 'lab0',
    address: '10.77.0.1',
    range: ['10.77.0.50', '10.77.0.99'],
    advertise: 'fd00:77::',
    hosts: [{ mac: '52:54:00:77:00:01', address: '10.77.0.11', name: 'host-1' }],
    leaseFile: '/t/leases',
  });
  assert.ok(argv.includes('--port=0'));
  assert.ok(!argv.some((word) => word.startsWith('--enable-tftp')));
  assert.deepEqual(
    argv.filter((word) => word.startsWith('--dhcp-boot=')),
    [
      '--dhcp-boot=tag:ipxe,boot.ipxe,,10.77.0.1',
      '--dhcp-boot=tag:!ipxe,tag:uefi,snponly.efi,,10.77.0.1',
      '--dhcp-boot=tag:!ipxe,tag:!uefi,tag:!http,undionly.kpxe,,10.77.0.1',
    ],
  );
  assert.ok(argv.includes('--dhcp-host=52:54:00:77:00:01,10.77.0.11,host-1'));
});

test('formatBootOptions() has a file for every client, and one only', () => {
  const of = (files: Parameters<typeof formatBootOptions>[0]): string[] =>
    formatBootOptions(files).filter((line) => line.startsWith('dhcp-boot='));
  assert.deepEqual(of({ ...BOOT_FILES, http: 'http://192.0.2.1/snponly.efi' }), [
    'dhcp-boot=tag:ipxe,boot.ipxe',
    'dhcp-boot=tag:!ipxe,tag:uefi,snponly.efi',
    'dhcp-boot=tag:!ipxe,tag:!uefi,tag:!http,undionly.kpxe',
    'dhcp-boot=tag:!ipxe,tag:http,http://192.0.2.1/snponly.efi',
  ]);
  assert.deepEqual(of({ ...BOOT_FILES, bios: 'lpxelinux.0', withoutIpxe: ['bios'] }), [
    'dhcp-boot=tag:ipxe,tag:uefi,boot.ipxe',
    'dhcp-boot=tag:!ipxe,tag:uefi,snponly.efi',
    'dhcp-boot=tag:!uefi,tag:!http,lpxelinux.0',
  ]);
  assert.deepEqual(of({ ...BOOT_FILES, uefi: 'grubx64.efi', withoutIpxe: ['uefi'] }), [
    'dhcp-boot=tag:ipxe,tag:!uefi,boot.ipxe',
    'dhcp-boot=tag:uefi,grubx64.efi',
    'dhcp-boot=tag:!ipxe,tag:!uefi,tag:!http,undionly.kpxe',
  ]);
  assert.deepEqual(of({ ...BOOT_FILES, bios: 'p', uefi: 'g', withoutIpxe: ['bios', 'uefi'] }), [
    'dhcp-boot=tag:uefi,g',
    'dhcp-boot=tag:!uefi,tag:!http,p',
  ]);
});

test('parseDhcpLine() reads the four messages of a lease', () => {
  assert.deepEqual(parseDhcpLine('dnsmasq-dhcp: DHCPDISCOVER(lab0) 52:54:00:77:00:01'), {
    message: 'DISCOVER',
    interface: 'lab0',
    mac: '52:54:00:77:00:01',
  });
  assert.deepEqual(parseDhcpLine('dnsmasq-dhcp[12]: DHCPACK(lab0) 10.77.0.11 52:54:00:77:00:01 host-1'), {
    message: 'ACK',
    interface: 'lab0',
    address: '10.77.0.11',
    mac: '52:54:00:77:00:01',
  });
  assert.equal(parseDhcpLine('dnsmasq: started, version 2.90 DNS disabled'), undefined);
});
