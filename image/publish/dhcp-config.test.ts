import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatDnsmasqConf } from './dhcp-config.ts';

const options = (text: string): string[] => text.split('\n').filter((line) => line.startsWith('dhcp-boot='));

test('formatDnsmasqConf() lets iPXE, and firmware that boots over HTTP, do without TFTP', () => {
  assert.deepEqual(options(formatDnsmasqConf({ bios: 'ipxe', uefi: 'ipxe' }, 'http://192.0.2.1/os')), [
    'dhcp-boot=tag:ipxe,http://192.0.2.1/os/boot.ipxe',
    'dhcp-boot=tag:!ipxe,tag:uefi,snponly.efi',
    'dhcp-boot=tag:!ipxe,tag:!uefi,tag:!http,undionly.kpxe',
    'dhcp-boot=tag:!ipxe,tag:http,http://192.0.2.1/os/snponly.efi',
  ]);
});

test('formatDnsmasqConf() names the PXELINUX that can read what is published', () => {
  const loaders = { bios: 'pxelinux', uefi: 'grub' } as const;
  assert.deepEqual(options(formatDnsmasqConf(loaders, undefined)), [
    'dhcp-boot=tag:uefi,grubx64.efi',
    'dhcp-boot=tag:!uefi,tag:!http,pxelinux.0',
  ]);
  assert.match(formatDnsmasqConf(loaders, 'http://192.0.2.1'), /^dhcp-boot=.*,lpxelinux\.0$/m);
  assert.match(formatDnsmasqConf(loaders, 'https://192.0.2.1'), /^dhcp-boot=.*,pxelinux\.0$/m);
});
