import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

import { listenFds, statusLine, watchdogUsec } from './sd-notify.ts';

const MODULE = join(import.meta.dirname, 'sd-notify.ts');

/**
 * A child that binds a Unix datagram socket (libc over node:ffi: Node has no such sockets), lets notify() send to it,
 * and prints what arrived as JSON.
 */
const ROUND_TRIP = `
import { notify } from ${JSON.stringify(MODULE)};
const path = process.argv[1];
notify('READY=1'); // NOTIFY_SOCKET is unset: nothing happens
process.env.NOTIFY_SOCKET = path;
notify('STATUS=nobody listens yet');
const libc = process.getBuiltinModule('node:ffi').dlopen('libc.so.6', {
  socket: { arguments: ['i32', 'i32', 'i32'], return: 'i32' },
  bind: { arguments: ['i32', 'buffer', 'u32'], return: 'i32' },
  recv: { arguments: ['i32', 'buffer', 'u64', 'i32'], return: 'i64' },
}).functions;
const address = Buffer.alloc(110);
address.writeUInt16LE(1, 0); // AF_UNIX
address.write(path, 2);
const fd = libc.socket(1, 2, 0); // SOCK_DGRAM
if (libc.bind(fd, address, 110) !== 0) throw new Error('bind');
notify('READY=1\\nSTATUS=Grüße');
notify('WATCHDOG=1');
const got = [];
for (let i = 0; i < 2; i += 1) {
  const data = Buffer.alloc(4096);
  got.push(data.toString('utf8', 0, Number(libc.recv(fd, data, 4096n, 0x40)))); // MSG_DONTWAIT
}
process.emitWarning('still shown', 'ExperimentalWarning');
console.log(JSON.stringify(got));
`;

test(
  'notify() sends whole messages through libsystemd, and only its own warning is kept back',
  { timeout: 20_000 },
  () => {
    const folder = mkdtempSync(join(tmpdir(), 'sd-notify-'));
    try {
      const { NOTIFY_SOCKET: _, ...environment } = process.env;
      const child = spawnSync(process.execPath, ['--input-type=module', '-e', ROUND_TRIP, join(folder, 'socket')], {
        encoding: 'utf8',
        env: environment,
        timeout: 15_000,
      });
      assert.equal(child.status, 0, child.stderr);
      assert.deepEqual(JSON.parse(child.stdout), ['READY=1\nSTATUS=Grüße', 'WATCHDOG=1']);
      assert.match(child.stderr, /still shown/);
      assert.doesNotMatch(child.stderr, /FFI/);
    } finally {
      rmSync(folder, { recursive: true });
    }
  },
);

test('watchdogUsec() answers only when the watchdog is for this process', () => {
  const pid = String(process.pid);
  assert.equal(watchdogUsec({ WATCHDOG_USEC: '30000000', WATCHDOG_PID: pid }), 30_000_000);
  assert.equal(watchdogUsec({ WATCHDOG_USEC: '30000000' }), 30_000_000);
  assert.equal(watchdogUsec({ WATCHDOG_USEC: '30000000', WATCHDOG_PID: '1' }), undefined);
  for (const WATCHDOG_USEC of ['', '0', '-1', '1e9', 'x']) assert.equal(watchdogUsec({ WATCHDOG_USEC }), undefined);
  assert.equal(watchdogUsec({}), undefined);
});

test('listenFds() starts at 3 and refuses what was meant for another process', () => {
  const LISTEN_PID = String(process.pid);
  assert.deepEqual(listenFds({ LISTEN_PID, LISTEN_FDS: '2' }), [3, 4]);
  assert.deepEqual(listenFds({ LISTEN_PID: '1', LISTEN_FDS: '2' }), []);
  for (const LISTEN_FDS of [undefined, '', '0', '-1', 'x', '100000']) {
    assert.deepEqual(listenFds({ LISTEN_PID, LISTEN_FDS }), []);
  }
});

test('statusLine() is one short line without control characters', () => {
  assert.equal(statusLine('a\nb\tc\u001b[31m'), 'STATUS=a b c [31m');
  assert.equal(statusLine('x'.repeat(500)).length, 'STATUS='.length + 200);
});
