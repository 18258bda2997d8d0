import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { buildName, buildNumber, isBuildOf, machineAddress, MACHINE_PORTS, nextBuildNumber, portsFor } from './name.ts';

/** As the helper checks a build's name. */
const BUILD = /^[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?$/i;

test('buildName() is the toolchain and a number', () => {
  assert.equal(buildName('default', 7), 'default-7');
  assert.equal(buildNumber('default', 'default-7'), 7);
});

test('buildName() is a valid name of 32 characters at most, whatever the toolchain is called', () => {
  const name = fc.stringMatching(/^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}$/);
  fc.assert(
    fc.property(name, fc.integer({ min: 1, max: 1e12 }), (toolchain, number) => {
      const build = buildName(toolchain, number);
      assert.match(build, BUILD);
      assert.equal(buildNumber(toolchain, build), number);
    }),
  );
});

test('isBuildOf() does not take the builds of another toolchain', () => {
  assert.equal(isBuildOf('default', 'default-1'), true);
  assert.equal(isBuildOf('default', 'default-x-1'), false);
  assert.equal(isBuildOf('default-x', 'default-x-1'), true);
  assert.equal(isBuildOf('default', 'default-01'), false);
  assert.notEqual(buildName('a.b', 1), buildName('a_b', 1));
});

test('nextBuildNumber() passes every known one', () => {
  assert.equal(nextBuildNumber('default', ['default-3', 'other-9', 'default-12', 'junk']), 13);
  assert.equal(nextBuildNumber('default', []), 1);
});

test('machineAddress() is in the link-local range and never the host itself', () => {
  const seen = new Set<string>();
  for (let port = MACHINE_PORTS.first; port <= MACHINE_PORTS.last; port += 1) {
    const address = machineAddress(port);
    const [, , third = NaN] = address.split('.').map(Number);
    assert.ok(third > 0 && third < 255 && address !== '169.254.111.222');
    seen.add(address);
  }
  assert.equal(seen.size, MACHINE_PORTS.last - MACHINE_PORTS.first + 1);
  assert.throws(() => machineAddress(69), RangeError);
});

test('portsFor() tries every port once', () => {
  const ports = [...portsFor('default', 5)];
  assert.equal(new Set(ports).size, MACHINE_PORTS.last - MACHINE_PORTS.first + 1);
  assert.ok(Math.min(...ports) === MACHINE_PORTS.first && Math.max(...ports) === MACHINE_PORTS.last);
});
