import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type HostJson, formatHostJson, parseHostJson } from './host-json.ts';
import { parseKernelCommandLine } from './kernel-cmdline.ts';

const host: HostJson = {
  buildId: 'c0ffee',
  ...parseKernelCommandLine(
    'buildos.toolchain_url=http://boot/toolchain.sha256 buildos.controller_url=1=http://c buildos.hostname=h buildos.nonsense',
  ),
  boot: { steps: [{ name: 'mount', startMs: 1200.5, endMs: 1201 }] },
};

test('host.json survives a round trip', () => {
  assert.deepEqual(parseHostJson(formatHostJson(host)), host);
});

test('host.json of a newer init is read, what is not known is dropped', () => {
  assert.deepEqual(parseHostJson(JSON.stringify({ ...host, tomorrow: 1 })), host);
});

test('parseHostJson() says what is missing or wrong', () => {
  assert.throws(() => parseHostJson('{'), { name: 'HostJsonError', message: /not JSON/ });
  assert.throws(() => parseHostJson('{}'), { name: 'HostJsonError', message: /buildId/ });
  assert.throws(() => parseHostJson(JSON.stringify({ ...host, options: { ...host.options, initDebug: 1 } })), {
    message: /options\.initDebug/,
  });
});
