import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Connection, FileError, type RunResult } from '../connections/connection.ts';
import { lookAtConsoles, lookAtRoot, parseMemoryMiB, parsePayload } from './look.ts';

const LAYERS = [{ name: 'layer-1.squashfs', size: 12_345, sha256: 'ab'.repeat(32) }];
const PAYLOAD_JSON = JSON.stringify({ buildId: 'c0ffee', layers: LAYERS });

/** A host that has these files, and whose programs all print the same. */
function fakeHost(files: Readonly<Record<string, string>>, stdout = ''): Connection {
  const result: RunResult = { status: 0, stdout: Buffer.from(stdout), stderr: new Uint8Array() };
  return {
    chain: [['local']],
    kind: 'native',
    run: () => Promise.resolve(result),
    readFile: (path) => {
      const content = files[path];
      if (content !== undefined) return Promise.resolve(Buffer.from(content));
      return Promise.reject(new FileError({ action: 'read', path, code: 'ENOENT', reason: 'no such file' }));
    },
    writeFile: () => Promise.reject(new Error('a look changes nothing')),
    async [Symbol.asyncDispose]() {},
  };
}

const FILES = {
  '/buildos/payload.json': PAYLOAD_JSON,
  '/proc/meminfo': 'MemTotal:         991188 kB\nMemFree: 1 kB\n',
};

test('look finds the payload and whether its content is there', async () => {
  assert.deepEqual(await lookAtRoot(fakeHost(FILES, '1021994 100 4096\n12345 16 512\n')), {
    payload: { buildId: 'c0ffee', layers: LAYERS },
    layers: [{ sizeBytes: 12_345, storedBytes: 8192 }],
    initramfsFreeBytes: 409_600,
    memoryMiB: 967,
  });
  const whole = await lookAtRoot(fakeHost(FILES, '1021994 100 4096\n12345 32 512\n'));
  assert.deepEqual(whole.layers, [{ sizeBytes: 12_345, storedBytes: 12_345 }]);
  const missing = await lookAtRoot(fakeHost(FILES, '1021994 100 4096\n'));
  assert.deepEqual(missing.layers, [{ sizeBytes: undefined, storedBytes: 0 }]);
  const ramfs = await lookAtRoot(fakeHost(FILES, '858458f6 0 4096\n12345 0 512\n'));
  assert.deepEqual(ramfs.layers, [{ sizeBytes: 12_345, storedBytes: undefined }]);
});

test('look names the file that the initrd lacks', async () => {
  await assert.rejects(lookAtRoot(fakeHost({})), {
    name: 'InitError',
    step: 'payload',
    message: 'The initrd or the image lacks /buildos/payload.json',
  });
});

test('look finds the consoles, and none is no error', async () => {
  assert.deepEqual(await lookAtConsoles(fakeHost({ '/sys/class/tty/console/active': 'tty0 ttyS0\n' })), [
    'tty0',
    'ttyS0',
  ]);
  assert.deepEqual(await lookAtConsoles(fakeHost({})), []);
});

test('parsePayload() refuses what image/ does not write', () => {
  for (const bad of [
    '',
    '[]',
    'null',
    '{"buildId":"x"}',
    PAYLOAD_JSON.replace('12345', '0'),
    PAYLOAD_JSON.replace('abab', 'xy'),
    PAYLOAD_JSON.replace('layer-1', '../x'),
    JSON.stringify({ buildId: 'x', layers: [] }),
  ]) {
    assert.throws(() => parsePayload(bad), { name: 'InitError', step: 'payload' }, bad);
  }
});

test('parseMemoryMiB() is 0 without MemTotal', () => {
  assert.equal(parseMemoryMiB('MemFree: 1 kB\n'), 0);
});
