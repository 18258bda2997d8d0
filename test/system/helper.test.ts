/**
 * The helper's verbs on real btrfs, namespaces, links and firewall, and killed in the middle of each of its programs.
 * What systemd does is played (see _helper-host.ts); the real one is met in test/qemu/.
 */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { type Connection, text } from '../../connections/connection.ts';
import { openLocal } from '../../connections/local.ts';
import { type Process, start } from '../../connections/process.ts';
import { callHelper } from '../../helper/client.ts';
import { PORT_SET, TABLE } from '../../helper/firewall.ts';
import { linkName, netnsName } from '../../helper/names.ts';
import { type Host, perform } from '../../helper/perform.ts';
import { RefusedError } from '../../helper/plan.ts';
import { type ReplyTo, type Verb, HOST_ADDRESS } from '../../helper/verb.ts';
import { createSubvolume, makeBtrfs, setReadOnly } from '../../host/btrfs.ts';
import { addAddress, listLinks, listNetns, makeNetns } from '../../host/ip.ts';
import { listPortSet } from '../../host/nft.ts';
import { HANGS, openHost } from './_helper-host.ts';

const OPTIONS = { timeout: 120_000, skip: process.getuid?.() === 0 ? false : 'needs root' };

const NETNS = `bt-helper-${process.pid}`;
const VOLUME = 'default';
const MACHINE = 'linux_debian_13';
const NOBODY = new AbortController().signal;

const local = openLocal();
let folder: string;
let host: Host;
let log: string[];
let bridge: Connection;

/** Build names are the machine's own: the namespaces of all of this host's programs are in one folder. */
let builds = 0;
const nextBuild = (): string => `t${process.pid}-${(builds += 1)}`;

before(async () => {
  if (OPTIONS.skip !== false) return;
  folder = mkdtempSync(join(tmpdir(), 'helper-'));
  const image = join(folder, 'disk');
  const mount = join(folder, 'machines', VOLUME);
  writeFileSync(image, '');
  truncateSync(image, 120 * 1024 * 1024);
  await makeBtrfs(local, { device: image, label: 'buildos.machines' });
  mkdirSync(mount, { recursive: true });
  await local.run(['chmod', '0755', folder]);
  await local.run(['mount', '-o', 'loop,nosuid,nodev', image, mount]);
  await createSubvolume(local, join(mount, MACHINE));
  mkdirSync(join(mount, MACHINE, 'root/tmp'), { recursive: true });
  writeFileSync(join(mount, MACHINE, 'root/hello'), 'from the machine\n');
  await makeNetns(local, NETNS);
  log = [];
  host = openHost({ folder, netns: NETNS, log: (line) => log.push(line) });
  bridge = host.on;
  await bridge.run(['ip', 'link', 'add', 'br1', 'type', 'bridge', 'stp_state', '0', 'forward_delay', '0']);
  await bridge.run(['ip', 'link', 'set', 'br1', 'up']);
  await addAddress(bridge, 'br1', `${HOST_ADDRESS}/16`);
  // Where br_netfilter is built in or loaded, the firewall would filter what goes over the bridge, too: a build host has it not.
  const off = 'for each in /proc/sys/net/bridge/bridge-nf-call-*; do [ ! -e "$each" ] || echo 0 >"$each"; done';
  await bridge.run(['sh', '-c', off]);
});

after(async () => {
  if (OPTIONS.skip !== false) return;
  await local.run(['umount', join(folder, 'machines', VOLUME)], { okStatus: 'any' });
  await local.run(['ip', 'netns', 'delete', NETNS], { okStatus: 'any' });
  rmSync(folder, { recursive: true, force: true });
});

const ask = async <V extends Verb>(verb: V): Promise<ReplyTo<V>> =>
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- perform() answers each verb by its own type
  (await perform(verb, host, NOBODY)) as ReplyTo<V>;

const startOf = (build: string, last: number): Extract<Verb, { verb: 'machine.start' }> => ({
  verb: 'machine.start',
  volume: VOLUME,
  build,
  toolchain: 'default',
  address: `169.254.7.${last}`,
  port: 20_000 + last,
  cpus: 1,
  memoryMiB: 256,
  tasksMax: 100,
  timeoutSeconds: 60,
});

/** All that any build has on this host; the test's are the only ones that start with its process number. */
async function leftovers(): Promise<string[]> {
  const ours = (name: string | undefined): name is string => name?.includes(`t${process.pid}-`) === true;
  const { builds: found } = await ask({ verb: 'machine.list' });
  const links = (await listLinks(bridge)).flatMap(({ alias }) => (ours(alias) ? [alias] : []));
  const ports = (await listPortSet(bridge, TABLE, PORT_SET)).map(({ comment }) => comment).filter(ours);
  return [
    ...found.filter(({ build }) => ours(build)).map((build) => JSON.stringify(build)),
    ...(await listNetns(local)).filter(ours),
    ...links,
    ...ports,
  ];
}

test('a machine that is writable is refused, a read-only one is not', OPTIONS, async () => {
  const verb = { verb: 'machine.snapshot', volume: VOLUME, machine: MACHINE, build: nextBuild() } as const;
  await assert.rejects(ask(verb), (error) => error instanceof RefusedError && error.message.includes('is writable'));
  await assert.rejects(ask({ ...verb, machine: 'none' }), /is not a btrfs subvolume/);
  await assert.rejects(ask({ ...verb, volume: 'none' }), /is not a folder/);
  await setReadOnly(local, join(folder, 'machines', VOLUME, MACHINE), true);
  const { path } = await ask(verb);
  assert.equal(Buffer.from(await local.readFile(join(path, 'root/hello'))).toString(), 'from the machine\n');
  await ask({ verb: 'machine.delete', volume: VOLUME, build: verb.build });
  assert.deepEqual(await leftovers(), []);
});

test('a volume in a folder that others may change is refused', OPTIONS, async () => {
  const machines = join(folder, 'machines');
  const verb = { verb: 'machine.delete', volume: VOLUME, build: nextBuild() } as const;
  await local.run(['chmod', '0777', machines]);
  await assert.rejects(ask(verb), /others than root may replace what is in/);
  await local.run(['chmod', '1777', machines]);
  await ask(verb);
  await local.run(['chmod', '0755', machines]);
  await local.run(['chown', '1000', machines]);
  await assert.rejects(ask(verb), /owner 1000, mode 755/);
  await local.run(['chown', '0', machines]);
});

test('a build from snapshot to nothing, each verb twice', OPTIONS, async () => {
  const build = nextBuild();
  const snapshot = { verb: 'machine.snapshot', volume: VOLUME, machine: MACHINE, build } as const;
  const { path } = await ask(snapshot);
  writeFileSync(join(path, 'root/dirt'), 'x');
  await ask(snapshot);
  await assert.rejects(
    local.readFile(join(path, 'root/dirt')),
    /ENOENT|no such/i,
    'the second snapshot is a fresh one',
  );
  assert.equal(text(await local.run(['stat', '--format=%a', join(path, '..')])), '700\n');

  assert.equal((await ask(startOf(build, 1))).started, true);
  assert.equal((await ask(startOf(build, 1))).started, false);
  await assert.rejects(ask(snapshot), /its unit is there, active/);
  const { builds: found } = await ask({ verb: 'machine.list' });
  assert.deepEqual(
    found.find((remains) => remains.build === build),
    { build, volume: VOLUME, unit: 'active', snapshot: true, netns: true, link: true },
  );
  assert.equal((await ask({ verb: 'machine.stop', build })).wasRunning, true);
  assert.equal((await ask({ verb: 'machine.stop', build })).wasRunning, false);

  const { removed } = await ask({ verb: 'machine.delete', volume: VOLUME, build });
  assert.deepEqual(removed, ['unit', 'link', 'netns', 'firewall', 'snapshot']);
  assert.deepEqual((await ask({ verb: 'machine.delete', volume: VOLUME, build })).removed, []);
  assert.deepEqual(await leftovers(), []);
});

test('subvolumes that a job made go too: nested, read-only, with any name', OPTIONS, async () => {
  const build = nextBuild();
  const { path } = await ask({ verb: 'machine.snapshot', volume: VOLUME, machine: MACHINE, build });
  const script = [
    'set -e; cd "$1/root/tmp"; odd="$(printf "new\\nline \\377")"',
    'btrfs subvolume create a; btrfs subvolume create "a/$odd"; btrfs subvolume create "a/$odd/c"; btrfs subvolume create ./-x',
    'btrfs property set -t subvol "a/$odd" ro true',
  ].join('\n');
  await local.run(['sh', '-c', script, 'sh', path]);
  await ask({ verb: 'machine.delete', volume: VOLUME, build });
  const left = text(await local.run(['btrfs', 'subvolume', 'list', join(folder, 'machines', VOLUME)]));
  assert.deepEqual(left.match(/path .*/g), [`path ${MACHINE}`]);
});

test('machines reach their own port on the host, not another one, and not each other', OPTIONS, async () => {
  const [a, b] = [nextBuild(), nextBuild()];
  for (const [index, build] of [a, b].entries()) {
    await ask({ verb: 'machine.snapshot', volume: VOLUME, machine: MACHINE, build });
    await ask(startOf(build, index + 1));
  }
  await using answers = await startAnswering(NETNS, HOST_ADDRESS, [20_001, 20_002, 30_000]);
  await using answersB = await startAnswering(netnsName(b), '169.254.7.2', [20_001]);
  assert.deepEqual(await reaches(netnsName(a), HOST_ADDRESS, 20_001), 'answer from another port', 'as TFTP answers');
  assert.deepEqual(await reaches(netnsName(a), '169.254.7.2', 20_001), 'nothing', 'the bridge port is isolated');
  assert.deepEqual(await reaches(netnsName(a), HOST_ADDRESS, 20_002), 'nothing', "another machine's port");
  assert.deepEqual(await reaches(netnsName(b), HOST_ADDRESS, 30_000), 'nothing', 'a port of the host');
  // The test itself must be able to see an answer.
  assert.deepEqual(await reaches(NETNS, HOST_ADDRESS, 30_000), 'answer from another port');
  assert.deepEqual(await reaches(netnsName(b), '169.254.7.2', 20_001), 'answer from another port');
  const inside = await listLinks(local, netnsName(a));
  assert.deepEqual(
    inside.map(({ name, up }) => ({ name, up })),
    [
      { name: 'lo', up: true },
      { name: 'host0', up: true },
    ],
  );
  const addresses = text(await local.run(['ip', '-netns', netnsName(a), '-oneline', 'address', 'show', 'host0']));
  assert.doesNotMatch(addresses, /inet6/, 'no way around over IPv6');
  await Promise.all([answers.stop(100), answersB.stop(100)]);
  for (const build of [a, b]) await ask({ verb: 'machine.delete', volume: VOLUME, build });
  assert.deepEqual(await leftovers(), []);
});

test("a machine reaches the outside, from the host's address there", OPTIONS, async () => {
  const outside = `${NETNS}-out`;
  await makeNetns(local, outside);
  try {
    const uplink = ['ip', 'link', 'add', 'out0', 'type', 'veth', 'peer', 'name', 'out1', 'netns', outside];
    await bridge.run(uplink);
    await addAddress(bridge, 'out0', '192.0.2.1/24');
    await bridge.run(['ip', 'link', 'set', 'out0', 'up']);
    await bridge.run(['sh', '-c', 'echo 1 >/proc/sys/net/ipv4/ip_forward']);
    await local.run(['ip', '-netns', outside, 'address', 'add', '192.0.2.2/24', 'dev', 'out1']);
    await local.run(['ip', '-netns', outside, 'link', 'set', 'out1', 'up']);
    const build = nextBuild();
    await ask({ verb: 'machine.snapshot', volume: VOLUME, machine: MACHINE, build });
    await ask(startOf(build, 1));
    const script = `
      const socket = require('node:dgram').createSocket('udp4', (_, from) => {
        console.log('from ' + from.address);
        socket.send('last', from.port, from.address);
      });
      socket.bind(30000, '192.0.2.2', () => console.log('listens'));`;
    await using server = await start(['nsenter', `--net=/run/netns/${outside}`, '--', process.execPath, '-e', script]);
    await server.stdout.waitFor(/^listens$/, { timeoutMs: 20_000 });
    assert.equal(await reaches(netnsName(build), '192.0.2.2', 30_000), 'answer');
    await server.stdout.waitFor(/^from 192\.0\.2\.1$/, { timeoutMs: 20_000 });
    await server.stop(100);
    await ask({ verb: 'machine.delete', volume: VOLUME, build });
    assert.deepEqual(await leftovers(), []);
  } finally {
    await local.run(['ip', 'netns', 'delete', outside], { okStatus: 'any' });
  }
});

test('without a firewall no machine starts', OPTIONS, async () => {
  const build = nextBuild();
  await ask({ verb: 'machine.snapshot', volume: VOLUME, machine: MACHINE, build });
  const bare = openHost({ folder, netns: NETNS, lacks: ['nft'] });
  await assert.rejects(perform(startOf(build, 3), bare, NOBODY), (error) => {
    assert.ok(error instanceof RefusedError);
    assert.match(error.message, /^Cannot start build .*: the machines' firewall cannot be loaded: .*nft/);
    return /package nftables/.test(error.hint ?? '');
  });
  const { builds } = await ask({ verb: 'machine.list' });
  assert.deepEqual(builds.find((one) => one.build === build)?.unit, undefined, 'it has no unit');
  const all = { verb: 'machine.delete', volume: VOLUME, build } as const;
  await perform(all, bare, NOBODY);
  assert.deepEqual(await leftovers(), []);
  // What is there goes, also when its port cannot be closed.
  await ask({ verb: 'machine.snapshot', volume: VOLUME, machine: MACHINE, build });
  await ask(startOf(build, 3));
  await perform(all, openHost({ folder, netns: NETNS, lacks: ['nft --file'] }), NOBODY);
  assert.deepEqual(await leftovers(), [build], 'its port only');
  await ask(all);
  assert.deepEqual(await leftovers(), []);
});

test('killed in any of its programs, the helper does the verb when asked again', OPTIONS, async () => {
  const asked = { killed: 0, ended: false };
  for (let hangAt = 1; !asked.ended && hangAt < 60; hangAt += 1) {
    const build = nextBuild();
    const snapshot = { verb: 'machine.snapshot', volume: VOLUME, machine: MACHINE, build } as const;
    await ask(snapshot);
    asked.ended = await startAndKill(startOf(build, 9), hangAt);
    if (asked.ended) {
      assert.equal((await ask(startOf(build, 9))).started, false);
    } else {
      asked.killed += 1;
      const found = await ask({ verb: 'machine.list' });
      assert.equal(found.builds.filter((remains) => remains.build === build).length, 1);
      await ask(startOf(build, 9));
    }
    assert.ok((await listLinks(bridge)).some(({ name }) => name === linkName(build)));
    await ask({ verb: 'machine.delete', volume: VOLUME, build });
    assert.deepEqual(await leftovers(), [], `killed at program ${hangAt}`);
  }
  assert.ok(asked.killed > 10, `killed ${asked.killed} times`);
});

test('killed while it deletes, it leaves what machine.list finds and machine.delete removes', OPTIONS, async () => {
  for (let hangAt = 1, ended = false; !ended && hangAt < 40; hangAt += 1) {
    const build = nextBuild();
    await ask({ verb: 'machine.snapshot', volume: VOLUME, machine: MACHINE, build });
    await ask(startOf(build, 9));
    ended = await startAndKill({ verb: 'machine.delete', volume: VOLUME, build }, hangAt);
    await ask({ verb: 'machine.delete', volume: VOLUME, build });
    assert.deepEqual(await leftovers(), [], `killed at program ${hangAt}`);
  }
});

/** Has a helper process do the verb and kills it where it hangs; true when it came to the end. */
async function startAndKill(verb: Verb, hangAt: number): Promise<boolean> {
  const socket = join(folder, `helper-${hangAt}.sock`);
  const script = join(import.meta.dirname, '_helper-process.ts');
  await using helper = await start([process.execPath, script, socket, folder, NETNS, String(hangAt)]);
  await helper.stdout.waitFor(/^listens$/, { timeoutMs: 20_000 });
  const call = callHelper(verb, { socket, timeoutMs: 20_000 }).then(
    () => true,
    () => false,
  );
  const ended = await Promise.race([
    call,
    helper.stdout.waitFor(new RegExp(HANGS), { timeoutMs: 20_000 }).then(() => false),
  ]);
  process.kill(helper.pid, 'SIGKILL');
  await helper.exited;
  rmSync(socket, { force: true });
  return ended;
}

/** Answers each datagram to these ports from a port of the system's choice, as a TFTP server does. */
async function startAnswering(netns: string, address: string, ports: readonly number[]): Promise<Process> {
  const script = `
    const dgram = require('node:dgram');
    let open = 0;
    for (const port of ${JSON.stringify(ports)}) {
      const socket = dgram.createSocket('udp4', (_, from) => {
        const other = dgram.createSocket('udp4', () => other.send('last', from.port, from.address));
        other.bind(0, '${address}', () => other.send('answer', from.port, from.address));
      });
      socket.bind(port, '${address}', () => { if (++open === ${ports.length}) console.log('listens'); });
    }`;
  const child = await start(['nsenter', `--net=/run/netns/${netns}`, '--', process.execPath, '-e', script]);
  await child.stdout.waitFor(/^listens$/, { timeoutMs: 20_000 });
  return child;
}

/** Sends a datagram, and what comes back another one; a whole exchange needs three to pass. */
async function reaches(netns: string, address: string, port: number): Promise<string> {
  const script = `
    const socket = require('node:dgram').createSocket('udp4', (data, from) => {
      if (String(data) === 'last') { console.log(from.port === ${port} ? 'answer' : 'answer from another port'); process.exit(); }
      socket.send('ack', from.port, from.address);
    });
    socket.on('error', () => {});
    socket.send('request', ${port}, '${address}');
    setTimeout(() => { console.log('nothing'); process.exit(); }, 1000);`;
  const argv = ['nsenter', `--net=/run/netns/${netns}`, '--', process.execPath, '-e', script];
  return text(await local.run(argv, { timeoutMs: 20_000 })).trim();
}
