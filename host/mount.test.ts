import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Connection } from '../connections/connection.ts';
import { describeMount, mountAll, parseMountInfo } from './mount.ts';

const MOUNTINFO = [
  String.raw`31 1 0:25 / / rw,relatime - overlay root rw,lowerdir=/a,upperdir=/b`,
  String.raw`36 35 98:0 /mnt1 /mnt\0402 rw,noatime master:1 shared:7 - ext3 /dev/root rw,errors=continue`,
  String.raw`37 35 0:9 / /mnt\0402 ro - tmpfs none ro`,
  '',
].join('\n');

interface Recorder extends Connection {
  readonly argvs: (readonly string[])[];
}

function recorder(): Recorder {
  const argvs: (readonly string[])[] = [];
  return {
    argvs,
    chain: [['local']],
    kind: 'native',
    run: (argv) => {
      argvs.push(argv);
      return Promise.resolve({ status: 0, stdout: new Uint8Array(), stderr: new Uint8Array() });
    },
    readFile: () => Promise.reject(new Error('not asked for')),
    writeFile: () => Promise.resolve(),
    async [Symbol.asyncDispose]() {},
  };
}

test('parseMountInfo() reads fields around the optional ones, and escapes', () => {
  assert.deepEqual(parseMountInfo(MOUNTINFO), [
    {
      target: '/',
      options: ['rw', 'relatime'],
      type: 'overlay',
      source: 'root',
      superOptions: ['rw', 'lowerdir=/a', 'upperdir=/b'],
    },
    {
      target: '/mnt 2',
      options: ['rw', 'noatime'],
      type: 'ext3',
      source: '/dev/root',
      superOptions: ['rw', 'errors=continue'],
    },
    { target: '/mnt 2', options: ['ro'], type: 'tmpfs', source: 'none', superOptions: ['ro'] },
  ]);
  assert.deepEqual(parseMountInfo('rubbish\n1 2 3'), []);
});

test('mountAll() is one command, with five words a mount', async () => {
  const on = recorder();
  await mountAll(on, [
    { type: 'tmpfs', source: 'x', target: '/a b', options: ['size=1m', 'mode=0755'], makeTarget: true },
    { type: 'move', source: '/c', target: '/d' },
  ]);
  await mountAll(on, []);
  assert.equal(on.argvs.length, 1);
  assert.deepEqual(on.argvs[0]?.slice(4), [
    'tmpfs',
    'x',
    '/a b',
    'size=1m,mode=0755',
    'mkdir',
    'move',
    '/c',
    '/d',
    'defaults',
    '',
  ]);
});

test('describeMount() reads as a sentence', () => {
  assert.equal(describeMount({ type: 'bind', source: '/a', target: '/b' }), 'bind /a on /b');
  assert.equal(
    describeMount({ type: 'squashfs', source: '/x', target: '/y', options: ['loop', 'ro'] }),
    'squashfs /x on /y (loop,ro)',
  );
});
