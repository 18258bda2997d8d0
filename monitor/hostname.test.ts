import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hostnameFromMac, parseLeaseHostname } from './hostname.ts';

test('parseLeaseHostname() reads a lease of systemd-networkd', () => {
  const lease =
    '# This is private data. Do not parse.\nADDRESS=10.0.0.5\nNETMASK=255.255.255.0\nHOSTNAME=Build-7.example.org\n';
  assert.equal(parseLeaseHostname(lease), 'build-7');
  assert.equal(parseLeaseHostname('ADDRESS=10.0.0.5\n'), undefined);
  for (const bad of ['', '-x', 'a b', 'x'.repeat(64), '$(reboot)', 'ä'])
    assert.equal(parseLeaseHostname(`HOSTNAME=${bad}\n`), undefined);
});

test('hostnameFromMac() makes a name of a MAC address', () => {
  assert.equal(hostnameFromMac('52:54:00:12:AB:56'), 'buildos-52540012ab56');
  for (const bad of ['00:00:00:00:00:00', '', 'x', '52:54:00:12:34']) assert.equal(hostnameFromMac(bad), undefined);
});
