import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { LogStream } from './log-stream.ts';

/** A host's end: keeps the file, and fails as told. */
class Host {
  file: Buffer = Buffer.alloc(0);
  /** What happens to the next appends: kept and acknowledged when empty. */
  troubles: ('lost' | 'ack lost' | 'refused')[] = [];

  readonly append = (content: Uint8Array, offset: number): Promise<void> => {
    const trouble = this.troubles.shift();
    if (trouble === 'lost') return Promise.reject(new Error('no answer'));
    if (trouble === 'refused') return Promise.reject(new RangeError('quota'));
    assert.ok(offset <= this.file.length);
    this.file = Buffer.concat([this.file.subarray(0, offset), content]);
    return trouble === 'ack lost' ? Promise.reject(new Error('no answer')) : Promise.resolve();
  };
}

const open = (host: Host, options: { pendingBytes?: number; chunkBytes?: number } = {}): LogStream =>
  new LogStream({ append: host.append, isRefusal: (error) => error instanceof RangeError, intervalMs: 5, ...options });

test('LogStream sends what it is given while it runs, in order', { timeout: 5000 }, async () => {
  const host = new Host();
  const log = open(host);
  log.write('one\n');
  await sleep(30);
  assert.equal(host.file.toString(), 'one\n');
  log.write('two\n');
  assert.equal(await log.close(1000), true);
  assert.equal(host.file.toString(), 'one\ntwo\n');
  assert.equal(log.offset, 8);
});

test('LogStream repeats what was not acknowledged, without doubling it', { timeout: 5000 }, async () => {
  const host = new Host();
  host.troubles = ['lost', 'ack lost', 'lost', 'ack lost'];
  const log = open(host);
  for (let line = 0; line < 20; line += 1) {
    log.write(`line ${line}\n`);
    await sleep(2);
  }
  assert.equal(await log.close(1000), true);
  assert.equal(host.file.toString(), Array.from({ length: 20 }, (_, line) => `line ${line}\n`).join(''));
});

test('LogStream cuts long output into chunks', { timeout: 5000 }, async () => {
  const host = new Host();
  const log = open(host, { chunkBytes: 10 });
  log.write('x'.repeat(95));
  assert.equal(await log.close(1000), true);
  assert.equal(host.file.length, 95);
});

test('LogStream ends when the host refuses, and holds nothing more in memory', { timeout: 5000 }, async () => {
  const host = new Host();
  host.troubles = ['refused'];
  const log = open(host);
  log.write('one\n');
  await sleep(30);
  log.write('two\n');
  assert.equal(await log.close(1000), false);
  assert.ok(log.refusal instanceof RangeError);
  assert.equal(host.file.length, 0);
});

test('LogStream drops what does not fit in memory, and says how much', { timeout: 5000 }, async () => {
  const host = new Host();
  host.troubles = Array.from({ length: 5 }, () => 'lost' as const);
  const log = open(host, { pendingBytes: 40 });
  log.write('a'.repeat(30));
  log.write('b'.repeat(30));
  await sleep(80);
  log.write('c\n');
  assert.equal(await log.close(1000), true);
  assert.match(host.file.toString(), /^a{30}\n\[\.\.\. 30 bytes of log dropped: .*\]\nc\n$/);
});

test('LogStream gives up after its limit', { timeout: 5000 }, async () => {
  const host = new Host();
  host.troubles = Array.from({ length: 1000 }, () => 'lost' as const);
  const log = open(host);
  log.write('a');
  assert.equal(await log.close(50), false);
});
