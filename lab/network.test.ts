import assert from 'node:assert/strict';
import { test } from 'node:test';
import { labPort, planNetwork, staleNamespaces } from './network.ts';

test('staleNamespaces() names those of dead processes, and nobody else’s', () => {
  const listing = 'buildos-lab-10-1 (id: 2)\nbuildos-lab-11-1\nbuildos-lab-x\nother-10-1\n\n';
  assert.deepEqual(
    staleNamespaces(listing, (pid) => pid === 11),
    ['buildos-lab-10-1'],
  );
});

test('planNetwork() puts each tap on the bridge', () => {
  const plan = planNetwork([labPort(1), labPort(2)]);
  assert.match(plan, /tuntap add tap2 mode tap\nlink set tap2 master lab0 up\n$/);
});

test('labPort() gives each guest a MAC and an address of its own', () => {
  assert.deepEqual(labPort(12), {
    index: 12,
    tap: 'tap12',
    mac: '52:54:00:77:00:0c',
    address: '10.77.0.22',
    hostname: 'host-12',
  });
});
