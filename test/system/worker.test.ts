/** The worker alone, against a real TFTP instance that may stop and start. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { copyFile, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseResult } from '../../manifests/result.ts';
import type { Result } from '../../manifests/result.ts';
import { formatTask } from '../../manifests/task.ts';
import type { Task } from '../../manifests/task.ts';
import { serveMachine } from '../../tftp/instance.ts';
import type { TftpServer } from '../../tftp/serve-options.ts';
import { Bench, MACHINE, SECONDS } from './_agent-bench.ts';
import { killQuietly, processesIn, workerWords } from './_agent-helper.ts';

const timeout = 60 * SECONDS;

/** Starts the worker alone, against an instance that the test may stop and start. */
async function runWorker(
  bench: Bench,
  task: Partial<Task>,
  options: {
    readonly words?: readonly string[];
    readonly during?: (stop: () => Promise<void>, begin: () => Promise<void>) => Promise<void>;
  },
): Promise<{ readonly status: number | null; readonly log: string; readonly result: Result }> {
  const folder = bench.path('alone');
  await mkdir(folder);
  const whole: Task = {
    name: 'tiny',
    version: '1.0',
    repositoryType: 'archive',
    repositoryUrl: bench.sourceUrl,
    machine: MACHINE,
    target: 'x86_64-linux-gnu',
    ...task,
  };
  await writeFile(join(folder, 'task.manifest'), formatTask(whole));
  const toolchain = bench.path('tftp', 'toolchains', 'default');
  await copyFile(join(toolchain, 'toolchain.tar'), join(folder, 'toolchain.tar'));
  await copyFile(join(toolchain, 'v1', 'toolchain.json'), join(folder, 'toolchain.json'));
  let port = 0;
  let server: TftpServer | undefined;
  const begin = async (): Promise<void> => {
    server = await serveMachine({
      folder,
      address: '127.0.0.1',
      port,
      peer: '127.0.0.1',
      writable: {
        'result.manifest': { maxBytes: 15_000_000, rule: 'replace' },
        'upload.tar': { maxBytes: 100_000_000, rule: 'replace' },
        log: { maxBytes: 10_000_000, rule: 'append' },
      },
    });
    ({ port } = server);
  };
  const stop = async (): Promise<void> => server?.close();
  await begin();
  const folders = { prefix: bench.path('alone-prefix'), work: bench.path('alone-work') };
  const child = spawn(process.execPath, [...workerWords(port, folders), ...(options.words ?? [])], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  try {
    const ended = once(child, 'exit');
    await options.during?.(stop, begin);
    await ended;
    return {
      status: child.exitCode,
      log: await readFile(join(folder, 'log'), 'utf8'),
      result: parseResult(await readFile(join(folder, 'result.manifest'), 'utf8')),
    };
  } finally {
    child.kill('SIGKILL');
    (await processesIn(bench.path('alone-work'))).forEach(killQuietly);
    await stop();
  }
}

test('worker: a host that does not answer for some seconds costs nothing of the log', { timeout }, async () => {
  await using bench = await Bench.open();
  const mark = bench.path('mark');
  const { status, log, result } = await runWorker(
    bench,
    { environment: `MESSAGE=x MARK=${mark} SLOW=4` },
    {
      during: async (stop, begin) => {
        await bench.until('the build runs', 20 * SECONDS, () => (existsSync(mark) ? true : undefined));
        await sleep(1200);
        await stop();
        await sleep(4 * SECONDS);
        await begin();
      },
    },
  );
  assert.equal(status, 0);
  assert.equal(result.status, 'success');
  const [start, ...rest] = log.split('=== build tiny 1.0\n');
  assert.match(start ?? '', /configure: success/);
  assert.equal(rest.length, 1);
  assert.match(rest[0] ?? '', /^\$ .*mk\nbuilding\n=== build: success\n[^]*=== result: success\n$/);
});

test('worker: an operation that takes too long is stopped with all its children', { timeout }, async () => {
  await using bench = await Bench.open();
  const mark = bench.path('mark');
  const { result } = await runWorker(
    bench,
    { environment: `MESSAGE=x MARK=${mark} SLOW=100` },
    {
      words: ['--operation-limit', '2'],
      // Now, for afterwards all that is left is killed.
      during: async () => {
        const sleeper = await bench.until('the build runs', 20 * SECONDS, () =>
          existsSync(mark) ? /^\d+(?=\n)/.exec(readFileSync(mark, 'utf8'))?.[0] : undefined,
        );
        await bench.until('what make has started is gone', 20 * SECONDS, () =>
          existsSync(`/proc/${sleeper}`) ? undefined : true,
        );
      },
    },
  );
  assert.equal(result.status, 'abort');
  assert.match(
    result.operations.at(-1)?.log ?? '',
    /ran longer than 2 s\nnot run because of this: check, install, upload/,
  );
});

test('worker: a source that is not what the task names is not unpacked', { timeout }, async () => {
  await using bench = await Bench.open();
  const repositoryUrl = bench.sourceUrl.replace(/[0-9a-f]{64}$/, '0'.repeat(64));
  const { result } = await runWorker(bench, { repositoryUrl }, {});
  assert.equal(result.status, 'error');
  assert.match(result.operations[0]?.log ?? '', /Cannot trust .* its SHA-256 is [0-9a-f]{64}, the task names 0{64}/);
});
