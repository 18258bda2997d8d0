import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseLinks } from './ip.ts';

test('parseLinks() reads what ip -json -details says', () => {
  const rows = [
    { ifname: 'lo', flags: ['LOOPBACK', 'UP'], address: '00:00:00:00:00:00' },
    { ifname: 'br1', flags: ['BROADCAST'], linkinfo: { info_kind: 'bridge' } },
    {
      ifname: 'vb1',
      flags: ['UP'],
      master: 'br1',
      ifalias: 'buildos-default-7',
      linkinfo: { info_kind: 'veth', info_slave_kind: 'bridge' },
    },
    { flags: 7 },
    {},
  ];
  assert.deepEqual(parseLinks(rows), [
    { name: 'lo', up: true, address: '00:00:00:00:00:00' },
    { name: 'br1', up: false, kind: 'bridge' },
    { name: 'vb1', up: true, kind: 'veth', master: 'br1', alias: 'buildos-default-7' },
  ]);
});
