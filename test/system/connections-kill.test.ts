/** Killed at any moment, our process or one of a hop's, nothing is left: no mount, no process, no file. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, readdirSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Hop } from '../../connections/connection.ts';
import { cannotChroot } from './_debian-root.ts';
import { type FarHost, startFarHost } from './_far-host.ts';

const OPTIONS = { timeout: 120_000, skip: cannotChroot };
const ROUNDS = 3;
/** In the environment of what is started here, so that nobody else's processes are taken for it. */
const MARK = `BUILDOS_TEST_KILL=${process.pid}`;

let far: FarHost;

before(async () => {
  if (cannotChroot === false) far = await startFarHost();
});

after(async () => {
  await far?.[Symbol.asyncDispose]();
});

/** What commands leave running. */
const SLEEP = `sleep 31${process.pid}`;

const SOURCES = join(import.meta.dirname, '../..');

/**
 * Opens a chain again and again and works there: commands that leave children, files. Says `ready` when it first works.
 * A line on stdin: let go of everything in order.
 */
const WORKER = `
import { openChain } from ${JSON.stringify(join(SOURCES, 'connections/open.ts'))};
import { agentBundle } from ${JSON.stringify(join(SOURCES, 'cli/agent-bundle.ts'))};
const { chain, passwords } = JSON.parse(process.argv[1]);
const data = async ({ name }) => passwords[name] && Buffer.from(passwords[name]);
const agent = agentBundle();
let end = false;
process.stdin.once('data', () => { end = true; process.stdin.destroy(); });
console.log('opening');
while (!end) {
  try {
    await using c = await openChain(chain, { agent, data });
    console.log('ready');
    while (!end) {
      await Promise.all([
        c.run(['sh', '-c', 'sleep 0.0312 & ${SLEEP} & cat; kill $!'], { input: 'x'.repeat(100_000) }),
        c.run(['sh', '-c', '${SLEEP}; :'], { timeoutMs: 100 }).catch(() => {}),
        c.writeFile('/var/tmp/file', 'x'.repeat(300_000), { mode: 0o600 }),
      ]);
    }
  } catch (error) {
    if (!end) console.log('lost ' + error);
  }
}
`;

/** What a kill could leave, of anyone here. */
function state(): string[] {
  const found: string[] = [];
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
      const ours = readFileSync(`/proc/${pid}/environ`, 'utf8').includes(MARK) || words.includes(SLEEP);
      const there = [far.root, join(far.root, far.inner)].includes(readlinkSync(`/proc/${pid}/root`));
      // sshd itself stays, and writes over its words.
      if ((ours || there) && !words.includes('[listener]')) found.push(`process ${pid} ${words.slice(0, 100)}`);
    } catch {
      // It ended while we looked, or it is a kernel thread.
    }
  }
  for (const line of readFileSync('/proc/self/mountinfo', 'utf8').split('\n')) {
    if (line.includes(far.root) || line.includes('/run/systemd/nspawn'))
      found.push(`mount ${line.split(' ')[4] ?? ''}`);
  }
  const folders = [
    '/tmp',
    '/run/systemd/nspawn',
    '/sys/fs/cgroup',
    '/sys/fs/cgroup/unified',
    join(far.root, 'tmp'),
    join(far.root, 'var/tmp'),
    join(far.root, far.inner, 'var/tmp'),
  ];
  for (const folder of folders.filter((path) => existsSync(path))) {
    for (const name of readdirSync(folder)) {
      // What writeFile was about to rename stays beside its file, as it does for any program.
      if (/^buildos-(ssh|[0-9a-f]{8}$)/.test(name)) found.push(`file ${folder}/${name}`);
    }
  }
  return found;
}

async function assertNothingNew(before: readonly string[], when: string): Promise<void> {
  const end = Date.now() + 6000;
  let left: string[] = [];
  do {
    left = state().filter((one) => !before.includes(one));
    if (left.length === 0) return;
    await sleep(100);
  } while (Date.now() < end);
  assert.deepEqual(left, [], when);
}

interface Worker {
  readonly child: ChildProcess;
  readonly said: () => string;
}

async function startWorker(chain: readonly Hop[], passwords: object): Promise<Worker> {
  const child = spawn(
    process.execPath,
    ['--input-type=module-typescript', '--eval', WORKER, JSON.stringify({ chain, passwords })],
    {
      stdio: ['pipe', 'pipe', 'inherit'],
      cwd: SOURCES,
      env: { ...process.env, BUILDOS_TEST_KILL: String(process.pid) },
    },
  );
  let said = '';
  child.stdout.on('data', (chunk: Buffer) => (said += chunk.toString()));
  await once(child.stdout, 'data');
  return { child, said: () => said };
}

async function until(condition: () => boolean, what: string): Promise<void> {
  for (let left = 300; !condition(); left--) {
    if (left === 0) assert.fail(`never: ${what}`);
    await sleep(50);
  }
}

/** Children of a process and theirs, but for the guards, which are there for when others are killed. */
function descendants(pid: number): number[] {
  const parents = new Map<number, number[]>();
  for (const name of readdirSync('/proc').filter((one) => /^\d+$/.test(one))) {
    try {
      const stat = readFileSync(`/proc/${name}/stat`, 'utf8');
      const parent = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
      if (/ (buildos-)?guard /.test(readFileSync(`/proc/${name}/cmdline`, 'utf8').replaceAll('\0', ' '))) continue;
      parents.set(parent, [...(parents.get(parent) ?? []), Number(name)]);
    } catch {
      // It ended while we looked.
    }
  }
  const below = (one: number): number[] => (parents.get(one) ?? []).flatMap((child) => [child, ...below(child)]);
  return below(pid);
}

const CHAINS: readonly (readonly [name: string, hops: () => readonly Hop[]])[] = [
  ['local', () => [['local']]],
  ['ssh, sudo with a password, chroot.shell', () => [far.ssh('joe'), ['sudo'], ['chroot.shell', { into: far.inner }]]],
  [
    'chroot.fork, chroot.fork',
    () => [
      ['chroot.fork', { into: far.root }],
      ['chroot.fork', { into: far.inner }],
    ],
  ],
  ['ssh, agent, setuid', () => [far.ssh('root'), ['agent'], ['setuid', { user: 'tim' }]]],
  [
    'nspawn, su',
    () => [
      ['nspawn', { directory: far.root }],
      ['su', { user: 'tim' }],
    ],
  ],
];

for (const [name, hops] of CHAINS) {
  test(`nothing is left when our process is killed: ${name}`, OPTIONS, async () => {
    const passwords = {
      'joe.password': Buffer.from((await far.data({ context: '', name: 'joe.password' })) ?? []).toString(),
    };
    for (let round = 0; round < ROUNDS; round++) {
      const before = state();
      const { child, said } = await startWorker(hops(), passwords);
      // The first round hits the opening, the others the work.
      if (round > 0) await until(() => said().includes('ready'), 'ready');
      const delay = Math.floor(Math.random() * 300);
      await sleep(delay);
      child.kill('SIGKILL');
      await once(child, 'exit');
      await assertNothingNew(before, `round ${round}, killed after ${delay} ms, ${said().slice(-200)}`);
    }
  });

  test(`nothing is left when a process of a hop is killed, and then we end: ${name}`, OPTIONS, async () => {
    const passwords = {
      'joe.password': Buffer.from((await far.data({ context: '', name: 'joe.password' })) ?? []).toString(),
    };
    const before = state();
    const { child, said } = await startWorker(hops(), passwords);
    await until(() => said().includes('ready'), 'ready');
    for (let round = 0; round < ROUNDS; round++) {
      await sleep(Math.floor(Math.random() * 150));
      const victims = descendants(child.pid ?? 0);
      const victim = victims[Math.floor(Math.random() * victims.length)];
      if (victim === undefined) continue;
      try {
        process.kill(victim, 'SIGKILL');
      } catch {
        // It ended by itself.
      }
    }
    const ended = once(child, 'exit');
    child.stdin?.write('end\n');
    const [status] = await ended;
    assert.equal(status, 0, said());
    await assertNothingNew(before, said().slice(-500));
  });
}
