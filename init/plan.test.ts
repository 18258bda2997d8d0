import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { parseKernelCommandLine } from '../host/kernel-cmdline.ts';
import { MOVE_KERNEL_FILE_SYSTEMS, type RootFacts, planHandOver, planHost, planRoot } from './plan.ts';
import { InitError, type Step, describe } from './step.ts';

const SSH_KEY = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKAd3qAkB5kzmXtZ3uT4rF0yqkQmQyN8oHhH5w0q3X1v me@there';
const PASSWD = 'root:x:0:0::/root:/bin/sh\nbuilder:x:7:7::/:/bin/sh\nbuild:x:1000:1001::/build:/bin/bash\n';

const facts: RootFacts = {
  payload: {
    buildId: 'c0ffee',
    layers: [
      { name: 'layer-1.squashfs', size: 5000, sha256: 'cd'.repeat(32) },
      { name: 'layer-2.squashfs', size: 10_000_000, sha256: 'ab'.repeat(32) },
    ],
  },
  layers: [
    { sizeBytes: 5000, storedBytes: 5000 },
    { sizeBytes: 10_000_000, storedBytes: 10_000_000 },
  ],
  initramfsFreeBytes: 300_000_000,
  memoryMiB: 967,
};

/** What is changed about the last layer, and about the initramfs. */
type Changed = Partial<RootFacts['layers'][number] & Pick<RootFacts, 'initramfsFreeBytes'>>;

const optionsOf = (text: string) => parseKernelCommandLine(text).options;

/** Compares printed steps with a file of testdata/; `UPDATE_TESTDATA=1` rewrites it. */
function expectSteps(steps: readonly Step[], file: string): void {
  const path = join(import.meta.dirname, 'testdata', file);
  const found = `${steps.flatMap(describe).join('\n')}\n`;
  if (process.env['UPDATE_TESTDATA'] === '1') writeFileSync(path, found);
  assert.equal(found, readFileSync(path, 'utf8'));
}

test('a plain boot', () => {
  const options = optionsOf('');
  const host = planHost(options, { memoryMiB: 967, passwd: PASSWD });
  const steps = [...planRoot(options, facts), ...host.steps, MOVE_KERNEL_FILE_SYSTEMS];
  expectSteps(steps, 'plain.txt');
  assert.deepEqual(host.problems, []);
});

test('a boot with every option that stage 1 follows', () => {
  const options = optionsOf(
    `buildos.init_debug buildos.hostname=h1 buildos.tftp_size=2G buildos.ssh_key="${SSH_KEY}" buildos.ssh_key="${SSH_KEY}2"`,
  );
  const host = planHost(options, { memoryMiB: 64_000, passwd: PASSWD });
  expectSteps([...planRoot(options, facts), ...host.steps], 'options.txt');
});

test('/build/tftp never gets more than a quarter of RAM, and who asked for more is told', () => {
  const { problems } = planHost(optionsOf('buildos.tftp_size=2G'), { memoryMiB: 4000, passwd: PASSWD });
  assert.deepEqual(problems, [
    { name: 'buildos.tftp_size', value: '2048M', message: "lowered to 1000 MiB, a quarter of this host's RAM" },
  ]);
});

test('an image without the user build is refused', () => {
  assert.throws(() => planHost(optionsOf(''), { memoryMiB: 967, passwd: 'builder:x:1:1::/:\nbuild:x:a:b::/:\n' }), {
    name: 'InitError',
    message: /no user "build"/,
  });
});

test('a payload that is not whole is refused, with the cause', () => {
  const withLast = (changed: Changed): RootFacts => {
    const { initramfsFreeBytes = facts.initramfsFreeBytes, ...last } = changed;
    const whole = { sizeBytes: 10_000_000, storedBytes: 10_000_000 };
    return { ...facts, initramfsFreeBytes, layers: [...facts.layers.slice(0, 1), { ...whole, ...last }] };
  };
  const hintOf = (changed: Changed, message: RegExp): string => {
    try {
      planRoot(optionsOf(''), withLast(changed));
    } catch (error) {
      assert.ok(error instanceof InitError);
      assert.equal(error.step, 'payload');
      assert.match(error.message, message);
      return error.hint;
    }
    return assert.fail(`not refused: ${JSON.stringify(changed)}`);
  };
  assert.match(hintOf({ storedBytes: 9_999_360 }, /cut short: only 9999360 of 10000000 bytes/), /SHA256SUMS.*HTTP/);
  assert.match(hintOf({ sizeBytes: undefined, storedBytes: 0 }, /cut short: only 0 of/), /SHA256SUMS/);
  assert.match(hintOf({ sizeBytes: 10_000_001 }, /has 10000001 bytes, .* one of 10000000/), /mix of two builds/);
  assert.match(hintOf({ storedBytes: 1_000_000, initramfsFreeBytes: 0 }, /Not enough RAM/), /at least 1241 MiB/);
  // ramfs shows no holes: then only the size can be compared.
  assert.equal(planRoot(optionsOf(''), withLast({ storedBytes: undefined })).length, 1);
});

test('the hand-over goes to switch_root, through a shell when asked for', () => {
  assert.deepEqual(planHandOver(optionsOf('')), ['/bin/busybox', 'switch_root', '/newroot', '/sbin/init']);
  const [program, ...args] = planHandOver(optionsOf('buildos.init_shell'));
  assert.deepEqual([program, args[0], args[1]], ['/bin/busybox', 'sh', '-c']);
  assert.match(args[2] ?? '', /cttyhack .*\nexec \/bin\/busybox switch_root \/newroot \/sbin\/init$/);
});
