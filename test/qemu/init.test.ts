/** Stage 1 as PID 1 under a real kernel: the hand-over, and what a person sees when it cannot be. */
import assert from 'node:assert/strict';
import { mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { parseHostJson } from '../../host/host-json.ts';
import { parseMountInfo } from '../../host/mount.ts';
import { encodeCpio } from '../../image/cpio.ts';
import { Guest } from './_console.ts';
import { type Stage1Fixture, makeStage1 } from './_stage1.ts';

const SSH_KEY = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKAd3qAkB5kzmXtZ3uT4rF0yqkQmQyN8oHhH5w0q3X1v me@there';

let fixture: Stage1Fixture;
let scratch: string;

before(
  async () => {
    fixture = await makeStage1();
    scratch = await mkdtemp(join(tmpdir(), 'buildos-init-'));
  },
  { timeout: 900_000 },
);

after(async () => {
  await rm(scratch, { recursive: true, force: true });
});

/** What the guest printed between two marks. */
function between(guest: Guest, name: string): string {
  const [, rest = ''] = guest.text().split(`root: begin ${name}\n`);
  return rest.split(`root: end ${name}`)[0] ?? '';
}

/** A copy of the initrd, changed. */
async function changedInitrd(name: string, change: (content: Buffer) => Buffer): Promise<string> {
  const path = join(scratch, name);
  await writeFile(path, change(await readFile(fixture.initrd)));
  return path;
}

// Most of these wait rather than work, so they run side by side.
describe('stage 1', { concurrency: 2, timeout: 600_000 }, () => {
  test('hands over to the init of the root, which finds its host described', async () => {
    await using guest = await Guest.start({
      ...fixture,
      append: [
        'quiet NODE_OPTIONS= buildos.hostname=h1 buildos.hostnam=h2 buildos.tftp_size=900M',
        'buildos.toolchain_url=http://boot/toolchain.sha256',
        `"buildos.ssh_key=${SSH_KEY}"`,
      ].join(' '),
    });
    await guest.line(/^Build OS deadbeef: stage 1/);
    await guest.line(
      /^Build OS: kernel command line: buildos.hostnam=h2: unknown option \(did you mean buildos.hostname\?\)/,
    );
    await guest.line(/^Build OS deadbeef: stage 1 done .* s after the kernel started/);
    await guest.line(/^root: done/);
    await guest.end();

    const host = parseHostJson(between(guest, 'host.json'));
    assert.equal(host.buildId, fixture.buildId);
    assert.equal(host.options.toolchains['default']?.url, 'http://boot/toolchain.sha256');
    assert.deepEqual(
      host.problems.map(({ name }) => name),
      ['buildos.hostnam', 'buildos.tftp_size'],
    );
    const { steps } = host.boot;
    assert.deepEqual(
      steps.slice(0, 2).map(({ name }) => name),
      ['node', 'root file system'],
    );
    for (const [index, step] of steps.entries()) {
      assert.ok(step.startMs <= step.endMs && step.startMs >= (steps[index - 1]?.endMs ?? 0), JSON.stringify(steps));
    }

    const mounts = parseMountInfo(between(guest, 'mounts'));
    assert.deepEqual(mounts.map(({ target, type }) => `${target} ${type}`).sort(), [
      '/ overlay',
      '/build/tftp tmpfs',
      '/dev devtmpfs',
      '/proc proc',
      '/run tmpfs',
      '/sys sysfs',
      '/usr/lib/buildos/node squashfs',
    ]);
    await guest.line(/^root: pid 1$/);
    await guest.line(
      /^root: folders: \/run\/buildos=755:0:0 \/run\/buildos\/agents=755:991:992 \/run\/buildos\/monitor=755:991:992 \/build\/tftp=755:991:992/,
    );
    await guest.line(/^root: tftp: 24[0-9] MiB/); // a quarter of 1024, less what the kernel keeps for itself
    await guest.line(/^root: hostname: h1$/);
    await guest.line(new RegExp(`^root: keys: 600:991:992 ${RegExp.escape(SSH_KEY)}\\|$`));
    await guest.line(/^root: environment: HOME=\/ TERM=linux\s*$/);
    await guest.line(/^root: panic: 10$/);
    await guest.line(/^root: writable: yes$/);
    await guest.line(/^root: terminal: .* icrnl .* opost .* onlcr .* isig icanon .* echo /);
    // One Node in RAM, with a name that child processes can be started by.
    await guest.line(/^root: node: v26\.\d+\.\d+ \/usr\/lib\/buildos\/node$/);
  });

  test('says that the initrd is cut short, and reboots when nobody is there', async () => {
    const initrd = await changedInitrd('short', (content) => content.subarray(0, content.length - 1_000_000));
    await using guest = await Guest.start({ ...fixture, initrd, append: 'quiet' });
    await guest.line(/\*\*\* Build OS cannot start on this host \*\*\*/);
    await guest.line(/step: payload/);
    await guest.line(
      new RegExp(
        `why: {2}The initrd is cut short: only \\d+ of ${fixture.squashfsBytes} bytes of /buildos/layer-1.squashfs`,
      ),
    );
    await guest.line(/try: .*SHA256SUMS/);
    await guest.line(/Press Enter within 60 s/);
    await guest.line(/Build OS: rebooting/, 90_000);
    await guest.end();
    assert.doesNotMatch(guest.text(), /Kernel panic/);
  });

  test('says that the initrd is cut short when that hits Node, before which nothing but a shell runs', async () => {
    const initrd = await changedInitrd('very-short', (content) => content.subarray(0, content.length / 2));
    await using guest = await Guest.start({ ...fixture, initrd, append: 'quiet' });
    await guest.line(/\*\*\* Build OS cannot start on this host \*\*\*/);
    await guest.line(/step: node/);
    await guest.line(/why: {2}The initrd is cut short: only \d+ of \d+ bytes of \/buildos\/node.squashfs are there/);
    await guest.line(/try: .*SHA256SUMS/);
    await guest.line(/Press Enter within 60 s/);
    await guest.type('\n');
    await guest.line(/rescue shell/);
    assert.doesNotMatch(guest.text(), /Kernel panic/);
  });

  test('names the module that belongs to another kernel', async () => {
    const broken = encodeCpio([
      { kind: 'file', path: 'modules/squashfs.ko', mode: 0o644, content: Buffer.from('of another kernel') },
    ]);
    const initrd = await changedInitrd('other-modules', (content) => Buffer.concat([content, broken]));
    await using guest = await Guest.start({ ...fixture, initrd, append: 'quiet' });
    await guest.line(/step: kernel modules/);
    await guest.line(/why: .*squashfs\.ko/);
    await guest.line(/try: .*of different builds/);
  });

  test('gives a shell to whoever presses Enter, and reboots when it is left', async () => {
    const initrd = await changedInitrd('headless', (content) =>
      // Less than the headers of the layer's segment: Node, before it, is whole.
      content.subarray(0, content.length - fixture.squashfsBytes - 300),
    );
    await using guest = await Guest.start({ ...fixture, initrd, append: 'quiet' });
    await guest.line(/why: .*\/buildos\//);
    await guest.line(/Press Enter/);
    await guest.type('\n');
    await guest.line(/rescue shell/);
    await guest.type('echo "$((6 * 7)) $(ls / | tr "\\n" " ")"\n');
    await guest.line(/^42 .*init/);
    await guest.type('exit\n');
    await guest.line(/Build OS: rebooting/);
    await guest.end();
    assert.doesNotMatch(guest.text(), /Kernel panic/);
  });

  test('finds a damaged payload with buildos.init_debug, and tells each step', async () => {
    const initrd = join(scratch, 'damaged');
    await writeFile(initrd, await readFile(fixture.initrd));
    const file = await open(initrd, 'r+');
    await file.write(Buffer.from('xyzzy'), 0, 5, (await file.stat()).size - 500_000);
    await file.close();
    await using guest = await Guest.start({ ...fixture, initrd, append: 'quiet buildos.init_debug' });
    await guest.line(/step: payload digest/);
    await guest.line(/is damaged: its SHA-256 is [0-9a-f]{64}/);
    await guest.line(/Press Enter/);
  });

  test('gives a shell before the hand-over with buildos.init_shell, and goes on after it', async () => {
    await using guest = await Guest.start({ ...fixture, append: 'quiet buildos.init_shell' });
    await guest.line(/a shell before the hand-over/);
    await guest.type('echo "$((6 * 7)) $(cat /newroot/run/buildos/host.json | grep -c buildId)"\n');
    await guest.line(/^42 1/);
    await guest.type('exit\n');
    await guest.line(/^root: pid 1$/);
    await guest.line(/^root: done/);
    await guest.end();
  });
});
