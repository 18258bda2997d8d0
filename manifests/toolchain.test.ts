import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { parseBuildId } from './build-id.ts';
import { formatImageManifest, parseImageManifest } from './image-manifest.ts';
import type { ImageManifest } from './image-manifest.ts';
import { formatMachineManifest, parseMachineManifest } from './machine.ts';
import type { MachineManifest } from './machine.ts';
import { fillIn, formatToolchainJson, parseToolchainJson } from './toolchain.ts';

test('parseToolchainJson() reads it and fills in what may be left out', () => {
  const text = readFileSync(join(import.meta.dirname, 'testdata/toolchain.json'), 'utf8');
  const toolchain = parseToolchainJson(text);
  assert.deepEqual(toolchain, {
    bootstrap: {
      command: ['sh', '{files}/bootstrap.sh', '{prefix}'],
      timeLimitSeconds: 300,
      leaves: ['bin/bmake'],
      environment: {},
    },
    agent: 'buildos-agent.tar',
    machine: { environment: { MAKE: '{prefix}/bin/bmake' } },
  });
  assert.deepEqual(parseToolchainJson(formatToolchainJson(toolchain)), toolchain);
  const small = parseToolchainJson('{"bootstrap":{"command":["true"]},"agent":"a.tar"}');
  assert.equal(small.bootstrap.timeLimitSeconds, 900);
  assert.deepEqual(small.machine, { environment: {} });
});

test('parseToolchainJson() says where and what is wrong', () => {
  for (const [text, expected] of [
    ['{\n  "agent": }', { line: 2, reason: /it is not JSON/ }],
    ['{"agent": "a"', { line: 1, reason: /it is not JSON/ }],
    ['[]', { line: 1, reason: /the document: .*expected object/ }],
    ['{\n"bootstrap": {\n  "command": []},\n"agent": "a"}', { line: 3, column: 3, reason: /^bootstrap\.command: / }],
    ['{"bootstrap":{"command":["x"]},\n "agent":"../a"}', { line: 2, reason: /^agent: the file name leads elsewhere/ }],
    ['{"bootstrap":{"command":["x"]},"agent":"a",\n"agnet":"b"}', { line: 2, reason: /^agnet: Unrecognized key/ }],
    [
      '{"bootstrap":{"command":["x"],"environment":{"A B":"c"}},"agent":"a"}',
      { reason: /^bootstrap\.environment\.A B: / },
    ],
  ] as const) {
    assert.throws(() => parseToolchainJson(text), { name: 'ManifestError', ...expected }, text);
  }
});

test('fillIn() puts directories in the place of their names, once', () => {
  const directories = { files: '/f/{prefix}', prefix: '/p' };
  assert.equal(fillIn('{files}:{prefix}:{other}', directories), '/f/{prefix}:/p:{other}');
});

test('a machine manifest is read back as it was written', () => {
  const machine: MachineManifest = {
    id: 'linux_debian_13-gcc_14-1',
    name: 'linux_debian_13-gcc_14',
    summary: 'Debian 13 with gcc 14',
    type: 'nspawn',
    ramMinimumKiB: 512_000,
    mac: '02:00:00:00:00:01',
    options: '--bind /x',
    changes: ['1: first\nversion', '2: more'],
  };
  assert.deepEqual(parseMachineManifest(formatMachineManifest(machine)), machine);
  const text = formatMachineManifest({ id: '1', name: 'm', summary: 's', type: 'kvm' });
  assert.deepEqual(parseMachineManifest(text), { id: '1', name: 'm', summary: 's', type: 'kvm' });
  assert.throws(() => parseMachineManifest(text.replace('kvm', 'vmware')), { line: 5, reason: /one of kvm, nspawn/ });
  assert.throws(() => parseMachineManifest(text.replace('type: kvm\n', '')), { reason: /"type" is missing/ });
  assert.throws(() => parseMachineManifest(`${text}mac: 1\n`), { line: 6, reason: /a MAC address/ });
});

test('an image manifest is read back as it was written; keys of later versions are dropped', () => {
  const digest = '0'.repeat(64);
  const image: ImageManifest = {
    format: 1,
    buildId: 'abc',
    host: 'build-host',
    hostSha256: digest,
    architecture: 'amd64',
    base: { name: 'debian', version: '13', suite: 'trixie' },
    kernelVersion: '6.12',
    node: { version: '26.10.0', sha256: digest },
    packages: [{ name: 'systemd', version: '257', architecture: 'amd64' }],
    files: [{ path: 'buildos-image', sha256: digest, sizeBytes: 12_000_000 }],
    rootfsBytes: 200_000_000,
  };
  assert.deepEqual(parseImageManifest(formatImageManifest(image)), image);
  assert.deepEqual(parseImageManifest(JSON.stringify({ ...image, later: 1 })), image);
  assert.throws(() => parseImageManifest(JSON.stringify({ ...image, format: 2 })), { reason: /^format: / });
});

test('parseBuildId() takes one line and nothing else', () => {
  assert.equal(parseBuildId('20260101-abc\n'), '20260101-abc');
  for (const text of ['', '\n', 'a b', 'a\nb\n', '<html>', ' a', 'x'.repeat(200)]) {
    assert.throws(() => parseBuildId(text), { name: 'ManifestError' }, text);
  }
});
