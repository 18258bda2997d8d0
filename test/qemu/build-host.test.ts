/**
 * A real build host: the image that we ship, booted over PXE in the lab, with a machine, toolchains and a controller; looked at from
 * outside over TFTP and from inside with a root shell, and broken with `kill -9`.
 *
 * One boot for all tests, in order: a boot takes most of a minute without KVM.
 */
import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { openLocal } from '../../connections/local.ts';
import { text } from '../../connections/connection.ts';
import { type Process, start } from '../../connections/process.ts';
import { type TaskView, taskViewSchema } from '../../controller/task-view.ts';
import { buildImage } from '../../image/build.ts';
import { buildHost } from '../../image/hosts/build-host.ts';
import { publishImage } from '../../image/publish/publish.ts';
import { acceleratorArgs, findAccelerator } from '../../lab/accelerator.ts';
import { makeStateDisk } from '../../lab/disks.ts';
import { Guest } from '../../lab/guest.ts';
import { GuestShell, SHELL_ARGUMENT } from '../../lab/guest-shell.ts';
import { type Lab, openLab } from '../../lab/lab.ts';
import { findMirror } from '../../host/apt.ts';
import { logPath, readHostFile, readStatus, type StatusReading, waitForStatus } from '../../lab/status.ts';
import { createMachine } from '../../machines/create.ts';
import { packTestPackage, publishTestToolchain } from './_package.ts';

const TOP = join(import.meta.dirname, '../..');
const CLI = join(TOP, 'cli/main.ts');
const WORK = join(TOP, 'work');
const MACHINE = 'linux_debian_13-gcc_14';

/** A controller of its own process, so that it can be killed alone. */
const CONTROLLER_PORT = 8090;

/** What the tests share: made once, ended at the end. */
interface Scene {
  readonly folder: string;
  readonly lab: Lab;
  readonly guest: Guest;
  readonly shell: GuestShell;
  readonly controllerUrl: string;
  readonly sourceUrl: string;
  readonly sourceSha256: string;
}

let scene: Scene;
let controller: Process;
const undo = new AsyncDisposableStack();

before(
  async () => {
    const folder = await mkdtemp(join(tmpdir(), 'buildos-host-'));
    undo.defer(async () => await rm(folder, { recursive: true, force: true }));
    const mirror = await findMirror(openLocal());
    const { image } = await buildImage({ definition: buildHost, work: WORK, mirror });
    const machine = await createMachine({ name: MACHINE, work: WORK, mirror });
    const www = join(folder, 'www');
    for (const how of ['works', 'fails', 'never-ends', 'wrong-checksum'] as const) {
      await publishTestToolchain(join(www, 'toolchains', how), how);
    }
    const source = await packTestPackage(join(www, 'sources'));
    const lab = undo.use(
      await openLab({ httpFolder: www, bootScript: '#!ipxe\nchain --autofree http://10.77.0.1/image/boot.ipxe\n' }),
    );
    const controllerUrl = `http://10.77.0.1:${CONTROLLER_PORT}`;
    await startController(lab, folder);
    undo.defer(async () => await controller.stop(1000));
    const accelerator = await findAccelerator(image.kernel);
    const list = (how: string): string => `${lab.url}/toolchains/${how}/toolchain.sha256`;
    await publishImage({
      image,
      into: join(www, 'image'),
      url: `${lab.url}/image`,
      kernelArgs: ['console=ttyS0', SHELL_ARGUMENT, ...acceleratorArgs(accelerator)],
      options: {
        toolchain_url: list('works'),
        'toolchain_url.failing': list('fails'),
        'toolchain_url.endless': list('never-ends'),
        'toolchain_url.altered': list('wrong-checksum'),
        controller_url: controllerUrl,
        instances: '1',
        monitor_interval: '600',
        hostnam: 'misspelt',
      },
    });
    const state = join(folder, 'state.img');
    await makeStateDisk(openLocal(), state);
    await mkdir(join(folder, 'guest'));
    const guest = undo.use(
      await Guest.start({
        name: 'build-host',
        firmware: 'bios',
        accelerator,
        memoryMiB: 3072,
        disks: [
          { file: machine.disk, format: 'raw', snapshot: true },
          { file: state, format: 'raw' },
        ],
        network: lab.network(),
        folder: join(folder, 'guest'),
        shell: true,
      }),
    );
    await guest.whileRunning('agent ready', (ended) =>
      waitForStatus(lab, isReady, { what: 'agent ready', timeoutMs: 400_000, signal: ended }),
    );
    const shell = undo.use(await GuestShell.open(guest.sockets.shell, { timeoutMs: 60_000 }));
    const sourceUrl = `${lab.url}/sources/waiting_1.0.orig.tar.gz`;
    scene = { folder, lab, guest, shell, controllerUrl, sourceUrl, sourceSha256: source.sha256 };
  },
  { timeout: 900_000 },
);

after(async () => await undo.disposeAsync(), { timeout: 60_000 });

// A test that fails leaves its build behind: the next one is not to take that for its own.
beforeEach(waitForQuiet, { timeout: 150_000 });

test('the root is in RAM, Node is held once, nothing failed but what was made to fail', async () => {
  const { shell } = scene;
  const mounts = await shell.run('findmnt -rno TARGET,FSTYPE,SOURCE', { timeoutMs: 30_000 });
  assert.match(mounts.output, /^\/ overlay /m);
  assert.match(mounts.output, /^\/usr\/lib\/buildos\/node squashfs /m);
  assert.match(mounts.output, /^\/build\/tftp tmpfs /m);
  assert.match(mounts.output, /^\/build\/machines\/default btrfs /m);
  assert.match(mounts.output, /^\/state ext4 /m);
  assert.doesNotMatch(mounts.output, /nfs|cifs|iscsi/);
  const failed = await shell.run('systemctl --failed --no-legend --plain', { timeoutMs: 30_000 });
  const units = failed.output.split('\n').filter((line) => line !== '' && !line.startsWith('buildos-bootstrap-'));
  assert.deepEqual(units, []);
  const users = await shell.run('ps -eo user=,args= | grep -E "(monitor|agent)\\.mjs" | grep -v grep', {
    timeoutMs: 30_000,
  });
  for (const line of users.output.trim().split('\n')) assert.match(line, /^build /);
});

test('a misspelt option is named in the status, with the nearest one, and on the console', async () => {
  const json = await readHostFile(scene.lab, 'status.json');
  assert.match(json ?? '', /buildos\.hostnam\b.*buildos\.hostname/s);
  assert.ok(scene.guest.lines.some((line) => line.includes('buildos.hostnam') && line.includes('buildos.hostname')));
});

test('toolchains that fail, never end or were altered are reported, each by its reason, and hold nothing back', async () => {
  const status = await waitForStatus(
    scene.lab,
    ({ toolchains }) => ['failing', 'endless', 'altered'].every((name) => toolchains[name]?.state === 'failed'),
    { what: 'three failed toolchains', timeoutMs: 120_000 },
  );
  assert.equal(status.toolchains['default']?.state, 'ready');
  assert.match(status.toolchains['failing']?.error ?? '', /status 3|exit/i);
  assert.match(status.toolchains['endless']?.error ?? '', /time|limit|5 s/i);
  assert.match(status.toolchains['altered']?.error ?? '', /bootstrap\.sh.*(SHA-256|checksum|digest)/is);
  assert.match((await readHostFile(scene.lab, 'toolchains/failing/bootstrap.log')) ?? '', /no such compiler/);
});

test('a task is built in a fresh machine, its log is read over TFTP meanwhile, and nothing is left', async () => {
  const id = await submit(8);
  const { path } = await waitForLog('second 2');
  const task = await waitForResult(id);
  assert.equal(task.status, 'success');
  assert.deepEqual(
    task.operations.map(({ operation, status }) => `${operation} ${status}`),
    ['configure success', 'build success', 'check success', 'install success', 'upload success'],
  );
  assert.equal(task.uploads.length, 1);
  assert.match((await readHostFile(scene.lab, path)) ?? '', /second 8/, 'the log stays readable after the build');
  await assertNothingLeft();
});

test('a machine sees no network but its own TFTP port and the outside', async () => {
  await submit(20);
  await waitForLog('second 1');
  const inside = await shellOutput("ip netns exec $(ip netns list | awk '/^buildos-/{print $1; exit}') ip -br address");
  assert.match(inside, /host0@?\S*\s+UP\s+169\.254\./);
  const leader = '$(pgrep -f /worker.mjs | tail -n 1)';
  const caps = await shellOutput(`grep -E 'CapEff|NoNewPrivs' /proc/${leader}/status; cat /proc/${leader}/uid_map`);
  assert.match(caps, /NoNewPrivs:\s+1/);
  assert.doesNotMatch(caps, /^\s+0\s+0\s/m, 'root of the machine is not root of the host');
  await waitForQuiet();
});

for (const victim of ['worker', 'machine', 'agent', 'monitor', 'helper', 'controller'] as const) {
  test(`kill -9 of the ${victim} during a build loses no task and leaves nothing`, { timeout: 240_000 }, async () => {
    const id = await submit(12);
    await waitForLog('second 2');
    await kill(victim);
    const task = await waitForResult(id);
    const told = task.events.map(({ name }) => name);
    switch (victim) {
      case 'worker':
      case 'machine':
        // Nobody knows how far it came: the result says that it crashed.
        assert.equal(task.status, 'abnormal', told.join(' '));
        break;
      case 'agent':
        assert.ok(told.includes('interrupt'), told.join(' '));
        assert.equal(task.status, 'success');
        break;
      case 'monitor':
      case 'helper':
      case 'controller':
        assert.equal(task.status, 'success', told.join(' '));
        assert.equal(task.attempts, 1);
        break;
    }
    assert.equal(told.filter((name) => name === 'result').length, 1, 'one result, once');
    await assertNothingLeft();
  });
}

function isReady(status: StatusReading): boolean {
  return status.events.some(({ name }) => name === 'agent-ready' || name === 'agent-ready:default');
}

async function startController(lab: Lab, folder: string): Promise<void> {
  const data = join(folder, 'controller');
  await mkdir(data, { recursive: true });
  const argv = ['controller', '--folder', data, '--address', '10.77.0.1', '--port', String(CONTROLLER_PORT)];
  controller = await start(['ip', 'netns', 'exec', lab.namespace, process.execPath, CLI, ...argv]);
  await controller.stdout.waitFor(/http/, { timeoutMs: 20_000 });
}

/** Gives a task whose configure takes so many seconds. @returns its id */
async function submit(seconds: number): Promise<string> {
  const { lab, controllerUrl, sourceUrl, sourceSha256 } = scene;
  const task = {
    '--controller': controllerUrl,
    '--name': 'waiting',
    '--version': '1.0',
    '--source': sourceUrl,
    '--sha256': sourceSha256,
    '--machine': MACHINE,
    '--environment': `SECONDS_TO_WAIT=${seconds}`,
  };
  const answer = await lab.run([process.execPath, CLI, 'submit', '--json', ...Object.entries(task).flat()], {
    timeoutMs: 30_000,
  });
  const parsed: unknown = JSON.parse(text(answer));
  assert.ok(typeof parsed === 'object' && parsed !== null && 'id' in parsed);
  return String(parsed.id);
}

/** Waits until the log of the running build, read with curl over TFTP, has this text. */
async function waitForLog(wanted: string): Promise<{ readonly path: string }> {
  const deadline = Date.now() + 120_000;
  while (Date.now() < deadline) {
    const task = (await readStatus(scene.lab))?.tasks[0];
    const path = task === undefined ? undefined : logPath(task);
    if (path !== undefined && ((await readHostFile(scene.lab, path)) ?? '').includes(wanted)) return { path };
    await sleep(300);
  }
  return assert.fail(`"${wanted}" did not appear in a log in 120 s; console:\n${scene.guest.tail(40).join('\n')}`);
}

async function waitForResult(id: string): Promise<TaskView> {
  const { lab, controllerUrl } = scene;
  const deadline = Date.now() + 200_000;
  let last = '';
  while (Date.now() < deadline) {
    const answer = await lab.run(['curl', '--silent', '--max-time', '10', `${controllerUrl}/?task=${id}`], {
      okStatus: 'any',
      timeoutMs: 20_000,
    });
    last = text(answer);
    if (answer.status === 0) {
      const task = taskViewSchema.parse(JSON.parse(last));
      if (task.state === 'done' || task.state === 'given-up') return task;
    }
    await sleep(500);
  }
  return assert.fail(`Task ${id} has no result after 200 s: ${last}\n${scene.guest.tail(40).join('\n')}`);
}

async function waitForQuiet(): Promise<void> {
  await waitForStatus(scene.lab, ({ tasks }) => tasks.length === 0, { what: 'no task', timeoutMs: 120_000 });
}

/** Kills with SIGKILL; the host's programs from inside it. */
async function kill(victim: 'worker' | 'machine' | 'agent' | 'monitor' | 'helper' | 'controller'): Promise<void> {
  switch (victim) {
    case 'worker':
      await shellOutput('kill -9 $(pgrep -f "/worker.mjs" | tail -n 1)');
      return;
    case 'machine':
      await shellOutput("systemctl kill --signal=KILL --kill-whom=all 'buildos-machine-*.service'");
      return;
    case 'agent':
      await shellOutput('kill -9 $(systemctl show --property=MainPID --value buildos-agent@default.service)');
      return;
    case 'monitor':
    case 'helper':
      await shellOutput(`kill -9 $(systemctl show --property=MainPID --value buildos-${victim}.service)`);
      return;
    case 'controller':
      process.kill(controller.pid, 'SIGKILL');
      await controller.exited;
      await startController(scene.lab, scene.folder);
      return;
    default:
      victim satisfies never;
  }
}

/** Units, snapshots, network namespaces, links, ports and mounts of builds: all gone. */
async function assertNothingLeft(): Promise<void> {
  await waitForQuiet();
  const look = [
    "systemctl list-units --all --no-legend --plain 'buildos-machine-*'",
    'ls -A /build/machines/default/.builds 2>/dev/null',
    'ip netns list',
    'ip -br link | grep -E "^(vb|ve)" || true',
    // Machines' TFTP ports are on the address of br1.
    'ss -Hlun src 169.254.111.222 | grep -v :53 || true',
    'findmnt -rno TARGET | grep -E "/(.builds|netns)/" || true',
  ];
  let left = '';
  for (let tries = 0; tries < 20; tries += 1) {
    left = (await shellOutput(look.join('\n'))).trim();
    if (left === '') return;
    await sleep(1000);
  }
  assert.equal(left, '');
}

async function shellOutput(line: string): Promise<string> {
  return (await scene.shell.run(line, { timeoutMs: 60_000 })).output;
}
