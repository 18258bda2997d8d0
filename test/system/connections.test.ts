/** Hops against real systems: a Debian root, sudo in it, network namespaces; and what a kill leaves behind. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import * as fc from 'fast-check';
import { openChroot } from '../../connections/chroot.ts';
import {
  type Chain,
  CommandError,
  type Connection,
  FileError,
  HopError,
  lines,
  text,
} from '../../connections/connection.ts';
import { openLocal } from '../../connections/local.ts';
import { openChain } from '../../connections/open.ts';
import { start } from '../../connections/process.ts';
import { type DebianRoot, cannotChroot, leftoversAfter, unpackDebian } from './_debian-root.ts';

const OPTIONS = { timeout: 120_000, skip: cannotChroot };

let debian: DebianRoot;
let root: string;
let inside: Connection;

before(async () => {
  if (cannotChroot !== false) return;
  debian = unpackDebian();
  root = debian.path;
  // Without it sudo says that it cannot resolve this host's name.
  writeFileSync(join(root, 'etc/hosts'), `127.0.0.1 localhost ${hostname()}\n`);
  inside = await openChain([['local'], ['sudo'], ['chroot', { into: root }]]);
  await inside.run(['useradd', '--system', '--create-home', '--uid', '1000', 'build']);
});

after(async () => {
  await inside?.[Symbol.asyncDispose]();
  debian?.[Symbol.dispose]();
});

/** Chains to the same root, three and four hops deep. */
const CHAINS: readonly (readonly [name: string, hops: () => Chain])[] = [
  ['local, sudo, chroot', () => [['local'], ['sudo'], ['chroot', { into: root }]]],
  ['local, chroot, sudo', () => [['local'], ['chroot', { into: root }], ['sudo', { user: 'build' }]]],
  ['local, sudo, chroot, sudo', () => [['local'], ['sudo'], ['chroot', { into: root }], ['sudo', { user: 'build' }]]],
];

for (const [name, hops] of CHAINS) {
  test(`words, variables, directory and bytes arrive unchanged through ${name}`, OPTIONS, async () => {
    await using connection = await openChain(hops());
    const word = fc.string({ unit: 'grapheme' }).filter((one) => !one.includes('\0'));
    await fc.assert(
      fc.asyncProperty(fc.array(word, { maxLength: 4 }), word, async (words, value) => {
        const script = 'printf "%s\\0" "$PWD" "$VALUE" "$@"';
        const options = { env: { VALUE: value }, cwd: '/usr/share' };
        const result = await connection.run(['sh', '-c', script, 'sh', ...words], options);
        assert.deepEqual(text(result).split('\0').slice(0, -1), ['/usr/share', value, ...words]);
      }),
      { numRuns: 10, examples: [[['-n', '--', '', "'", '"', '$(id)', '`id`', '\n', '\\', 'a=b', '*'], ' -x=1 ']] },
    );
    const bytes = randomBytes(1024 * 1024);
    assert.deepEqual(Buffer.from((await connection.run(['cat'], { input: bytes })).stdout), bytes);
    const path = `/home/build/it's ${name}`;
    await connection.writeFile(path, bytes, { mode: 0o640 });
    assert.deepEqual(Buffer.from(await connection.readFile(path)), bytes);
    assert.equal(statSync(join(root, path)).mode & 0o7777, 0o640);
    await assert.rejects(connection.run(['sh', '-c', 'echo bad >&2; exit 4']), (error) => {
      assert.ok(error instanceof CommandError);
      assert.equal(error.status, 4);
      assert.match(
        error.message,
        /^Command failed at .*chroot.*: sh -c 'echo bad >&2; exit 4'\n {2}exit status 4\n {2}\| bad$/,
      );
      return true;
    });
  });
}

test('sudo inside is another user, and may not do what that user may not', OPTIONS, async () => {
  await using build = await openChain([['local'], ['chroot', { into: root }], ['sudo', { user: 'build' }]]);
  assert.equal(text(await build.run(['id', '-un'])), 'build\n');
  await assert.rejects(build.readFile('/etc/shadow'), (error) => error instanceof FileError && error.code === 'EACCES');
  await assert.rejects(
    build.writeFile('/etc/x', '', { mode: 0o644 }),
    (error) => error instanceof FileError && error.code === 'EACCES',
  );
  await assert.rejects(
    openChain([
      ['chroot', { into: root }],
      ['sudo', { user: 'nobody-here' }],
    ]),
    HopError,
  );
});

test('a chroot has its own small world: environment, proc, dev, run, tmp, host name', OPTIONS, async () => {
  const names = new Set(lines(await inside.run(['env'])).map((line) => line.split('=')[0]));
  assert.deepEqual(
    names,
    new Set(['APT_CONFIG', 'DEBCONF_NONINTERACTIVE_SEEN', 'DEBIAN_FRONTEND', 'HOME', 'LC_ALL', 'PATH']),
  );
  assert.equal(text(await inside.run(['sh', '-c', 'ls -d /proc/[0-9]* | wc -l'])).trim().length, 1);
  await inside.run([
    'sh',
    '-c',
    'test -c /dev/null && test -c /dev/urandom && test -d /dev/pts && test -w /dev/shm && test -L /dev/fd',
  ]);
  assert.deepEqual(lines(await inside.run(['ls', '/tmp'])), []);
  await assert.rejects(inside.run(['sh', '-c', 'echo x > /sys/kernel/profiling']), CommandError);
  const before = readFileSync('/proc/sys/kernel/hostname', 'utf8');
  await inside.run(['sh', '-c', 'echo other > /proc/sys/kernel/hostname']);
  assert.equal(readFileSync('/proc/sys/kernel/hostname', 'utf8'), before);
  for (const name of ['proc', 'sys', 'dev', 'run', 'tmp']) {
    const found = readdirSync(join(root, name)).filter(
      (entry) =>
        ![
          'null',
          'zero',
          'full',
          'random',
          'urandom',
          'tty',
          'console',
          'ptmx',
          'fd',
          'stdin',
          'stdout',
          'stderr',
          'pts',
          'shm',
          'lock',
          'mount',
        ].includes(entry),
    );
    assert.deepEqual(found, [], `left in /${name} of the root`);
  }
});

test('services cannot start, and nothing is left that says so', OPTIONS, async () => {
  const said = await inside.run(['invoke-rc.d', 'ssh', 'start']);
  assert.match(Buffer.from(said.stderr).toString(), /invoke-rc\.d ssh start: not done/);
  await inside.run(['start-stop-daemon', '--start', '--exec', '/bin/sleep', '--', '100']);
  assert.ok(!existsSync(join(root, 'usr/sbin/policy-rc.d')));
  writeFileSync(join(root, 'usr/sbin/policy-rc.d'), '#!/bin/sh\nexit 0\n', { mode: 0o755 });
  assert.equal((await inside.run(['/usr/sbin/policy-rc.d'], { okStatus: 'any' })).status, 101);
  rmSync(join(root, 'usr/sbin/policy-rc.d'));
});

test('no path inside leads a read or a write to the outside', OPTIONS, async (t) => {
  const outside = mkdtempSync(join(tmpdir(), 'buildos-outside-'));
  t.after(() => rmSync(outside, { recursive: true, force: true }));
  writeFileSync(join(outside, 'secret'), 'outside');
  symlinkSync(outside, join(root, 'srv/absolute'));
  symlinkSync(`${'../'.repeat(20)}${outside.slice(1)}`, join(root, 'srv/relative'));
  for (const link of ['absolute', 'relative']) {
    await assert.rejects(
      inside.readFile(`/srv/${link}/secret`),
      (error) => error instanceof FileError && error.code === 'ENOENT',
    );
    await assert.rejects(inside.writeFile(`/srv/${link}/new`, 'x', { mode: 0o644 }), FileError);
    await inside.writeFile(`/srv/${link}`, 'replaced', { mode: 0o644 });
  }
  assert.deepEqual(readdirSync(outside), ['secret']);
});

test('binds: read-only and writable, never over a link of the root', OPTIONS, async (t) => {
  const outside = mkdtempSync(join(tmpdir(), 'buildos-outside-'));
  t.after(() => rmSync(outside, { recursive: true, force: true }));
  writeFileSync(join(outside, 'file'), 'bound');
  mkdirSync(join(root, 'srv/a b'));
  mkdirSync(join(root, 'srv/rw'));
  await using bound = await openChroot(openLocal(), {
    into: root,
    binds: [{ from: outside, to: '/srv/a b' }],
    shares: [{ from: outside, to: '/srv/rw' }],
  });
  assert.equal(Buffer.from(await bound.readFile('/srv/a b/file')).toString(), 'bound');
  await assert.rejects(
    bound.writeFile('/srv/a b/new', '', { mode: 0o644 }),
    (error) => error instanceof FileError && error.code === 'EROFS',
  );
  await bound.writeFile('/srv/rw/new', 'shared', { mode: 0o644 });
  assert.equal(readFileSync(join(outside, 'new'), 'utf8'), 'shared');
  symlinkSync('/tmp', join(root, 'srv/link'));
  for (const to of ['/srv/link', '/srv/../srv/rw', '/srv/none']) {
    await using wrong = await openChroot(openLocal(), { into: root, binds: [{ from: outside, to }] });
    await assert.rejects(wrong.run(['true'], { okStatus: 'any' }), HopError, to);
  }
});

test('names are resolved as on this host, also where resolv.conf is a link into /run', OPTIONS, async () => {
  const ours = readFileSync('/etc/resolv.conf', 'utf8');
  const seen = async (on: Connection): Promise<string> => text(await on.run(['cat', '/etc/resolv.conf']));
  assert.equal(await seen(inside), ours);
  const path = join(root, 'etc/resolv.conf');
  const kept = readFileSync(path);
  rmSync(path);
  symlinkSync('../run/systemd/resolve/stub-resolv.conf', path);
  assert.equal(await seen(inside), ours);
  rmSync(path);
  await inside.run(['true']);
  assert.ok(!existsSync(path));
  await inside.writeFile('/etc/resolv.conf', 'nameserver 192.0.2.1\n', { mode: 0o644 });
  assert.equal(await seen(inside), ours);
  assert.equal(Buffer.from(await inside.readFile('/etc/resolv.conf')).toString(), 'nameserver 192.0.2.1\n');
  await using apart = await openChroot(openLocal(), { into: root, network: false });
  assert.equal(await seen(apart), 'nameserver 192.0.2.1\n');
  writeFileSync(path, kept);
});

test('a root that cannot be entered is told as such, not as a failure of the command', OPTIONS, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'buildos-empty-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  await assert.rejects(openChain([['chroot', { into: join(folder, 'none') }]]), HopError);
  await using empty = await openChain([['chroot', { into: folder }]]);
  await assert.rejects(
    empty.run(['true'], { okStatus: 'any' }),
    (error) => error instanceof HopError && /\/proc of/.test(error.message),
  );
  mkdirSync(join(folder, 'proc'));
  symlinkSync('/tmp', join(folder, 'sys'));
  await assert.rejects(empty.run(['true']), (error) => error instanceof HopError && /\/sys of/.test(error.message));
  assert.deepEqual(await leftoversAfter(folder, 2000), []);
});

test('what a command leaves running ends with it', OPTIONS, async () => {
  await inside.run(['sh', '-c', 'setsid sleep 12345 >/dev/null 2>&1 & setsid sleep 12345 & echo started']);
  assert.deepEqual(await leftoversAfter(root, 2000), []);
});

test('a timeout and an abort end everything inside', OPTIONS, async () => {
  const script = "trap '' TERM; setsid sleep 12345 & while :; do sleep 0.1; done";
  await assert.rejects(
    inside.run(['sh', '-c', script], { timeoutMs: 300 }),
    (error) => error instanceof CommandError && error.failure === 'timeout' && error.timeoutMs === 300,
  );
  assert.deepEqual(await leftoversAfter(root, 2000), []);
  const control = new AbortController();
  setTimeout(() => control.abort(), 150);
  await assert.rejects(inside.run(['sleep', '12345'], { signal: control.signal }), CommandError);
  assert.deepEqual(await leftoversAfter(root, 2000), []);
});

/** A program that works in the root without end. */
const WORKER = `
import { openChain } from ${JSON.stringify(join(import.meta.dirname, '../../connections/open.ts'))};
import { openChroot } from ${JSON.stringify(join(import.meta.dirname, '../../connections/chroot.ts'))};
const [, into, held] = process.argv;
const c = await openChroot(await openChain([['local'], ['sudo']]), { into, held: held === 'held' });
console.log('ready');
for (;;) await Promise.all([
  c.run(['sh', '-c', 'setsid sleep 12345 & sleep 0.02']),
  c.run(['sh', '-c', 'setsid sleep 12345 & sleep 0.02'], { ownFiles: true }),
  c.writeFile('/root/file', 'x'.repeat(100_000), { mode: 0o600 }),
]);
`;

test('killed with SIGKILL at any moment, we leave no mount and no process', OPTIONS, async () => {
  for (let round = 0; round < 12; round++) {
    const words = ['--input-type=module-typescript', '--eval', WORKER, root, round % 2 === 0 ? 'held' : 'not'];
    const child = spawn(process.execPath, words, { stdio: ['ignore', 'pipe', 'inherit'] });
    await once(child.stdout, 'data');
    await sleep(7 * round);
    child.kill('SIGKILL');
    await once(child, 'exit');
    assert.deepEqual(await leftoversAfter(root, 3000), [], `killed ${7 * round} ms after the start`);
  }
});

test('netns: another network, the same files', OPTIONS, async (t) => {
  const local = openLocal();
  const name = `buildos-test-${process.pid}`;
  await local.run(['ip', 'netns', 'add', name]);
  t.after(async () => await local.run(['ip', 'netns', 'delete', name]));
  await using apart = await openChain([['local'], ['sudo'], ['netns', { name }]]);
  assert.deepEqual(lines(await apart.run(['ls', '/sys/class/net'])), ['lo']);
  assert.deepEqual(await apart.readFile('/etc/passwd'), await local.readFile('/etc/passwd'));
  await using deeper = await openChain([
    ['netns', { name }],
    ['chroot', { into: root }],
  ]);
  assert.deepEqual(
    lines(await deeper.run(['sh', '-c', 'tail -n +3 /proc/net/dev | cut -d: -f1'])).map((line) => line.trim()),
    ['lo'],
  );
  await assert.rejects(openChain([['netns', { name: 'nowhere' }]]), HopError);
});

test('nsenter: the inside of a process', OPTIONS, async () => {
  const script =
    'echo inner > /proc/sys/kernel/hostname; mount -t tmpfs none /mnt; echo hello > /mnt/file; echo ready; sleep 60';
  await using child = await start(['unshare', '--mount', '--uts', '--propagation=private', 'sh', '-c', script]);
  assert.ok(await child.stdout.waitFor(/ready/, { timeoutMs: 10_000 }));
  await using inner = await openChain([['nsenter', { pid: child.pid }]]);
  assert.equal(text(await inner.run(['cat', '/proc/sys/kernel/hostname'])), 'inner\n');
  assert.equal(Buffer.from(await inner.readFile('/mnt/file')).toString(), 'hello\n');
  assert.ok(!existsSync('/mnt/file'));
});
