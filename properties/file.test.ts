import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { Connection } from '../connections/connection.ts';
import { openLocal } from '../connections/local.ts';
import { toyDefinition } from './_toy.ts';
import { onChange, unapplied } from './combinators.ts';
import { type DeployReport, deploy as deployWithMemory } from './deploy.ts';
import * as file from './file.ts';
import type { HostDefinition } from './host-definition.ts';
import { planHost } from './plan.ts';
import { type PropertyApplication, defineProperty } from './property.ts';

const QUICK = { timeout: 20_000 };
const { uid, gid } = userInfo();
/** Whoever runs the tests owns the files. */
const owner = `${uid}:${gid}`;

function scratch(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'buildos-file-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** Nothing is to be kept on the machine that runs the tests. */
async function deploy(definition: HostDefinition, connection: Connection, state?: string): Promise<DeployReport> {
  const where = state === undefined ? {} : { state };
  return await deployWithMemory(definition, connection, { memory: 'none', ...where });
}

/** Deploys on this host, twice: the second time everything must hold already, in at most one look. */
async function deployTwice(...properties: PropertyApplication[]): Promise<string[]> {
  const local = openLocal();
  const first = await deploy(toyDefinition(...properties), local);
  let commands = 0;
  const counted: Connection = { ...local, run: (argv, options) => (commands++, local.run(argv, options)) };
  const second = await deploy(toyDefinition(...properties), counted);
  assert.deepEqual(
    second.results.map(({ outcome }) => outcome),
    first.results.map(({ outcome }) => (outcome === 'failed' ? 'failed' : 'ok')),
  );
  assert.ok(commands <= 1 || first.outcome === 'failed', `${commands} commands`);
  return first.results.map(({ outcome, error }) => (error === undefined ? outcome : `${outcome} ${error.message}`));
}

test('many files are looked at in one command', QUICK, async (t) => {
  const folder = scratch(t);
  const names = Array.from({ length: 30 }, (_, index) => join(folder, `it's $${index}\n`));
  assert.deepEqual(
    await deployTwice(...names.map((name) => file.hasContent(name, `content of ${name}`, { owner, mode: 0o600 }))),
    names.map(() => 'changed'),
  );
  for (const name of names) assert.equal(readFileSync(name, 'utf8'), `content of ${name}`);
});

test('hasContent() makes the directory, sets the mode, and mends only what is wrong', QUICK, async (t) => {
  const path = join(scratch(t), 'a/b/f');
  await deployTwice(file.hasContent(path, 'text', { owner, mode: 0o640 }));
  assert.equal(statSync(path).mode & 0o7777, 0o640);
  const inode = statSync(path).ino;
  chmodSync(path, 0o600);
  assert.deepEqual(await deployTwice(file.hasContent(path, 'text', { owner, mode: 0o640 })), ['changed']);
  assert.equal(statSync(path).ino, inode);
  assert.deepEqual(await deployTwice(file.hasContent(path, 'other', { owner, mode: 0o640 })), ['changed']);
  assert.notEqual(statSync(path).ino, inode);
  assert.deepEqual(readdirSync(join(path, '..')), ['f']);
});

test('hasContent() replaces a link, and refuses a directory', QUICK, async (t) => {
  const folder = scratch(t);
  writeFileSync(join(folder, 'target'), 'kept');
  symlinkSync('target', join(folder, 'link'));
  mkdirSync(join(folder, 'd'));
  const results = await deployTwice(
    file.hasContent(join(folder, 'link'), 'new', { owner }),
    file.hasContent(join(folder, 'd'), 'new', { owner }),
  );
  assert.equal(readFileSync(join(folder, 'target'), 'utf8'), 'kept');
  assert.equal(lstatSync(join(folder, 'link')).isSymbolicLink(), false);
  assert.equal(results[0], 'changed');
  assert.match(results[1] ?? '', /^failed Cannot write .*\/d: .*Is a directory$/);
});

test('hasFile() copies bytes by their digest', QUICK, async (t) => {
  const folder = scratch(t);
  const bytes = randomBytes(300_000);
  const source = join(folder, 'source');
  writeFileSync(source, bytes);
  const sha256 = createHash('sha256').update(bytes).digest('hex');
  await deployTwice(file.hasFile(join(folder, 'copy'), { source, sha256 }, { owner, mode: 0o755 }));
  assert.deepEqual(readFileSync(join(folder, 'copy')), bytes);
  assert.equal(statSync(join(folder, 'copy')).mode & 0o7777, 0o755);
});

test('hasLines() adds what lacks, keeps the mode, and takes back only its lines', QUICK, async (t) => {
  const path = join(scratch(t), 'f');
  writeFileSync(path, 'one\ntwo', { mode: 0o600 });
  const lines = file.hasLines(path, ['two', 'three', "fo'ur"]);
  await deployTwice(lines);
  assert.equal(readFileSync(path, 'utf8'), "one\ntwo\nthree\nfo'ur\n");
  assert.equal(statSync(path).mode & 0o7777, 0o600);
  await deployTwice(unapplied(lines));
  assert.equal(readFileSync(path, 'utf8'), 'one\n');
});

test('hasLines() does not spoil a file that is not UTF-8', QUICK, async (t) => {
  const path = join(scratch(t), 'f');
  writeFileSync(path, Buffer.from([0xff, 0xfe, 0x0a]));
  assert.match((await deployTwice(file.hasLines(path, ['x'])))[0] ?? '', /not UTF-8/);
  assert.equal(readFileSync(path).length, 3);
});

test('directory(), symlink() and absent() hold, and go back', QUICK, async (t) => {
  const folder = scratch(t);
  const path = (name: string): string => join(folder, name);
  writeFileSync(path('old'), '');
  const directory = file.directory(path('x/y'), { owner, mode: 0o750 });
  const link = file.symlink(path('l'), '../some where');
  await deployTwice(directory, link, file.absent(path('old')), file.absent(path('never')));
  assert.equal(statSync(path('x/y')).mode & 0o7777, 0o750);
  assert.equal(readlinkSync(path('l')), '../some where');
  assert.ok(!existsSync(path('old')));
  await deployTwice(file.symlink(path('l'), 'other'));
  assert.equal(readlinkSync(path('l')), 'other');
  await deployTwice(unapplied(directory), unapplied(file.symlink(path('l'), 'other')));
  assert.deepEqual(readdirSync(folder), ['x']);
});

test('a plan shows the lines of a file that would change', QUICK, async (t) => {
  const path = join(scratch(t), 'f');
  writeFileSync(path, 'one\ntwo\nthree\n');
  const definition = toyDefinition(file.hasContent(path, 'one\n2\nthree\n', { owner }));
  const { properties } = await planHost(definition, openLocal(), { memory: 'none' });
  const diff = [`--- ${path}`, `+++ ${path}`, '@@ -1,3 +1,3 @@', ' one', '-two', '+2', ' three'];
  assert.deepEqual(properties[0]?.lines, diff);
  assert.equal(readFileSync(path, 'utf8'), 'one\ntwo\nthree\n');
});

test('facts are forgotten where a change touched them', QUICK, async (t) => {
  const path = join(scratch(t), 'd');
  await deployTwice(file.directory(path, { owner }));
  const local = openLocal();
  const report = await deploy(
    toyDefinition(
      file.hasContent(join(path, 'f'), '1', { owner }),
      file.absent(path),
      file.hasContent(join(path, 'f'), '1', { owner }),
    ),
    local,
  );
  assert.deepEqual(
    report.results.map(({ outcome }) => outcome),
    ['changed', 'changed', 'changed'],
  );
  assert.equal(readFileSync(join(path, 'f'), 'utf8'), '1');
});

let calls = 0;
const followUp = defineProperty<[fails: string]>({
  id: 'test.followUp',
  kind: 'posix',
  describe: () => 'follow up',
  apply: async (host, fails) => {
    calls++;
    await host.run(['sh', '-c', `test ! -e "$1"`, 'sh', fails]);
  },
});

test('onChange() follows a change, and a debt is paid by the next run', QUICK, async (t) => {
  const folder = scratch(t);
  const state = join(folder, 'state');
  const blocker = join(folder, 'blocker');
  const definition = toyDefinition(onChange(file.hasContent(join(folder, 'f'), '1', { owner }), followUp(blocker)));
  const outcome = async (): Promise<string> => (await deploy(definition, openLocal(), state)).outcome;
  writeFileSync(blocker, '');
  assert.equal(await outcome(), 'failed'); // the file is there, what follows failed
  rmSync(blocker);
  assert.equal(await outcome(), 'changed'); // the file holds, the debt is paid
  assert.equal(calls, 2);
  assert.equal(await outcome(), 'ok');
  assert.equal(calls, 2);
  assert.ok(!existsSync(join(state, 'debts')));
});
