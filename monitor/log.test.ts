import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { limitRate, openLog } from './log.ts';

test('the log goes to the journal with priorities, and to a file that keeps its tail', (context) => {
  const folder = mkdtempSync(join(tmpdir(), 'log-'));
  context.after(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'monitor.log');
  const printed: string[] = [];
  const log = openLog(file, (line) => printed.push(line), 2000);
  log('error', 'one\ntwo\u001b[31m\u0000');
  assert.deepEqual(printed, ['<3>one', '<3>two?[31m?']);
  assert.match(readFileSync(file, 'utf8'), /^\d{4}-\d\d-\d\dT[\d:.]+Z error {3}one\n {4}two\?\[31m\?\n$/);

  for (let index = 0; index < 200; index += 1) {
    log('info', `line ${index}`);
    assert.ok(readFileSync(file).length <= 2000);
  }
  const lines = readFileSync(file, 'utf8').trimEnd().split('\n');
  assert.match(lines[0] ?? '', /^… \d+ bytes of earlier lines are in the journal$/);
  assert.ok(
    lines.slice(1).every((line) => /info {4}line \d+$/.test(line)),
    'whole lines only',
  );
  assert.match(lines.at(-1) ?? '', /line 199$/);
  assert.deepEqual(readdirSync(folder), ['monitor.log']);
});

test('a log that cannot be written goes to the journal all the same', () => {
  const printed: string[] = [];
  openLog('/nonexistent/folder/monitor.log', (line) => printed.push(line))('warning', 'still here');
  assert.deepEqual(printed, ['<4>still here']);
});

test('limitRate() keeps back what is too much, and says how much it was', () => {
  const printed: string[] = [];
  let now = 0;
  const log = limitRate(
    (_level, message) => printed.push(message),
    2,
    1000,
    () => now,
  );
  for (const message of ['a', 'b', 'c', 'd']) log('info', message);
  now = 1000;
  log('info', 'e');
  assert.deepEqual(printed, ['a', 'b', '… 2 more messages of this kind were kept back', 'e']);
});
