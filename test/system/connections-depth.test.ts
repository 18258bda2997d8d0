/** The same exactness at every depth: one hop to four, over a real sshd, sudo, su, agents, roots in roots, containers. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { agentBundle } from '../../cli/agent-bundle.ts';
import type { Hop } from '../../connections/connection.ts';
import { openChain } from '../../connections/open.ts';
import { cannotChroot } from './_debian-root.ts';
import { assertExact } from './_exact.ts';
import { type FarHost, makeFolder, startFarHost } from './_far-host.ts';

const OPTIONS = { timeout: 120_000, skip: cannotChroot };

const agent = agentBundle();
let far: FarHost;
let scratch: string;

before(async () => {
  if (cannotChroot !== false) return;
  far = await startFarHost();
  scratch = mkdtempSync(join(tmpdir(), 'buildos-depth-'));
});

after(async () => {
  await far?.[Symbol.asyncDispose]();
  rmSync(scratch, { recursive: true, force: true });
});

const shell = (into: string): Hop => ['chroot.shell', { into }];
const fork = (into: string): Hop => ['chroot.fork', { into }];

/** What the far end is: posix or native, and who we are there. */
const CHAINS: readonly (readonly [name: string, kind: string, user: string, hops: () => readonly Hop[]])[] = [
  ['local', 'native', 'root', () => [['local']]],
  ['ssh', 'posix', 'tim', () => [far.ssh('tim')]],
  ['setuid', 'native', 'nobody', () => [['setuid', { user: 'nobody' }]]],
  ['su', 'posix', 'nobody', () => [['su', { user: 'nobody' }]]],
  ['chroot.fork', 'native', 'root', () => [fork(far.root)]],
  ['nspawn', 'posix', 'root', () => [['nspawn', { directory: far.root }]]],
  ['ssh, sudo with a password', 'posix', 'root', () => [far.ssh('joe'), ['sudo']]],
  ['ssh, su with a password', 'posix', 'root', () => [far.ssh('tim'), ['su']]],
  ['ssh, sudo, chroot.shell', 'posix', 'root', () => [far.ssh('ann'), ['sudo'], shell(far.inner)]],
  ['ssh, sudo with a password, chroot.shell', 'posix', 'root', () => [far.ssh('joe'), ['sudo'], shell(far.inner)]],
  [
    'chroot.fork, chroot.fork, setuid',
    'native',
    'joe',
    () => [fork(far.root), fork(far.inner), ['setuid', { user: 'joe' }]],
  ],
  ['chroot.fork, as, sudo', 'posix', 'root', () => [fork(far.root), ['as', { user: 'ann' }], ['sudo']]],
  [
    'nspawn, chroot.shell, su',
    'posix',
    'joe',
    () => [['nspawn', { directory: far.root }], shell(far.inner), ['su', { user: 'joe' }]],
  ],
  ['ssh, agent, chroot.fork', 'native', 'root', () => [far.ssh('root'), ['agent'], fork(far.inner)]],
  ['ssh, sudo, agent, chroot.fork', 'native', 'root', () => [far.ssh('ann'), ['sudo'], ['agent'], fork(far.inner)]],
];

// Much of it is waiting, so several at once.
describe('everything is exact through', { concurrency: 4, skip: cannotChroot }, () => {
  for (const [name, kind, user, hops] of CHAINS) {
    test(name, OPTIONS, async () => {
      await using connection = await openChain(hops(), { agent, data: far.data });
      assert.equal(connection.kind, kind);
      assert.equal(Buffer.from((await connection.run(['id', '-un'])).stdout).toString(), `${user}\n`);
      await assertExact(connection, await makeFolder(connection));
    });
  }
});

test('chroot.fork into an empty directory: files, without any program there', OPTIONS, async () => {
  await using empty = await openChain([fork(scratch)], { agent });
  await empty.writeFile('/file', 'content', { mode: 0o600 });
  assert.equal(Buffer.from(await empty.readFile('/file')).toString(), 'content');
  assert.equal(Buffer.from(await empty.readFile('/proc/self/comm')).toString().length > 0, true);
  await assert.rejects(empty.run(['true']), /could not be started/);
});
