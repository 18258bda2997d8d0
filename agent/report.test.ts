import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Report } from './report.ts';

async function temporary(): Promise<{ folder: string } & AsyncDisposable> {
  const folder = await mkdtemp(join(tmpdir(), 'buildos-report-'));
  return { folder, [Symbol.asyncDispose]: async () => await rm(folder, { recursive: true }) };
}

test('a state file that cannot be written is said once, until it can be', async () => {
  await using scratch = await temporary();
  const { folder } = scratch;
  const stateFile = join(folder, 'later/agent.json');
  const lines: string[] = [];
  const statuses: string[] = [];
  const report = new Report({
    stateFile,
    onLine: (line) => lines.push(line),
    onStatus: (status) => statuses.push(status),
    look: () => ({ state: 'polling', tasks: [], undelivered: 0 }),
  });
  report.renew();
  report.renew();
  assert.equal(lines.length, 1);
  assert.match(lines[0] ?? '', /^Cannot write the state file: ENOENT/);
  assert.match(statuses.at(-1) ?? '', /^polling; Cannot write the state file/);

  await mkdir(join(folder, 'later'));
  report.renew();
  assert.equal(statuses.at(-1), 'polling');
  const state: unknown = JSON.parse(await readFile(stateFile, 'utf8'));
  assert.deepEqual(state, { state: 'polling', tasks: [], undelivered: 0, events: [] });
  assert.equal(lines.length, 1);
});

test('what went right again takes only its own message away', async () => {
  await using scratch = await temporary();
  const stateFile = join(scratch.folder, 'agent.json');
  const statuses: string[] = [];
  const report = new Report({
    stateFile,
    onLine: () => {},
    onStatus: (status) => statuses.push(status),
    look: () => ({ state: 'busy', tasks: [], undelivered: 2 }),
  });
  report.problem('helper', 'no helper');
  report.problem('results', 'refused', { quiet: true });
  report.fine('results');
  assert.equal(statuses.at(-1), 'busy; 2 results undelivered; no helper');
  assert.match(await readFile(stateFile, 'utf8'), /"lastError": "no helper"/);
  report.fine('helper');
  assert.equal(statuses.at(-1), 'busy; 2 results undelivered');
});
