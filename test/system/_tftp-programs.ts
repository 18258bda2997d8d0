/** Foreign programs for tests: found, run, kept running. */
import assert from 'node:assert/strict';
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { accessSync, constants, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { get } from '../../tftp/client.ts';

export function findProgram(name: string): string | undefined {
  return [...(process.env['PATH'] ?? '').split(':'), '/usr/sbin', '/sbin', '/usr/bin']
    .map((dir) => join(dir, name))
    .find((path) => {
      try {
        accessSync(path, constants.X_OK);
        return true;
      } catch {
        return false;
      }
    });
}

/** Runs a program to its end, in a folder; fails with what it printed. */
export async function runIn(
  cwd: string,
  argv: readonly string[],
  input = '',
): Promise<{ readonly status: number; readonly output: string }> {
  const [program = '', ...args] = argv;
  return await new Promise((resolve, reject) => {
    const child = execFile(
      findProgram(program) ?? program,
      args,
      { cwd, timeout: 30_000, encoding: 'utf8' },
      (error, stdout, stderr) => {
        const output = `$ ${argv.join(' ')}\n${stdout}${stderr}`;
        if (error === null) resolve({ status: 0, output });
        else if (typeof error.code === 'number') resolve({ status: error.code, output });
        else reject(new Error(output, { cause: error }));
      },
    );
    child.stdin?.end(input);
  });
}

/** Runs a program that must succeed. */
export async function succeed(cwd: string, argv: readonly string[], input = ''): Promise<string> {
  const { status, output } = await runIn(cwd, argv, input);
  assert.equal(status, 0, output);
  return output;
}

export const hashOf = (file: string): string => createHash('sha256').update(readFileSync(file)).digest('hex');

/** A program that runs until it is stopped, and what it printed. */
export async function startServer(argv: readonly string[], isUp: () => Promise<boolean>): Promise<AsyncDisposable> {
  const [program = '', ...args] = argv;
  let output = '';
  const child: ChildProcess = spawn(findProgram(program) ?? program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  child.stdout?.on('data', (chunk: unknown) => (output += String(chunk)));
  child.stderr?.on('data', (chunk: unknown) => (output += String(chunk)));
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  const stop = async (): Promise<void> => {
    child.kill('SIGTERM');
    await exited;
  };
  for (let tries = 0; !(await isUp()); tries += 1) {
    if (tries >= 50 || child.exitCode !== null) {
      await stop();
      assert.fail(`${argv.join(' ')} does not come up:\n${output}`);
    }
    await sleep(100);
  }
  return { [Symbol.asyncDispose]: stop };
}

/** Whether a TFTP server gives a file; asked with little patience. */
export const gives = async (host: string, port: number, name: string): Promise<boolean> =>
  get({ host, port, name, timeoutMs: 300 }).then(
    () => true,
    () => false,
  );

/** A UDP port that is free now; for programs that cannot take port 0. */
export async function findFreePort(): Promise<number> {
  const socket = createSocket('udp4');
  const { port } = socket.bindSync({ address: '127.0.0.1' });
  await new Promise<void>((resolve) => socket.close(() => resolve()));
  return port;
}
