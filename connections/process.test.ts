import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { CommandError } from './connection.ts';
import { LineLog } from './line-log.ts';
import { start } from './process.ts';

const QUICK = { timeout: 20_000 };

test('lines of both streams, input, and the end of a child', QUICK, async () => {
  await using child = await start(['sh', '-c', 'echo ready; read word; echo "got $word"; echo bad >&2; exit 7'], {
    stdin: true,
  });
  assert.ok(await child.stdout.waitFor(/^ready$/, { timeoutMs: 5000 }));
  await child.write('hello\n');
  const seen: string[] = [];
  for await (const line of child.stdout) seen.push(line);
  assert.deepEqual(seen, ['ready', 'got hello']);
  assert.deepEqual(await child.exited, { status: 7, signal: undefined });
  assert.deepEqual(child.stderr.tail(5), ['bad']);
});

test('stop() ends a whole group, also one that ignores SIGTERM', QUICK, async () => {
  const child = await start([
    'sh',
    '-c',
    "trap '' TERM; (trap '' TERM; echo inner; sleep 60) & echo up; sleep 60; sleep 60",
  ]);
  assert.ok(await child.stdout.waitFor(/inner/, { timeoutMs: 5000 }));
  await child.stop(100);
  assert.equal((await child.exited).signal, 'SIGKILL');
});

test('a child that ends at SIGTERM is not killed', QUICK, async () => {
  const child = await start(['sh', '-c', "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.02; done"]);
  await child.stdout.waitFor(/up/, { timeoutMs: 5000 });
  await child.stop(5000);
  assert.deepEqual(await child.exited, { status: 0, signal: undefined });
  assert.deepEqual(child.stdout.tail(1), ['bye']);
});

test('output goes to a file, both streams in order', QUICK, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'buildos-process-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const file = join(folder, 'log');
  const child = await start(['sh', '-c', 'echo a; echo b >&2; echo c'], { stdout: { file }, stderr: 'stdout' });
  await child.exited;
  assert.equal(readFileSync(file, 'utf8'), 'a\nb\nc\n');
});

test('an abort stops the child; a missing program is told at the start', QUICK, async () => {
  const control = new AbortController();
  const child = await start(['sleep', '60'], { signal: control.signal });
  control.abort();
  assert.equal((await child.exited).signal, 'SIGTERM');
  await assert.rejects(
    start(['/nonexistent'], { outliveParent: true }),
    (error) => error instanceof CommandError && error.failure === 'start',
  );
});

test('waitFor() gives undefined when time is over and when the stream ends', QUICK, async () => {
  const log = new LineLog();
  assert.equal(await log.waitFor(/x/, { timeoutMs: 20 }), undefined);
  const waiting = log.waitFor(/x/, { timeoutMs: 5000 });
  log.end();
  assert.equal(await waiting, undefined);
});

test(
  'a LineLog joins pieces, cuts CR, decodes UTF-8 across chunks, and lets late readers see what is kept',
  QUICK,
  async () => {
    const log = new LineLog();
    const bytes = Buffer.from('one\r\ntwö\nthree');
    for (const byte of bytes) log.push(Uint8Array.of(byte));
    log.end();
    const seen: string[] = [];
    for await (const line of log) seen.push(line);
    assert.deepEqual(seen, ['one', 'twö', 'three']);
    assert.equal((await log.waitFor(/t(w)/g, { timeoutMs: 10 }))?.[1], 'w');
  },
);

test('a LineLog keeps the last lines only, and a reader goes on with those', QUICK, async () => {
  const log = new LineLog();
  const reader = log[Symbol.asyncIterator]();
  log.push(Buffer.from('first\n'));
  assert.equal((await reader.next()).value, 'first');
  for (let index = 0; index < 30_000; index++) log.push(Buffer.from(`${index}\n`));
  log.end();
  let count = 0;
  let last = '';
  for await (const line of { [Symbol.asyncIterator]: () => reader }) {
    count++;
    last = line;
  }
  assert.ok(count >= 10_000 && count <= 20_000, String(count));
  assert.equal(last, '29999');
});
