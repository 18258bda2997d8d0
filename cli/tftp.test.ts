/** What the tftp commands print and read, without a network. */
import assert from 'node:assert/strict';
import { closeSync, openSync } from 'node:fs';
import { test } from 'node:test';

import { Command, CommanderError } from 'commander';

import { ListenError } from '../tftp/error.ts';
import type { TftpServer } from '../tftp/serve-options.ts';
import type { TransferEvent } from '../tftp/transfer-event.ts';
import { AddressServers } from './tftp-addresses.ts';
import { LineLimit, describeTransfer } from './tftp-log.ts';
import { parseMetricsTarget } from './tftp-metrics.ts';
import { PrivilegeError, chooseUser } from './tftp-privileges.ts';
import { formatBytes, formatProgress } from './tftp-progress.ts';
import { checkHandedSocket } from './tftp-sockets.ts';
import { parseTarget } from './tftp-target.ts';

const command = new Command('get').exitOverride().configureOutput({ writeErr: () => {} });

test('a target is a URL, or host and name', () => {
  const cases: readonly [string, string | undefined, string][] = [
    ['192.0.2.7', 'linux', '192.0.2.7 - linux'],
    ['192.0.2.7:6969', 'a b', '192.0.2.7 6969 a b'],
    ['2001:db8::7', 'linux', '2001:db8::7 - linux'],
    ['[2001:db8::7]:6969', 'linux', '2001:db8::7 6969 linux'],
    ['fe80::1%eth0', 'linux', 'fe80::1%eth0 - linux'],
    ['tftp://h/a%20b%25', undefined, 'h - a b%'],
    ['tftp://h:70/x/y;mode=netascii', undefined, 'h 70 x/y netascii'],
    ['tftp://[fe80::1%25eth0]:70/x', undefined, 'fe80::1%eth0 70 x'],
    ['tftp://h/what?is#this', undefined, 'h - what?is#this'],
  ];
  for (const [urlOrHost, name, expected] of cases) {
    const { host, port, name: parsed, mode } = parseTarget(command, urlOrHost, name, undefined);
    assert.equal([host, port ?? '-', parsed, ...(mode ? [mode] : [])].join(' '), expected);
  }
  assert.equal(parseTarget(command, 'tftp://h/x', undefined, 99).port, 99);
  for (const wrong of [
    'http://h/x',
    'tftp://h/',
    'tftp:///x',
    'tftp://h:0/x',
    'tftp://h/%zz',
    'tftp://h/x;mode=mail',
  ]) {
    assert.throws(() => parseTarget(command, wrong, undefined, undefined), CommanderError, wrong);
  }
  for (const wrong of ['h', 'h:0', ':69']) {
    assert.throws(() => parseTarget(command, wrong, wrong === 'h' ? undefined : 'x', undefined), CommanderError, wrong);
  }
});

test('progress fits the terminal, with or without a known size', () => {
  const figures = { label: '"linux"', bytesPerSecond: 1_000_000 };
  assert.equal(
    formatProgress({ ...figures, bytes: 5_000_000, totalBytes: 20_000_000 }, 100),
    '"linux"   25 % [======>                 ]  5.0 MB of 20.0 MB  1.0 MB/s  0:15 left',
  );
  assert.equal(formatProgress({ ...figures, bytes: 512, totalBytes: undefined }, 100), '"linux"  512 B  1.0 MB/s');
  assert.match(formatProgress({ ...figures, bytes: 0, totalBytes: 0 }, 100), /100 % \[={24}\]/);
  assert.match(formatProgress({ ...figures, bytes: 0, totalBytes: 9, bytesPerSecond: 0 }, 100), /-:-- left/);
  for (const columns of [1, 10, 40, 80]) {
    const line = formatProgress({ ...figures, label: 'n'.repeat(300), bytes: 1, totalBytes: 10 ** 15 }, columns);
    assert.ok(line.length < Math.max(2, columns), `${line.length} of ${columns}`);
  }
  assert.deepEqual([999, 1000, 1_500_000, 10 ** 18].map(formatBytes), ['999 B', '1.0 kB', '1.5 MB', '1000.0 PB']);
});

const EVENT: TransferEvent = {
  peer: '192.0.2.7',
  port: 2070,
  direction: 'read',
  name: 'linux',
  mode: 'octet',
  asked: { blksize: 1468 },
  options: [
    ['blksize', '1468'],
    ['rollover', '0'],
  ],
  granted: { blksize: 1468 },
  bytes: 8_000_000,
  blocks: 5450,
  repeats: 3,
  rttMs: 0.42,
  durationMs: 500,
  result: 'done',
  begun: true,
};

test('a line says who, what, how it ended, what was asked and granted', () => {
  assert.equal(
    describeTransfer(EVENT),
    '192.0.2.7:2070 read "linux": done, 8000000 bytes in 0.50 s, 16.0 MB/s; asked blksize=1468 rollover=0, granted blksize=1468; rtt 0.4 ms, 3 packets repeated',
  );
  const { rttMs: _, ...without } = EVENT;
  const failed = { ...without, result: 'failed', repeats: 0, options: [] } as const;
  assert.equal(
    describeTransfer({ ...failed, peer: '2001:db8::7', endedBy: 'server', error: 'no ACK', errorCode: 0 }),
    '[2001:db8::7]:2070 read "linux": failed with ERROR 0 after 8000000 bytes in 0.50 s: no ACK',
  );
  assert.equal(
    describeTransfer({
      ...failed,
      begun: false,
      mode: 'netascii',
      endedBy: 'server',
      error: 'file not found',
      errorCode: 1,
    }),
    '192.0.2.7:2070 read "linux" as netascii: refused with ERROR 1: file not found',
  );
});

test('nothing of the network reaches a terminal as it is', () => {
  const nasty = '\u001b[2J\u009b1m\u202e\n\r\u0007\u2028';
  const line = describeTransfer({
    ...EVENT,
    name: nasty,
    mode: nasty,
    options: [[nasty, nasty]],
    result: 'failed',
    error: nasty,
    endedBy: 'client',
  });
  // oxlint-disable-next-line no-control-regex -- control characters are what must not be there
  assert.doesNotMatch(line, /[\u0000-\u001f\u007f-\u009f\u202e\u2028]/);
});

test('a flood of lines is cut, and said', () => {
  const lines: string[] = [];
  const limit = new LineLimit(
    (line) => lines.push(line),
    (omitted) => `${omitted} left out`,
  );
  for (let index = 0; index < 2000; index += 1) limit.write(() => String(index));
  limit[Symbol.dispose]();
  assert.deepEqual([lines.length, lines.at(-2), lines.at(-1)], [501, '499', '1500 left out']);
});

const PASSWD = 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65533:nobody:/:/usr/sbin/nologin\n';

test('root becomes nobody unless told otherwise; others stay what they are', () => {
  assert.deepEqual(chooseUser(undefined, 0, PASSWD), { name: 'nobody', uid: 65534, gid: 65533 });
  assert.equal(chooseUser('root', 0, PASSWD), undefined);
  assert.deepEqual(chooseUser('12:34', 0, PASSWD), { name: '12:34', uid: 12, gid: 34 });
  assert.equal(chooseUser(undefined, 1000, PASSWD), undefined);
  assert.equal(chooseUser('nobody', 65534, PASSWD), undefined);
  assert.throws(() => chooseUser('nobody', 1000, PASSWD), PrivilegeError);
  assert.throws(() => chooseUser('tftp', 0, PASSWD), /There is no user tftp/);
});

test('metrics go to an address with a port, or to a file', () => {
  assert.deepEqual(parseMetricsTarget('127.0.0.1:9069'), { kind: 'http', address: '127.0.0.1', port: 9069 });
  assert.deepEqual(parseMetricsTarget('[::1]:0'), { kind: 'http', address: '::1', port: 0 });
  assert.deepEqual(parseMetricsTarget('./tftp.prom'), { kind: 'file', file: './tftp.prom' });
  for (const wrong of [
    '9069',
    ':9069',
    'localhost:9069',
    '::1:9069',
    '127.0.0.1:65536',
    '[127.0.0.1]:1',
    'tftp.prom',
  ]) {
    assert.equal(parseMetricsTarget(wrong), undefined, wrong);
  }
});

test('a descriptor that is no socket is refused with a hint', () => {
  const fd = openSync('/dev/null', 'r');
  assert.throws(() => checkHandedSocket(fd), {
    name: 'SocketError',
    message: /it is no socket, but "\/dev\/null"/,
    hint: /Datagram/,
  });
  closeSync(fd);
  assert.throws(() => checkHandedSocket(4711), { message: /it is not open/ });
});

test('addresses that come and go are followed; what cannot be bound is told once', async () => {
  let found: readonly string[] = ['192.0.2.1', '192.0.2.2'];
  const seen: string[] = [];
  const servers = await AddressServers.open({
    port: 0,
    everyMs: 5,
    find: () => found,
    listen: async (address, port) => {
      if (address === '192.0.2.2') throw new ListenError('in use', undefined);
      const close = async (): Promise<void> => void seen.push(`close ${address}`);
      const at = { address, port: port || 7 };
      return { ...at, sockets: [at], driver: 'dgram', transfers: 0, close, [Symbol.asyncDispose]: close };
    },
    events: {
      onOpen: ({ address, port }) => seen.push(`open ${address} ${port}`),
      onGone: ({ address }) => seen.push(`gone ${address}`),
      onFailed: (address) => seen.push(`failed ${address}`),
    },
  });
  found = ['192.0.2.2', '192.0.2.3'];
  const deadline = Date.now() + 5000;
  while (seen.length < 5 && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 5));
  await servers[Symbol.asyncDispose]();
  assert.deepEqual(seen, [
    'open 192.0.2.1 7',
    'failed 192.0.2.2',
    'close 192.0.2.1',
    'gone 192.0.2.1',
    'open 192.0.2.3 7',
    'close 192.0.2.3',
  ]);
});

test('a machine without a single address to listen on is one error', async () => {
  const events = { onOpen: () => {}, onGone: () => {}, onFailed: () => assert.fail('it is told twice') };
  const listen = (): Promise<TftpServer> => Promise.reject(new ListenError('in use', undefined));
  await assert.rejects(AddressServers.open({ port: 69, find: () => ['192.0.2.1'], listen, events }), /in use/);
});
