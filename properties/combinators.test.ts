/** What outlives a run: debts of onChange, what is owed at the end, flags and stamps. On this machine, in a scratch folder. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { openLocal } from '../connections/local.ts';
import { toyDefinition } from './_toy.ts';
import { atEnd, onApplyChange, onChange, unapplied } from './combinators.ts';
import { osCase, whenContained, withFlagfile } from './conditions.ts';
import { type DeployReport, deploy } from './deploy.ts';
import * as file from './file.ts';
import { planHost } from './plan.ts';
import { type PropertyApplication, defineProperty } from './property.ts';

const QUICK = { timeout: 20_000 };
const { uid, gid } = userInfo();
const owner = `${uid}:${gid}`;

function scratch(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'buildos-combinators-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** Adds a line to a file, each time; without a way to look. */
const logged: (path: string, line: string) => PropertyApplication = defineProperty<[path: string, line: string]>({
  id: 'test.logged',
  kind: 'posix',
  describe: (_path, line) => `log ${line}`,
  apply: async (host, path, line) => void (await host.run(['sh', '-c', 'echo "$2" >> "$1"', 'log', path, line])),
});

const fails: () => PropertyApplication = defineProperty<[]>({
  id: 'test.fails',
  kind: 'posix',
  describe: () => 'fails',
  apply: async (host) => void (await host.run(['false'])),
});

async function run(state: string, ...properties: PropertyApplication[]): Promise<DeployReport> {
  return await deploy(toyDefinition(...properties), openLocal(), { memory: 'none', state });
}

const log = (path: string): string[] => (existsSync(path) ? readFileSync(path, 'utf8').trim().split('\n') : []);

test('onChange follows a change forth and back; onApplyChange only forth', QUICK, async (t) => {
  const folder = scratch(t);
  const follow = (combinator: typeof onChange, name: string): PropertyApplication =>
    combinator(file.hasContent(join(folder, name), '1', { owner }), logged(join(folder, 'log'), name));
  const both = [follow(onChange, 'a'), follow(onApplyChange, 'b')];
  await run(folder, ...both);
  assert.deepEqual(log(join(folder, 'log')), ['a', 'b']);
  await run(folder, ...both);
  assert.deepEqual(log(join(folder, 'log')), ['a', 'b']);
  await run(folder, ...both.map((one) => unapplied(one)));
  assert.deepEqual(log(join(folder, 'log')), ['a', 'b', 'a']);
  assert.ok(!existsSync(join(folder, 'debts')));
});

/** Deploys in a process of its own, whose follow-up kills it. */
const WORKER = `
import { openLocal } from ${JSON.stringify(join(import.meta.dirname, '../connections/local.ts'))};
import { onChange } from ${JSON.stringify(join(import.meta.dirname, 'combinators.ts'))};
import { deploy } from ${JSON.stringify(join(import.meta.dirname, 'deploy.ts'))};
import * as file from ${JSON.stringify(join(import.meta.dirname, 'file.ts'))};
import { defineProperty } from ${JSON.stringify(join(import.meta.dirname, 'property.ts'))};
const [, folder, owner, kill] = process.argv;
const followUp = defineProperty({ id: 'test.killed', kind: 'posix', describe: () => 'follow up', apply: async (host) => {
  if (kill === 'yes') process.kill(process.pid, 'SIGKILL');
  await host.run(['sh', '-c', 'echo followed >> "$1"', 'log', folder + '/log']);
} });
const properties = [onChange(file.hasContent(folder + '/f', '1', { owner }), followUp())];
const definition = { name: 'x', summary: '', base: { distribution: 'debian', suite: 'trixie' }, properties };
const report = await deploy(definition, openLocal(), { state: folder + '/state' });
console.log(report.outcome);
`;

test('a run killed between a change and what follows leaves it to the next, which does it once', QUICK, (t) => {
  const folder = scratch(t);
  const worker = (kill: string): string => {
    const words = ['--input-type=module-typescript', '--eval', WORKER, folder, owner, kill];
    const { stdout, signal } = spawnSync(process.execPath, words, {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    return signal ?? stdout.trim();
  };
  assert.equal(worker('yes'), 'SIGKILL');
  assert.equal(readFileSync(join(folder, 'f'), 'utf8'), '1'); // changed, and nothing followed
  assert.deepEqual(log(join(folder, 'log')), []);
  assert.equal(readdirSync(join(folder, 'state/debts')).length, 1);
  assert.equal(worker('no'), 'changed');
  assert.deepEqual(log(join(folder, 'log')), ['followed']);
  assert.ok(!existsSync(join(folder, 'state/debts')));
  assert.equal(worker('no'), 'ok');
  assert.deepEqual(log(join(folder, 'log')), ['followed']);
});

test('atEnd() is done last and once, and is owed until it is done', QUICK, async (t) => {
  const folder = scratch(t);
  const path = join(folder, 'log');
  const blocker = join(folder, 'blocker');
  const end = atEnd('reboot', onlyWithout(blocker, path));
  const changing = ['a', 'b'].map((name) => onChange(file.hasContent(join(folder, name), '1', { owner }), end));
  writeFileSync(blocker, '');
  const first = await run(folder, ...changing, logged(path, 'last'));
  assert.deepEqual([first.outcome, first.atEnd.map(({ outcome }) => outcome)], ['failed', ['failed']]);
  assert.deepEqual(log(path), ['last']);
  rmSync(blocker);
  const plan = await planHost(toyDefinition(...changing), openLocal(), { memory: 'none', state: folder });
  assert.deepEqual([plan.outcome, plan.atEnd.length], ['pending', 1]);
  const second = await run(folder, ...changing); // nothing changes any more, but it is owed
  assert.deepEqual(
    second.atEnd.map(({ outcome }) => outcome),
    ['changed'],
  );
  assert.deepEqual(log(path), ['last', 'rebooted']);
  assert.equal((await run(folder, ...changing)).outcome, 'ok');
  assert.deepEqual(log(path), ['last', 'rebooted']);
});

const onlyWithout: (blocker: string, path: string) => PropertyApplication = defineProperty<[string, string]>({
  id: 'test.onlyWithout',
  kind: 'posix',
  describe: () => 'reboot',
  apply: async (host, blocker, path) => {
    await host.run(['sh', '-c', 'test ! -e "$1" && echo rebooted >> "$2"', 'end', blocker, path]);
  },
});

test('withFlagfile() applies once, also when the result is gone; not when it failed', QUICK, async (t) => {
  const folder = scratch(t);
  const flag = join(folder, 'flags/done');
  const log = join(folder, 'log');
  assert.equal((await run(folder, withFlagfile(flag, fails()))).outcome, 'failed');
  assert.ok(!existsSync(flag));
  const once = withFlagfile(flag, logged(log, 'x'));
  assert.equal((await run(folder, once)).outcome, 'changed');
  rmSync(log);
  assert.equal((await run(folder, once)).outcome, 'ok');
  assert.ok(!existsSync(log));
});

test('osCase() takes the most exact case, and says what fits none', QUICK, async (t) => {
  const folder = scratch(t);
  const release = readFileSync('/etc/os-release', 'utf8');
  const id = /^ID="?([^"\n]*)/m.exec(release)?.[1] ?? '';
  const codename = /^VERSION_CODENAME="?([^"\n]*)/m.exec(release)?.[1] ?? '';
  const path = join(folder, 'log');
  await run(folder, osCase({ otherwise: fails(), [id]: fails(), [`${id}:${codename}`]: logged(path, 'exact') }));
  await run(folder, osCase({ otherwise: logged(path, 'otherwise'), plan9: fails() }));
  assert.deepEqual(log(path), ['exact', 'otherwise']);
  const { results } = await run(folder, osCase({ plan9: fails() }));
  assert.match(results[0]?.error?.message ?? '', /it is .*, and there are plan9/);
});

test('whenContained() does the one or the other, never both', QUICK, async (t) => {
  const folder = scratch(t);
  const path = join(folder, 'log');
  await run(folder, whenContained(logged(path, 'inside'), logged(path, 'outside')));
  assert.equal(log(path).length, 1);
});
