/**
 * A build inside its machine, from the task to the result. Every way it can go wrong becomes a status and a log.
 */
import { mkdir, readdir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { worstStatus } from '../../manifests/result.ts';
import type { OperationResult, Result, ResultStatus } from '../../manifests/result.ts';
import type { Task } from '../../manifests/task.ts';
import { HeadTail, OPERATION_LOG_BYTES } from './log-text.ts';
import {
  buildEnvironment,
  describeEnd,
  findWarnings,
  OPERATIONS,
  operationStatus,
  planOperations,
  sourceArchive,
} from './operations.ts';
import type { Operation, Places } from './operations.ts';
import { fetchSource } from './source.ts';
import { spawn } from './spawn.ts';

/** What a build is given. */
export interface BuildOptions {
  readonly task: Task;
  /** The fetched toolchain archive; unpacked to `prefix` first. */
  readonly toolchainTar: string;
  /** Where the toolchain belongs: the path that it was built for. */
  readonly prefix: string;
  /** `machine.environment` of toolchain.json. */
  readonly toolchainEnvironment: Readonly<Record<string, string>>;
  /** An empty folder to work in. */
  readonly work: string;
  readonly operationLimitMs: number;
  /** What the log of all operations gets, as it comes. */
  readonly onLog: (chunk: Uint8Array | string) => void;
  /** Gives the archive of the installed files to the host; called in the operation `upload`. */
  readonly upload: (file: string) => Promise<void>;
}

/** A source archive may be this large. */
const SOURCE_MAX_BYTES = 1024 * 1024 * 1024;
const SOURCE_TIMEOUT_MS = 5 * 60_000;
const SOURCE_TRIES = 4;
const UNPACK_LIMIT_MS = 10 * 60_000;

/** Builds a package; never throws. */
export async function build(options: BuildOptions): Promise<Result> {
  const { task } = options;
  const done: OperationResult[] = [];
  const run = async (name: string, work: (log: OperationLog) => Promise<ResultStatus>): Promise<boolean> => {
    const log = new OperationLog(options.onLog);
    options.onLog(`\n=== ${name} ${task.name} ${task.version}\n`);
    let status: ResultStatus;
    try {
      status = await work(log);
    } catch (error) {
      log.line(describeError(error));
      status = 'error';
    }
    const goesOn = status === 'success' || status === 'warning';
    const rest = OPERATIONS.slice(OPERATIONS.findIndex((other) => other === name) + 1);
    if (!goesOn && rest.length > 0) log.line(`not run because of this: ${rest.join(', ')}`);
    done.push({ operation: name, status, log: log.text() });
    options.onLog(`=== ${name}: ${status}\n`);
    return goesOn;
  };

  let operations: readonly Operation[] = [];
  let environment: Readonly<Record<string, string>> = {};
  const places: Places = {
    source: join(options.work, 'source'),
    staging: join(options.work, 'staging'),
    upload: join(options.work, 'upload.tar'),
  };
  const prepared = await run('configure', async (log) => {
    const archive = sourceArchive(task);
    const home = join(options.work, 'home');
    environment = buildEnvironment(task, {
      prefix: options.prefix,
      home,
      toolchain: options.toolchainEnvironment,
    });
    operations = planOperations(task, environment, places);
    await mkdir(home, { recursive: true });
    await mkdir(places.staging, { recursive: true });
    await unpackToolchain(options, environment, log);
    await unpackSource(options, archive, environment, places, log);
    const [configure] = operations;
    return configure === undefined ? 'success' : await perform(configure, { environment, options, log });
  });
  if (prepared) {
    for (const operation of operations.slice(1)) {
      const goesOn = await run(operation.name, async (log) => {
        const status = await perform(operation, { environment, options, log });
        if (operation.name !== 'upload' || (status !== 'success' && status !== 'warning')) return status;
        const { size } = await stat(places.upload);
        await options.upload(places.upload);
        log.line(`uploaded upload.tar, ${size} bytes`);
        return status;
      });
      if (!goesOn) break;
    }
  }
  return {
    name: task.name,
    version: task.version,
    status: worstStatus(done.map((operation) => operation.status)),
    operations: done,
  };
}

/** The log of one operation: to the live log as it comes, and kept within bounds for the result. */
class OperationLog {
  readonly #kept = new HeadTail(OPERATION_LOG_BYTES);
  readonly #live: (chunk: Uint8Array | string) => void;
  #last = 0x0a;

  constructor(live: (chunk: Uint8Array | string) => void) {
    this.#live = live;
  }

  readonly write = (chunk: Uint8Array): void => {
    this.#kept.add(chunk);
    this.#last = chunk.at(-1) ?? this.#last;
    this.#live(chunk);
  };

  /** A line of the worker's own. */
  line(text: string): void {
    this.write(new TextEncoder().encode(`${this.#last === 0x0a ? '' : '\n'}${text}\n`));
  }

  text(): string {
    return this.#kept.text();
  }
}

interface Performance {
  readonly environment: Readonly<Record<string, string>>;
  readonly options: BuildOptions;
  readonly log: OperationLog;
}

/** Runs the program of an operation and judges how it ended and what it printed. */
async function perform(operation: Operation, { environment, options, log }: Performance): Promise<ResultStatus> {
  log.line(`$ ${operation.argv.join(' ')}`);
  const result = await spawn(operation.argv, {
    cwd: operation.cwd,
    env: environment,
    timeLimitMs: options.operationLimitMs,
    onOutput: log.write,
  });
  const { lines, problems } = findWarnings(log.text(), options.task.warningRegex ?? []);
  for (const problem of problems) log.line(problem);
  if (lines.length > 0) log.line(`${lines.length} lines match warning-regex; the first is: ${lines[0] ?? ''}`);
  const end = describeEnd(operation, result, options.operationLimitMs);
  if (end !== 'done') log.line(end);
  return operationStatus(result, lines);
}

async function unpackToolchain(
  options: BuildOptions,
  env: Readonly<Record<string, string>>,
  log: OperationLog,
): Promise<void> {
  await mkdir(options.prefix, { recursive: true });
  await unpack(['--directory', options.prefix, '--file', options.toolchainTar], 'the toolchain', { options, env, log });
  await rm(options.toolchainTar, { force: true });
}

/** Fetches and unpacks the source: its one top folder becomes `places.source`. */
async function unpackSource(
  options: BuildOptions,
  archive: { readonly url: string; readonly sha256: string },
  env: Readonly<Record<string, string>>,
  places: Places,
  log: OperationLog,
): Promise<void> {
  const file = join(options.work, 'source-archive');
  log.line(`fetch ${archive.url}`);
  const size = await fetchSource(archive, file, {
    maxBytes: SOURCE_MAX_BYTES,
    timeoutMs: SOURCE_TIMEOUT_MS,
    tries: SOURCE_TRIES,
    onNote: (note) => log.line(note),
  });
  log.line(`${size} bytes, SHA-256 as named`);
  const unpacked = join(options.work, 'unpacked');
  await mkdir(unpacked);
  await unpack(['--directory', unpacked, '--file', file], 'the source archive', { options, env, log });
  await rm(file);
  const [top, ...others] = await readdir(unpacked, { withFileTypes: true });
  const folder = top !== undefined && others.length === 0 && top.isDirectory() ? join(unpacked, top.name) : unpacked;
  await rename(folder, places.source);
}

/** Unpacks with the machine's GNU tar. Whether it has the compressor too is seen by the message. */
async function unpack(
  words: readonly string[],
  what: string,
  { options, env, log }: { options: BuildOptions; env: Readonly<Record<string, string>>; log: OperationLog },
): Promise<void> {
  const result = await spawn(['tar', '--extract', '--no-same-owner', ...words], {
    cwd: options.work,
    env,
    timeLimitMs: UNPACK_LIMIT_MS,
    onOutput: log.write,
  });
  if (result.kind === 'exited' && result.status === 0) return;
  const reason = result.kind === 'exited' ? `tar ended with status ${result.status}` : `tar: ${result.kind}`;
  throw new UnpackError(`Cannot unpack ${what}: ${reason}`);
}

/** An archive could not be unpacked. */
class UnpackError extends Error {
  override readonly name = 'UnpackError';
  readonly hint = 'the lines above are from tar; the machine needs tar and the compressor of the archive';
}

/** The message of an error and its hint, for a log. */
function describeError(error: unknown): string {
  if (!(error instanceof Error)) return `worker: ${String(error)}`;
  const hint: unknown = 'hint' in error ? error.hint : undefined;
  return typeof hint === 'string' ? `${error.message}\nhint: ${hint}` : error.message;
}
