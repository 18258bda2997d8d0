/** Containers started for a connection, with and without an init, and one that systemd-machined knows. */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { agentBundle } from '../../cli/agent-bundle.ts';
import { HAS_SERVICES, lookUp } from '../../connections/attributes.ts';
import { type Chain, type Connection, HopError, lines, text } from '../../connections/connection.ts';
import { openLocal } from '../../connections/local.ts';
import { openChain } from '../../connections/open.ts';
import { type DebianRoot, cannotChroot, leftoversAfter, unpackDebian } from './_debian-root.ts';
import { assertExact } from './_exact.ts';
import { FAR_PACKAGES, makeFolder } from './_far-host.ts';

const OPTIONS = { timeout: 120_000, skip: cannotChroot };

let debian: DebianRoot;
let root: string;

before(() => {
  if (cannotChroot !== false) return;
  debian = unpackDebian(FAR_PACKAGES);
  root = debian.path;
});

after(() => debian?.[Symbol.dispose]());

const traces = (): string[] =>
  ['/run/systemd/nspawn', '/sys/fs/cgroup', '/sys/fs/cgroup/unified']
    .flatMap((folder) => (existsSync(folder) ? readdirSync(folder) : []))
    .filter((name) => name.startsWith('buildos-'));

test('nspawn: nothing runs in the container but our commands, and it ends with the connection', OPTIONS, async () => {
  {
    await using inside = await openChain([['nspawn', { directory: root }]]);
    await sleep(100); // until the program of nspawn has become that of the container
    const programs = lines(await inside.run(['sh', '-c', 'cat /proc/[0-9]*/comm']));
    assert.deepEqual(
      programs.filter((name) => !['sh', 'cat', 'sleep', '(sd-stubinit)'].includes(name)),
      [],
    );
    assert.equal(text(await inside.run(['cat', '/proc/1/comm'])), '(sd-stubinit)\n');
    assert.equal(await lookUp(inside, HAS_SERVICES), false);
    const names = new Set(lines(await inside.run(['env'])).map((line) => line.split('=')[0]));
    assert.deepEqual(names, new Set(['HOME', 'LC_ALL', 'PATH']));
    await inside.run(['sh', '-c', 'setsid sleep 12345 >/dev/null 2>&1 &']);
  }
  assert.deepEqual(await leftoversAfter(root, 3000), []);
  assert.deepEqual(traces(), []);
});

test('nspawn: without network there is a loopback device only', OPTIONS, async () => {
  await using apart = await openChain([['nspawn', { directory: root, network: false }]]);
  const devices = lines(await apart.run(['sh', '-c', 'tail -n +3 /proc/net/dev | cut -d: -f1']));
  assert.deepEqual(
    devices.map((line) => line.trim()),
    ['lo'],
  );
});

test('nspawn: a directory that is no root is told as such, and nothing stays', OPTIONS, async () => {
  for (const directory of [join(root, 'usr'), join(root, 'none')]) {
    await assert.rejects(
      openChain([['nspawn', { directory }]]),
      (error) => error instanceof HopError && /directory/.test(error.hint ?? ''),
    );
  }
  assert.deepEqual(traces(), []);
});

/** Starts a container inside of one, as a host's administrator would, and waits until it is registered. */
const INNER = `
mkdir /srv/inner
cd /
cp -al bin sbin lib lib64 usr etc /srv/inner
cd /srv/inner
mkdir proc sys dev run tmp var root srv
rm -f etc/machine-id etc/hostname
echo inner > etc/hostname
: > etc/machine-id
systemd-run --quiet --unit=inner --property=Delegate=yes --property=KillMode=mixed \\
  systemd-nspawn --machine=inner --directory=/srv/inner --keep-unit --console=pipe --boot --link-journal=no
for nap in $(seq 100); do
  if machinectl show inner >/dev/null 2>&1; then exit 0; fi
  sleep 0.1
done
systemctl status inner >&2
exit 1
`;

test('a booted container: services run, and machined leads into the one it knows', OPTIONS, async () => {
  const nspawn: Chain = [['nspawn', { directory: root, boot: true }]];
  {
    await using booted = await openChain(nspawn);
    assert.equal(text(await booted.run(['cat', '/proc/1/comm'])), 'systemd\n');
    assert.equal(await lookUp(booted, HAS_SERVICES), true);
    await booted.run(['sh', '-ec', INNER]);
    const leader = text(await booted.run(['machinectl', 'show', '--property=Leader', '--value', 'inner'])).trim();
    // From this machine: into the container, and from there into its container.
    await assertMachined(booted, leader);
  }
  assert.deepEqual(await leftoversAfter(root, 5000), []);
  assert.deepEqual(traces(), []);
});

async function assertMachined(booted: Connection, leader: string): Promise<void> {
  const outer = await outerPid(leader);
  await using inner = await openChain([
    ['nsenter', { pid: outer }],
    ['machined', { name: 'inner' }],
  ]);
  assert.equal(text(await inner.run(['hostname'])), 'inner\n');
  assert.equal(
    text(await inner.run(['sh', '-c', 'tr "\\\\0" " " < /proc/1/environ'])).includes('container=systemd-nspawn'),
    true,
  );
  await assertExact(inner, await makeFolder(inner));
  await booted.writeFile('/srv/inner/root/file', 'from the outside', { mode: 0o600 });
  assert.equal(Buffer.from(await inner.readFile('/root/file')).toString(), 'from the outside');
  await using native = await openChain([['nsenter', { pid: outer }], ['machined', { name: 'inner' }], ['agent']], {
    agent: agentBundle(),
  });
  assert.equal(Buffer.from(await native.readFile('/root/file')).toString(), 'from the outside');
  await assert.rejects(
    openChain([
      ['nsenter', { pid: outer }],
      ['machined', { name: 'none' }],
    ]),
    (error) => error instanceof HopError && /machinectl list/.test(error.hint ?? ''),
  );
}

/** The init of the booted container, as this machine numbers it: the parent of the parent of the inner one. */
async function outerPid(innerLeader: string): Promise<number> {
  const found = await openLocal().run(
    ['sh', '-c', `grep -lsE '^NSpid:.*[[:space:]]${innerLeader}[[:space:]]1$' /proc/[0-9]*/status`],
    { okStatus: [0, 2] }, // 2: another process ended while we looked
  );
  const inner = text(found).split('/')[2] ?? '';
  const parent = async (pid: string): Promise<string> =>
    text(await openLocal().run(['sh', '-c', `sed -n 's/^PPid:[[:space:]]*//p' /proc/${pid}/status`])).trim();
  return Number(await parent(await parent(inner)));
}

test('machined: where no systemd-machined is, that is said', OPTIONS, async () => {
  mkdirSync(join(root, 'srv/none'), { recursive: true });
  writeFileSync(join(root, 'srv/none/file'), '');
  await assert.rejects(
    openChain([
      ['chroot.shell', { into: root }],
      ['machined', { name: 'none' }],
    ]),
    (error) => error instanceof HopError && /nsenter/.test(error.hint ?? ''),
  );
});
