/** A held chroot: half of it stays between commands, and so does the shell of those that look at files or change them. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { rmSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { lookUp, SHARES_PROCESSES } from '../../connections/attributes.ts';
import { openChroot } from '../../connections/chroot.ts';
import { CommandError, FileError, HopError, lines, text } from '../../connections/connection.ts';
import { openLocal } from '../../connections/local.ts';
import { openChain } from '../../connections/open.ts';
import { type DebianRoot, cannotChroot, leftoversAfter, unpackDebian } from './_debian-root.ts';

const OPTIONS = { timeout: 120_000, skip: cannotChroot };

let debian: DebianRoot;
let root: string;

before(() => {
  if (cannotChroot !== false) return;
  debian = unpackDebian();
  root = debian.path;
});

after(() => debian?.[Symbol.dispose]());

test('a held chroot: what commands see of each other is nothing, as in one that is not', OPTIONS, async () => {
  await using sudo = await openChain([['local'], ['sudo']]);
  {
    await using held = await openChroot(sudo, { into: root, held: true });
    const script = 'echo x >/tmp/a; echo x >/run/b; echo x >/dev/shm/c; setsid sleep 12345 & ls /tmp /run /dev/shm';
    const seen = lines(await held.run(['sh', '-c', script]));
    assert.deepEqual(lines(await held.run(['sh', '-c', 'ls /tmp /run /dev/shm'])), [
      '/dev/shm:',
      '',
      '/run:',
      'buildos-chroot',
      'lock',
      '',
      '/tmp:',
    ]);
    assert.ok(seen.includes('a') && seen.includes('b') && seen.includes('c'), seen.join(' '));
    assert.equal(text(await held.run(['sh', '-c', 'ls -d /proc/[0-9]* | wc -l'])).trim().length, 1);
    await held.run(['sh', '-c', 'echo other > /proc/sys/kernel/hostname']);
    assert.equal(text(await held.run(['uname', '-n'])).trim(), hostname());
    await assert.rejects(held.run(['rm', '/run/buildos-chroot/bin/service']), CommandError);
    assert.match(Buffer.from((await held.run(['invoke-rc.d', 'ssh', 'start'])).stderr).toString(), /not done/);
    writeFileSync(join(root, 'usr/sbin/policy-rc.d'), '#!/bin/sh\nexit 0\n', { mode: 0o755 });
    assert.equal((await held.run(['/usr/sbin/policy-rc.d'], { okStatus: 'any' })).status, 101);
    rmSync(join(root, 'usr/sbin/policy-rc.d'));
    await assert.rejects(held.run(['sh', '-c', 'echo no >&2; exit 125']), CommandError);
    await assert.rejects(held.run(['sleep', '12345'], { timeoutMs: 200 }), CommandError);
    const bytes = randomBytes(200_000);
    assert.deepEqual((await held.run(['cat'], { input: bytes })).stdout, bytes);
    // Commands behind it do not see each other's processes, so nobody there could hold another root.
    assert.equal(await lookUp(held, SHARES_PROCESSES), false);
  }
  assert.deepEqual(await leftoversAfter(root, 2000), []);
});

test(
  'a held chroot: commands that look at files or change them share a shell, and see nothing of each other',
  OPTIONS,
  async () => {
    const OWN = { ownFiles: true } as const;
    const bytes = Buffer.from(Array.from({ length: 65_000 }, (_, index) => (index % 255) + 1));
    {
      await using held = await openChroot(openLocal(), { into: root, held: true });
      // The same shell: its process is the parent of all.
      const parent = async (): Promise<string> =>
        text(await held.run(['sh', '-c', 'readlink /proc/$PPID/ns/pid'], OWN));
      const first = await parent();
      assert.equal(await parent(), first);
      const script = 'cat; printf "%s\\0" "$PWD" "$VALUE" "$@" >&2; exit 3';
      const words = ['', '-n', "it's", '\n', '$(id)', '\\', 'ü', ' *'];
      const options = { ...OWN, cwd: '/usr/share', env: { VALUE: "a'b\n" }, input: bytes, okStatus: [3] };
      const ended = await held.run(['sh', '-c', script, 'sh', ...words], options);
      assert.deepEqual(Buffer.from(ended.stdout), bytes);
      assert.deepEqual(Buffer.from(ended.stderr).toString().split('\0'), ['/usr/share', "a'b\n", ...words, '']);
      for (const content of [bytes, randomBytes(5000), Buffer.concat([bytes, bytes]), Buffer.from('')]) {
        await held.writeFile('/root/file', content, { mode: 0o640 });
        assert.deepEqual(Buffer.from(await held.readFile('/root/file')), content);
      }
      await assert.rejects(held.readFile('/none'), (error) => error instanceof FileError && error.code === 'ENOENT');
      await held.run(['sh', '-c', 'sleep 12345 & setsid sleep 12345 & export LEFT=x'], OWN);
      const look = 'cat /proc/[0-9]*/comm | grep sleep; echo "$LEFT"; ls /dev/shm';
      assert.equal(text(await held.run(['sh', '-c', look], OWN)), '\n');
      await held.run(['sh', '-c', 'echo x >/dev/shm/c'], OWN);
      assert.equal(text(await held.run(['ls', '/dev/shm'], OWN)), '');
      // Two at once, of which one has to go another way.
      const both = await Promise.all(
        ['a', 'b'].map((word) => held.run(['sh', '-c', 'sleep 0.1; echo "$0"', word], OWN)),
      );
      assert.deepEqual(both.map(text), ['a\n', 'b\n']);
      await assert.rejects(
        held.run(['sh', '-c', 'echo begun; setsid sleep 12345'], { ...OWN, timeoutMs: 300 }),
        (error) =>
          error instanceof CommandError &&
          error.failure === 'timeout' &&
          text({ status: 0, stderr: bytes, stdout: error.stdout }) === 'begun\n',
      );
      await assert.rejects(held.run(['sh', '-c', 'kill -KILL $PPID; sleep 9'], OWN), CommandError);
      const control = new AbortController();
      setTimeout(() => control.abort(), 100);
      await assert.rejects(
        held.run(['sleep', '12345'], { ...OWN, signal: control.signal }),
        (error) => error instanceof CommandError && error.failure === 'aborted',
      );
      await assert.rejects(
        held.run(['sh', '-c', 'yes | head -c 100000'], { ...OWN, maxOutputBytes: 1000 }),
        (error) => error instanceof CommandError && error.failure === 'output',
      );
      assert.equal((await held.run(['sh', '-c', 'kill -TERM $$'], { ...OWN, okStatus: 'any' })).status, 143);
      assert.equal((await held.run(['no-such-program'], { ...OWN, okStatus: 'any' })).status, 127);
    }
    assert.deepEqual(await leftoversAfter(root, 2000), []);
  },
);

test(
  'a held chroot whose holder was killed is prepared again; a root that cannot be is told as ever',
  OPTIONS,
  async () => {
    await using local = openLocal();
    {
      await using held = await openChroot(local, { into: root, held: true });
      await held.run(['true']);
      const [mount = ''] = await leftoversAfter(root, 0);
      process.kill(Number(/seen by (\d+)$/.exec(mount)?.[1]), 'SIGKILL');
      await sleep(100);
      await held.run(['true']);
    }
    assert.deepEqual(await leftoversAfter(root, 2000), []);
    await using empty = await openChroot(local, { into: join(root, 'etc'), held: true });
    await assert.rejects(empty.run(['true']), (error) => error instanceof HopError && /\/proc of/.test(error.message));
  },
);
