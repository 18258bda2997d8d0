/**
 * worker.mjs: the program that runs inside a build machine. It gets the task and the toolchain from the host over the
 * machine's own TFTP port, builds, and gives back the log while it appears, the installed files and the result, in that
 * order: the host ends the machine when it has the result.
 *
 *   worker.mjs --server 169.254.111.222 --port N --prefix /build/toolchains/<tc> [--work DIR] [--operation-limit SECONDS]
 *
 * Exit status: 0 when the result was delivered, whatever it says; 1 when not; 64 for wrong arguments.
 */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { formatResult } from '../../manifests/result.ts';
import type { Result } from '../../manifests/result.ts';
import { parseTask } from '../../manifests/task.ts';
import { parseToolchainJson, TOOLCHAIN_JSON } from '../../manifests/toolchain.ts';
import { get, getToFile, put } from '../../tftp/client.ts';
import { TransferError } from '../../tftp/error.ts';
import { ERROR_CODE } from '../../tftp/packet.ts';
import { build } from './build.ts';
import { LogStream } from './log-stream.ts';

/** Where the host is and where to work. */
interface Arguments {
  readonly server: string;
  readonly port: number;
  readonly prefix: string;
  readonly work: string;
  readonly operationLimitMs: number;
}

/** Fits an Ethernet frame with its IP, UDP and TFTP headers: nothing is fragmented on the way. */
const BLKSIZE = 1468;

/** Tries for what must get through, with growing pauses: about two minutes in all besides the tries themselves. */
const TRIES = 8;

const LOG_CLOSE_MS = 60_000;

async function main(): Promise<number> {
  const args = readArguments(process.argv.slice(2));
  if (typeof args === 'string') {
    process.stderr.write(`worker: ${args}\n`);
    return 64;
  }
  const host = { host: args.server, port: args.port, blksize: BLKSIZE };
  await mkdir(args.work, { recursive: true });

  const task = parseTask(await text(() => get({ ...host, name: 'task.manifest' })));
  const toolchain = parseToolchainJson(await text(() => get({ ...host, name: TOOLCHAIN_JSON })));
  const toolchainTar = join(args.work, 'toolchain.tar');
  await stubbornly('get toolchain.tar', () => getToFile({ ...host, name: 'toolchain.tar', file: toolchainTar }));

  const log = new LogStream({
    append: async (content, offset) => {
      await put({ ...host, name: 'log', content, offset });
    },
    isRefusal,
  });
  const result = await build({
    task,
    toolchainTar,
    prefix: args.prefix,
    toolchainEnvironment: toolchain.machine.environment,
    work: args.work,
    operationLimitMs: args.operationLimitMs,
    onLog: (chunk) => {
      log.write(chunk);
      // To the host's journal only where it stands: the rest is in the log, and the journal is in RAM.
      if (typeof chunk === 'string') process.stdout.write(chunk.replace(/^\n/, ''));
    },
    upload: async (file) => {
      await stubbornly('put upload.tar', () => put({ ...host, name: 'upload.tar', content: { file } }));
    },
  });
  log.write(`=== result: ${result.status}\n`);
  const isWhole = await log.close(LOG_CLOSE_MS);
  const noted = isWhole ? result : withNote(result, describe(log.refusal ?? log.lastError));
  await stubbornly('put result.manifest', () =>
    put({ ...host, name: 'result.manifest', content: new TextEncoder().encode(formatResult(noted)) }),
  );
  return 0;
}

/** Says in the last operation's log that the live log is not whole. */
function withNote(result: Result, reason: string): Result {
  const last = result.operations.at(-1);
  if (last === undefined) return result;
  const noted = { ...last, log: `${last.log}\nthe live log ends early: ${reason}\n` };
  return { ...result, operations: [...result.operations.slice(0, -1), noted] };
}

function readArguments(words: readonly string[]): Arguments | string {
  let values: Readonly<Record<string, string | undefined>>;
  try {
    const option = { type: 'string' } as const;
    const options = { server: option, port: option, prefix: option, work: option, 'operation-limit': option };
    values = parseArgs({ args: [...words], options, allowPositionals: false }).values;
  } catch (error) {
    return describe(error);
  }
  const port = Number(values['port']);
  if (!Number.isInteger(port) || port < 1 || port > 65_535) return 'give --port, 1 to 65535';
  const limit = Number(values['operation-limit'] ?? 3600);
  if (!(limit >= 1 && limit <= 7 * 86_400)) return 'give --operation-limit as seconds, 1 to 604800';
  if (values['prefix']?.startsWith('/') !== true) return 'give --prefix, an absolute path';
  return {
    server: values['server'] ?? '169.254.111.222',
    port,
    prefix: values['prefix'],
    work: values['work'] ?? '/build/work',
    operationLimitMs: limit * 1000,
  };
}

async function text(read: () => Promise<Uint8Array>): Promise<string> {
  return Buffer.from(await stubbornly('get', read)).toString('utf8');
}

/** Tries again what the network may have spoiled; the host's own word is final. */
async function stubbornly<T>(what: string, work: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await work();
    } catch (error) {
      if (attempt >= TRIES || isRefusal(error)) throw error;
      process.stderr.write(`worker: ${what}, try ${attempt} of ${TRIES}: ${describe(error)}\n`);
      await sleep(500 * 2 ** attempt);
    }
  }
}

/** What the host says that will be so the next time too; a transfer that is still open, say, will not. */
const FINAL_CODES: ReadonlySet<number> = new Set([
  ERROR_CODE.notFound,
  ERROR_CODE.accessViolation,
  ERROR_CODE.diskFull,
  ERROR_CODE.alreadyExists,
]);

/** Whether the host answered, and said no for good. */
const isRefusal = (error: unknown): boolean =>
  error instanceof TransferError && error.from === 'peer' && FINAL_CODES.has(error.code);

const describe = (error: unknown): string => (error instanceof Error ? error.message : String(error));

try {
  process.exitCode = await main();
} catch (error) {
  process.stderr.write(`worker: ${describe(error)}\n`);
  process.exitCode = 1;
}
