import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { GuestEvent, LabEvent } from '../../lab/event.ts';
import { findPxePhases } from './pxe-phases.ts';

const dhcp = (atMs: number, message: string): LabEvent => ({
  source: 'dhcp',
  atMs,
  message,
  interface: 'lab0',
  mac: '52:54:00:77:00:01',
});
const tftp = (atMs: number, durationMs: number, name: string): LabEvent => ({
  source: 'tftp',
  atMs,
  durationMs,
  name,
  peer: '10.77.0.11',
  bytes: 1,
  result: 'done',
});
const http = (atMs: number, durationMs: number, path: string): LabEvent => ({
  source: 'http',
  atMs,
  durationMs,
  method: 'GET',
  path,
  status: 200,
  bytes: 1,
  peer: '10.77.0.11',
  complete: true,
});
const says = (atMs: number, line: string): GuestEvent => ({ source: 'console', atMs, line });

test('a boot program that comes over TFTP asks DHCP a second time', () => {
  const phases = findPxePhases({
    powerOnMs: 1000,
    lab: [
      // Of the boot before, and of the system that has been booted: neither is of the way there.
      dhcp(500, 'DISCOVER'),
      tftp(900, 100, 'snponly.efi'),
      dhcp(3000, 'DISCOVER'),
      dhcp(3100, 'OFFER'),
      dhcp(4000, 'DISCOVER'),
      dhcp(4100, 'ACK'),
      tftp(5000, 500, 'snponly.efi'),
      dhcp(7000, 'DISCOVER'),
      dhcp(7100, 'ACK'),
      http(7300, 100, '/boot.ipxe'),
      http(8000, 500, '/versions/1/buildos-image'),
      http(11_000, 3000, '/versions/1/buildos-initrd'),
      dhcp(14_000, 'DISCOVER'),
      http(15_000, 100, '/versions/current/buildos-buildid'),
    ],
    guest: [
      says(12_000, 'Build OS 01234567: stage 1'),
      says(13_000, 'Build OS 01234567: stage 1 done 2.00 s after the kernel started'),
      says(16_000, '[  OK  ] Reached target multi-user.target - Multi-User System.'),
    ],
  });
  assert.deepEqual(phases, [
    { name: 'firmware', end: 2 },
    { name: 'DHCP', end: 3.5 },
    { name: 'boot program', end: 6 },
    { name: 'DHCP', end: 6.2 },
    { name: 'script', end: 6.5 },
    { name: 'download', end: 10 },
    { name: 'kernel', end: 11 },
    { name: 'init', end: 12 },
    { name: 'multi-user', end: 15 },
  ]);
});
