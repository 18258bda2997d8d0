import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import * as fc from 'fast-check';
import { type CommandFailure, CommandError, FileError, lines, text } from './connection.ts';
import { openLocal } from './local.ts';

const local = openLocal();
const QUICK = { timeout: 20_000 };

function scratch(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'buildos-local-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

const failsWith =
  (failure: CommandFailure, message?: RegExp) =>
  (error: unknown): boolean =>
    error instanceof CommandError && error.failure === failure && (message ?? /./).test(error.message);

const isGone = (pid: number): boolean => {
  try {
    process.kill(pid, 0);
    return readFileSync(`/proc/${pid}/stat`, 'utf8').includes(') Z ');
  } catch {
    return true;
  }
};

/** Waits until a process is gone; its killer may be quicker than the kernel. */
async function waitGone(pid: number): Promise<void> {
  for (let tries = 0; tries < 100 && !isGone(pid); tries++) await sleep(20);
  assert.ok(isGone(pid), `process ${pid} is still there`);
}

test('run() passes words unchanged, whatever is in them', QUICK, async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(
        fc.string({ unit: 'grapheme' }).filter((word) => !word.includes('\0')),
        { maxLength: 5 },
      ),
      async (words) => {
        const result = await local.run(['sh', '-c', 'for word; do printf "%s\\0" "$word"; done', 'sh', ...words]);
        assert.deepEqual(text(result).split('\0').slice(0, -1), words);
      },
    ),
    { numRuns: 25 },
  );
});

test('run() gives environment, working directory, input, and both streams apart', QUICK, async (t) => {
  const folder = scratch(t);
  const result = await local.run(['sh', '-c', 'pwd; echo "$A_B"; cat; echo err >&2'], {
    cwd: folder,
    env: { A_B: 'x y' },
    input: 'in',
  });
  assert.deepEqual(lines(result), [folder, 'x y', 'in']);
  assert.equal(Buffer.from(result.stderr).toString(), 'err\n');
});

test('run() carries 1 MiB of binary through stdin and stdout', QUICK, async () => {
  const bytes = randomBytes(1024 * 1024);
  assert.deepEqual(Buffer.from((await local.run(['cat'], { input: bytes })).stdout), bytes);
});

test('run() without input gives an empty stdin', QUICK, async () => {
  assert.equal((await local.run(['cat'])).stdout.length, 0);
});

test('a program that does not read its input is no failure', QUICK, async () => {
  await local.run(['true'], { input: new Uint8Array(4_000_000) });
});

test('run() throws for another status than asked for, and not for one asked for', QUICK, async () => {
  await assert.rejects(local.run(['sh', '-c', 'exit 3']), failsWith('status', /exit status 3/));
  assert.equal((await local.run(['sh', '-c', 'exit 3'], { okStatus: [0, 3] })).status, 3);
  assert.equal((await local.run(['sh', '-c', 'exit 77'], { okStatus: 'any' })).status, 77);
});

test('a death by signal is a failure with every okStatus', QUICK, async () => {
  const dies = local.run(['sh', '-c', 'kill -9 $$'], { okStatus: 'any' });
  await assert.rejects(
    dies,
    (error) => failsWith('signal', /killed by SIGKILL/)(error) && error instanceof CommandError && error.status === 137,
  );
});

test('a missing program and a missing working directory are told', QUICK, async () => {
  await assert.rejects(
    local.run(['/nonexistent/program']),
    (error) => error instanceof CommandError && /installed/.test(error.hint ?? ''),
  );
  await assert.rejects(local.run(['true'], { cwd: '/nonexistent' }), failsWith('start', /working directory/));
});

test('a timeout ends the whole process group', QUICK, async (t) => {
  const file = join(scratch(t), 'pid');
  const started = performance.now();
  const run = local.run(['sh', '-c', `sleep 60 & echo $! > ${file}; wait`], { timeoutMs: 200 });
  await assert.rejects(run, failsWith('timeout', /200 ms/));
  assert.ok(performance.now() - started < 5000);
  await waitGone(Number(readFileSync(file, 'utf8')));
});

test('a group that ignores SIGTERM gets SIGKILL', QUICK, async (t) => {
  const file = join(scratch(t), 'pid');
  const run = local.run(['sh', '-c', `trap '' TERM; echo $$ > ${file}; while :; do sleep 0.05; done`], {
    timeoutMs: 200,
  });
  await assert.rejects(run, failsWith('timeout'));
  await waitGone(Number(readFileSync(file, 'utf8')));
});

test('an abort ends the run, with the reason as the cause', QUICK, async () => {
  const reason = new Error('enough');
  const control = new AbortController();
  const run = local.run(['sleep', '60'], { signal: control.signal });
  setTimeout(() => control.abort(reason), 50);
  await assert.rejects(run, (error) => failsWith('aborted')(error) && error instanceof Error && error.cause === reason);
  await assert.rejects(local.run(['sleep', '60'], { signal: control.signal }), failsWith('aborted'));
});

test('more output than allowed ends the run', QUICK, async () => {
  await assert.rejects(local.run(['cat', '/dev/zero'], { maxOutputBytes: 100_000 }), failsWith('output'));
});

test('a daemon that holds the pipes does not hold the run', QUICK, async (t) => {
  const file = join(scratch(t), 'pid');
  const started = performance.now();
  const result = await local.run(['sh', '-c', `setsid sleep 30 & echo $! > ${file}; echo done`]);
  assert.equal(text(result), 'done\n');
  assert.ok(performance.now() - started < 5000);
  process.kill(Number(readFileSync(file, 'utf8')), 'SIGKILL');
});

test('onOutput gets the chunks as they come', QUICK, async () => {
  const seen: string[] = [];
  await local.run(['sh', '-c', 'echo a; echo b >&2'], {
    onOutput: (chunk, stream) => seen.push(`${stream} ${Buffer.from(chunk).toString()}`),
  });
  assert.deepEqual(seen.sort(), ['stderr b\n', 'stdout a\n']);
});

test('writeFile() replaces in one step, with exactly its mode and nothing left over', QUICK, async (t) => {
  const folder = scratch(t);
  const path = join(folder, 'f');
  const bytes = randomBytes(100_000);
  await local.writeFile(path, bytes, { mode: 0o640 });
  assert.equal(statSync(path).mode & 0o7777, 0o640);
  assert.deepEqual(Buffer.from(await local.readFile(path)), bytes);
  await local.writeFile(path, 'short', { mode: 0o666 });
  assert.equal(statSync(path).mode & 0o7777, 0o666);
  assert.deepEqual(readdirSync(folder), ['f']);
});

test('writeFile() replaces a link and leaves what it points to', QUICK, async (t) => {
  const folder = scratch(t);
  writeFileSync(join(folder, 'target'), 'kept');
  symlinkSync('target', join(folder, 'link'));
  await local.writeFile(join(folder, 'link'), 'new', { mode: 0o600 });
  assert.equal(readFileSync(join(folder, 'target'), 'utf8'), 'kept');
  assert.equal(readFileSync(join(folder, 'link'), 'utf8'), 'new');
});

test('files that cannot be read or written say why', QUICK, async (t) => {
  const folder = scratch(t);
  mkdirSync(join(folder, 'd'));
  const has = (code: string) => (error: unknown) => error instanceof FileError && error.code === code;
  await assert.rejects(local.readFile(join(folder, 'no')), has('ENOENT'));
  await assert.rejects(local.readFile(join(folder, 'd')), has('EISDIR'));
  await assert.rejects(
    local.writeFile(join(folder, 'no/f'), '', { mode: 0o600 }),
    (error) => has('ENOENT')(error) && error instanceof FileError && /directory/.test(error.hint ?? ''),
  );
  await assert.rejects(local.writeFile(join(folder, 'd'), '', { mode: 0o600 }), has('EISDIR'));
  assert.deepEqual(readdirSync(folder), ['d']);
  assert.ok(existsSync(join(folder, 'd')));
});

test('input can come in pieces, and stops when the program does', QUICK, async () => {
  const local = openLocal();
  let given = 0;
  const endless = (async function* () {
    for (;;) {
      given += 1;
      yield Buffer.alloc(65_536, 'x');
    }
  })();
  assert.equal(text(await local.run(['head', '-c', '5'], { input: endless, okStatus: 'any' })), 'xxxxx');
  assert.ok(given < 100, `${given} pieces were asked for`);
  const failing = (async function* () {
    yield Buffer.from('x');
    throw new Error('no more');
  })();
  await assert.rejects(
    local.run(['cat'], { input: failing }),
    (error) => error instanceof CommandError && error.failure === 'aborted' && error.cause instanceof Error,
  );
});

test('input as it comes: the program sees a piece before the next is there', QUICK, async () => {
  const seen = Promise.withResolvers<void>();
  const dialogue = (async function* () {
    yield Buffer.from('first\n');
    await seen.promise;
    yield Buffer.from('second\n');
  })();
  const result = await openLocal().run(['cat'], { input: dialogue, onOutput: () => seen.resolve() });
  assert.equal(text(result), 'first\nsecond\n');
});

test('keepStdout "no": stdout goes to onOutput only, and has no limit', QUICK, async () => {
  let size = 0;
  const result = await openLocal().run(['head', '-c', '100000', '/dev/zero'], {
    keepStdout: 'no',
    maxOutputBytes: 10,
    onOutput: (chunk) => (size += chunk.length),
  });
  assert.deepEqual([result.stdout.length, size], [0, 100_000]);
});

test('onOutput holds the program back until its promise settles', QUICK, async () => {
  let open = 0;
  await openLocal().run(['head', '-c', '1000000', '/dev/zero'], {
    onOutput: async () => {
      open += 1;
      assert.ok(open <= 2, 'at most the chunk that was read already');
      await new Promise((resolve) => setTimeout(resolve, 5));
      open -= 1;
    },
  });
});
