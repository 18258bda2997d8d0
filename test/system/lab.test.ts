/** The lab's network with foreign clients: curl for HTTP and TFTP, udhcpc of busybox for DHCP. Needs root. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { text } from '../../connections/connection.ts';
import { openLocal } from '../../connections/local.ts';
import { type Lab, openLab } from '../../lab/lab.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root';
const TOP = join(import.meta.dirname, '../..');

let folder: string;
let lab: Lab;

before(async () => {
  if (skip !== false) return;
  folder = await mkdtemp(join(tmpdir(), 'lab-test-'));
  await writeFile(join(folder, 'file'), 'x'.repeat(100_000));
  lab = await openLab({ httpFolder: folder, controllerFolder: join(folder, 'controller') });
});
after(async () => {
  if (skip !== false) return;
  await lab.close();
  await rm(folder, { recursive: true });
});

const curl = async (...args: string[]): Promise<string> =>
  text(await lab.run(['curl', '--silent', '--fail', '--max-time', '10', ...args]));

test('files over HTTP, and the event that tells of it', { skip, timeout: 20_000 }, async () => {
  assert.equal((await curl(`${lab.url}/file`)).length, 100_000);
  assert.equal((await curl('--range', '5-9', `${lab.url}/file`)).length, 5);
  const event = await lab.log.waitFor((each) => each.source === 'http' && each.status === 206, {
    what: 'the event',
    timeoutMs: 5000,
  });
  assert.equal(event.source === 'http' && event.bytes, 5);
});

test('NBPs and the iPXE script over TFTP', { skip, timeout: 20_000 }, async () => {
  assert.match(await curl('tftp://10.77.0.1/boot.ipxe'), /^#!ipxe\nchain/);
  await curl('--output', '/dev/null', 'tftp://10.77.0.1/undionly.kpxe');
  await curl('--output', '/dev/null', 'tftp://10.77.0.1/snponly.efi');
  await lab.setBootScript('#!ipxe\nshell\n');
  assert.equal(await curl('tftp://10.77.0.1/boot.ipxe'), '#!ipxe\nshell\n');
  const event = await lab.log.waitFor((each) => each.source === 'tftp' && each.name === 'snponly.efi', {
    what: 'the event',
    timeoutMs: 5000,
  });
  assert.equal(event.source === 'tftp' && event.result, 'done');
});

test('a controller that answers', { skip, timeout: 20_000 }, async () => {
  assert.equal(await curl(`${lab.controllerUrl}/?tasks`).then((answer) => JSON.parse(answer).length), 0);
});

test('DHCP sends each firmware its boot file', { skip, timeout: 60_000 }, async () => {
  const local = openLocal();
  const other = `${lab.namespace}-client`;
  await local.run(['ip', 'netns', 'add', other]);
  try {
    await lab.run(['ip', 'link', 'add', 'client', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', other]);
    await lab.run(['ip', 'link', 'set', 'client', 'master', 'lab0', 'up']);
    await local.run(['ip', '-netns', other, 'link', 'set', 'eth0', 'up']);
    const script = join(folder, 'script');
    await writeFile(script, '#!/bin/sh\n[ "$1" != bound ] || echo "$ip $siaddr $bootfile$boot_file"\n', {
      mode: 0o755,
    });
    const ask = async (...options: string[]): Promise<string> => {
      const udhcpc = ['busybox', 'udhcpc', '-f', '-q', '-n', '-t', '5', '-T', '1', '-i', 'eth0', '-s', script];
      const result = await local.run(['ip', 'netns', 'exec', other, ...udhcpc, '-O', 'bootfile', ...options]);
      return text(result).trim().split('\n').at(-1) ?? '';
    };
    // Option 93, client architecture, as two bytes; option 77, user class.
    assert.match(await ask('-x', '0x5d:0000'), /^10\.77\.0\.\d+ 10\.77\.0\.1 undionly\.kpxe$/);
    assert.match(await ask('-x', '0x5d:0007'), / snponly\.efi$/);
    assert.match(await ask('-x', '0x5d:0007', '-x', '0x4d:69505845'), / boot\.ipxe$/);
    assert.ok(lab.log.events.some((event) => event.source === 'dhcp' && event.message === 'ACK'));
  } finally {
    await local.run(['ip', 'netns', 'delete', other]);
  }
});

test('what a killed lab leaves has no processes, and the next lab removes it', { skip, timeout: 60_000 }, async () => {
  const program = [
    `import { openLab } from ${JSON.stringify(join(TOP, 'lab/lab.ts'))};`,
    `const lab = await openLab({ httpFolder: ${JSON.stringify(folder)} });`,
    `console.log(lab.namespace);`,
    `setInterval(() => {}, 1000);`,
  ].join('\n');
  const child = spawn(process.execPath, ['--input-type=module', '--eval', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const [chunk] = await once(child.stdout, 'data');
  const namespace = String(chunk).trim();
  child.kill('SIGKILL');
  await once(child, 'exit');
  const local = openLocal();
  const left = async (): Promise<string> => text(await local.run(['ip', 'netns', 'pids', namespace]));
  for (let tries = 0; tries < 30 && (await left()) !== ''; tries++) await sleep(100);
  assert.equal(await left(), '');
  await using next = await openLab({ httpFolder: folder });
  const names = text(await local.run(['ip', 'netns', 'list']));
  assert.ok(names.includes(next.namespace));
  assert.ok(!names.includes(namespace));
  assert.ok(!(await readdir('/run/buildos-lab')).includes(namespace));
});
