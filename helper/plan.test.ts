import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { shellQuote } from '../connections/connection.ts';
import { transientArgv } from '../host/systemd.ts';
import { tableRuleset } from './firewall.ts';
import { HOST_LAYOUT, buildOfNetns, buildOfUnit, linkName, machineUnit, netnsName } from './names.ts';
import {
  type FoundBuild,
  RefusedError,
  planAgent,
  planBootstrap,
  planDelete,
  planSnapshot,
  planStart,
  planStop,
} from './plan.ts';
import { type Step, describe } from './step.ts';

const NOTHING: FoundBuild = { unit: 'absent', netns: false, link: false, snapshot: false, ports: [] };
const PLACE = { volume: 'default', build: 'default-7' } as const;
const SNAPSHOT = { verb: 'machine.snapshot', ...PLACE, machine: 'linux_debian_13-gcc_14' } as const;
const DELETE = { verb: 'machine.delete', ...PLACE } as const;
const START = {
  verb: 'machine.start',
  ...PLACE,
  toolchain: 'default',
  address: '169.254.1.2',
  port: 20_000,
  cpus: 2,
  memoryMiB: 1024,
  tasksMax: 4096,
  timeoutSeconds: 3600,
} as const;
const BOOTSTRAP = {
  verb: 'bootstrap.start',
  toolchain: 'default',
  command: ['sh', '/build/tftp/toolchains/default/bootstrap.sh', 'two words'],
  environment: { CC: 'gcc -O2' },
  timeLimitSeconds: 900,
} as const;

/** Compares steps with a file of `testdata/`; a command stands there word by word. */
function matches(name: string, steps: readonly Step[]): void {
  const lines = steps.flatMap((step) =>
    step.kind === 'start-transient'
      ? ['run', ...transientArgv(step.unit).map((word) => `  ${shellQuote([word])}`)]
      : [describe(step)],
  );
  const file = join(import.meta.dirname, 'testdata', name);
  const text = `${lines.join('\n')}\n`.replace('ld-linux-aarch64.so.1', 'ld-linux-x86-64.so.2');
  if (process.env['UPDATE_TESTDATA'] === '1') writeFileSync(file, text);
  assert.equal(text, readFileSync(file, 'utf8'));
}

test('names of a build lead back to it, and fit where they must', () => {
  const build = 'a'.repeat(32);
  assert.equal(buildOfUnit(machineUnit(build)), build);
  assert.equal(buildOfNetns(netnsName(build)), build);
  assert.ok(linkName(build).length <= 15);
  assert.notEqual(linkName('a-1'), linkName('a-2'));
  assert.equal(buildOfNetns('cni-1'), undefined);
});

test('planSnapshot() makes the folder and a fresh snapshot', () => {
  const found = { ...NOTHING, machine: { readOnly: true }, buildsFolder: false };
  matches('snapshot.txt', planSnapshot(SNAPSHOT, found, HOST_LAYOUT));
  matches('snapshot-again.txt', planSnapshot(SNAPSHOT, { ...found, snapshot: true, buildsFolder: true }, HOST_LAYOUT));
});

test('planSnapshot() refuses a machine that is missing or writable, and a build that has a unit', () => {
  const found = { ...NOTHING, machine: { readOnly: true }, buildsFolder: true };
  for (const bad of [
    { machine: undefined },
    { machine: { readOnly: false } },
    { unit: 'active' },
    { unit: 'exited' },
  ]) {
    assert.throws(() => planSnapshot(SNAPSHOT, { ...found, ...bad }, HOST_LAYOUT), RefusedError);
  }
});

test('planStart() builds the network, opens the port and runs the worker', () => {
  matches('start.txt', planStart(START, { ...NOTHING, snapshot: true, resolved: true }, HOST_LAYOUT));
});

test('planStart() replaces what a start that was killed half-way has left', () => {
  const ports = [
    { address: '169.254.1.2', port: 4000, comment: 'default-3' },
    { address: '169.254.9.9', port: 4001, comment: 'default-7' },
    { address: '169.254.9.8', port: 4002, comment: 'default-8' },
  ];
  const found = { unit: 'absent', netns: true, link: true, snapshot: true, ports, resolved: false };
  const steps = planStart(START, found, HOST_LAYOUT);
  matches(
    'start-again.txt',
    steps.filter((step) => step.kind !== 'start-transient'),
  );
});

test('planStart() starts a build once', () => {
  for (const unit of ['active', 'activating', 'failed', 'exited']) {
    assert.deepEqual(planStart(START, { ...NOTHING, unit, snapshot: true, resolved: true }, HOST_LAYOUT), []);
  }
  assert.throws(() => planStart(START, { ...NOTHING, resolved: true }, HOST_LAYOUT), RefusedError);
});

test('planDelete() removes what is there, processes first, and nothing of other builds', () => {
  const ports = [
    { address: '169.254.1.2', port: 20_000, comment: 'default-7' },
    { address: '169.254.1.3', port: 20_001, comment: 'default-70' },
  ];
  matches(
    'delete.txt',
    planDelete(DELETE, { unit: 'active', netns: true, link: true, snapshot: true, ports }, HOST_LAYOUT),
  );
  matches('delete-exited.txt', planDelete(DELETE, { ...NOTHING, unit: 'exited', snapshot: true }, HOST_LAYOUT));
  assert.deepEqual(planDelete(DELETE, NOTHING, HOST_LAYOUT), []);
});

test('planStop() kills what has processes', () => {
  const unit = machineUnit('default-7');
  assert.deepEqual(planStop(unit, 'active').map(describe), [`kill all of ${unit}`, `stop ${unit}`]);
  for (const state of ['absent', 'failed', 'exited', 'inactive']) assert.deepEqual(planStop(unit, state), []);
});

test('planBootstrap() runs the command as build, with its log opened by build', () => {
  matches('bootstrap.txt', planBootstrap(BOOTSTRAP, { unit: 'absent', missingFolders: [] }, HOST_LAYOUT));
});

test('planBootstrap() leaves a running one alone, runs an ended one anew, and needs its folders', () => {
  assert.deepEqual(planBootstrap(BOOTSTRAP, { unit: 'active', missingFolders: [] }, HOST_LAYOUT), []);
  const again = planBootstrap(BOOTSTRAP, { unit: 'exited', missingFolders: [] }, HOST_LAYOUT);
  assert.deepEqual(
    again.map(({ kind }) => kind),
    ['stop-unit', 'forget-unit', 'start-transient'],
  );
  const missing = { unit: 'absent', missingFolders: ['/build/toolchains/default'] };
  assert.throws(() => planBootstrap(BOOTSTRAP, missing, HOST_LAYOUT), {
    name: 'RefusedError',
    message: 'Cannot bootstrap toolchain default: no folder /build/toolchains/default',
  });
});

test('planAgent() forgets a failure before a start', () => {
  const lines = (['agent.start', 'agent.restart', 'agent.stop'] as const).map((verb) =>
    planAgent({ verb, toolchain: 'default' }).map(describe).join('; '),
  );
  assert.deepEqual(lines, [
    'forget the failure of buildos-agent@default.service; start buildos-agent@default.service',
    'forget the failure of buildos-agent@default.service; restart buildos-agent@default.service',
    'stop buildos-agent@default.service',
  ]);
});

test('the firewall names its bridge', () => {
  assert.match(tableRuleset('br1'), /iifname != "br1" accept/);
});
