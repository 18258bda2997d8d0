/**
 * What a task asks for, as operations: pure. An ordinary package is a source archive with `./configure` and a Makefile:
 * configure, build, check, install into a staging folder, upload that folder.
 */
import type { ResultStatus } from '../../manifests/result.ts';
import type { Task } from '../../manifests/task.ts';
import type { SpawnResult } from './spawn.ts';
import { parseAssignments, parseWords } from './words.ts';

/** The operations of an ordinary package, in order. */
export const OPERATIONS = ['configure', 'build', 'check', 'install', 'upload'] as const;
export type OperationName = (typeof OPERATIONS)[number];

/** One operation: a program to run. */
export interface Operation {
  readonly name: OperationName;
  readonly argv: readonly string[];
  readonly cwd: string;
}

/** Where things are inside the machine. */
export interface Places {
  /** The unpacked source: has `configure`. */
  readonly source: string;
  /** Where `install` puts its files (DESTDIR). */
  readonly staging: string;
  /** The archive of staging that is uploaded. */
  readonly upload: string;
}

/** A source archive and what it must be. */
export interface SourceArchive {
  readonly url: string;
  /** Lower-case hex. */
  readonly sha256: string;
}

/** The task cannot be built by this worker; the message goes into the log of `configure`. */
export class UnsupportedTaskError extends Error {
  override readonly name = 'UnsupportedTaskError';
  readonly hint: string;

  constructor(message: string, hint: string) {
    super(message);
    this.hint = hint;
  }
}

/** A PATH that every Debian-like machine has; nothing of the host's. */
const MACHINE_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/**
 * The environment of all operations.
 *
 * @param toolchain - `machine.environment` of toolchain.json; `{prefix}` in its values is where the toolchain is
 * @throws {WordsError} when the task's `environment` is no list of NAME=value
 */
export function buildEnvironment(
  task: Task,
  options: { readonly prefix: string; readonly home: string; readonly toolchain: Readonly<Record<string, string>> },
): Readonly<Record<string, string>> {
  const toolchain = Object.entries(options.toolchain).map(
    ([name, value]) => [name, value.replaceAll('{prefix}', options.prefix)] as const,
  );
  return {
    PATH: MACHINE_PATH,
    HOME: options.home,
    LC_ALL: 'C.UTF-8',
    TZ: 'UTC',
    ...Object.fromEntries(toolchain),
    ...(task.environment === undefined ? {} : parseAssignments(task.environment)),
  };
}

/**
 * Where a task's source is.
 *
 * @throws {UnsupportedTaskError} when it is no archive over HTTP with a SHA-256
 */
export function sourceArchive(task: Task): SourceArchive {
  if (task.repositoryType !== 'archive') {
    throw new UnsupportedTaskError(
      `Cannot build ${task.name} ${task.version}: repository-type "${task.repositoryType ?? 'none given'}" is not supported by this worker`,
      'submit the task with "repository-type: archive"',
    );
  }
  const url = URL.parse(task.repositoryUrl);
  if (url === null || (url.protocol !== 'http:' && url.protocol !== 'https:')) {
    throw new UnsupportedTaskError(
      `Cannot fetch the source "${task.repositoryUrl}": it is no http or https URL`,
      'give repository-url as http://host/file.tar.gz#sha256=<hex>',
    );
  }
  const sha256 = /^#sha256=([0-9a-f]{64})$/iu.exec(url.hash)?.[1];
  if (sha256 === undefined) {
    throw new UnsupportedTaskError(
      `Cannot trust the source "${task.repositoryUrl}": it names no SHA-256`,
      'append #sha256=<64 hex digits> to repository-url',
    );
  }
  url.hash = '';
  return { url: url.href, sha256: sha256.toLowerCase() };
}

/**
 * The operations of a task, in order.
 *
 * @throws {WordsError} when `target-config` or MAKE has an open quote
 */
export function planOperations(
  task: Task,
  environment: Readonly<Record<string, string>>,
  places: Places,
): readonly Operation[] {
  const make = parseWords(environment['MAKE'] ?? 'make');
  const config = parseWords(task.targetConfig ?? '');
  const at = (name: OperationName, ...argv: readonly string[]): Operation => ({ name, argv, cwd: places.source });
  return [
    at('configure', './configure', '--prefix=/usr/local', ...config),
    at('build', ...make),
    at('check', ...make, 'check'),
    at('install', ...make, 'install', `DESTDIR=${places.staging}`),
    at(
      'upload',
      'tar',
      '--create',
      `--file=${places.upload}`,
      `--directory=${places.staging}`,
      '--sort=name',
      '--owner=0',
      '--group=0',
      '--numeric-owner',
      '.',
    ),
  ];
}

/** What the way a program ended means for its operation. */
export function operationStatus(result: SpawnResult, warnings: readonly string[]): ResultStatus {
  switch (result.kind) {
    case 'exited':
      if (result.status !== 0) return 'error';
      return warnings.length > 0 ? 'warning' : 'success';
    case 'killed':
    case 'not-started':
      return 'error';
    case 'timed-out':
      return 'abort';
    default:
      return result satisfies never;
  }
}

/** The last line of an operation's log: how it ended, in words. */
export function describeEnd(operation: Operation, result: SpawnResult, timeLimitMs: number): string {
  const command = operation.argv.join(' ');
  switch (result.kind) {
    case 'exited':
      return result.status === 0 ? 'done' : `${operation.name} failed: "${command}" ended with status ${result.status}`;
    case 'killed':
      return `${operation.name} failed: "${command}" was ended by ${result.signal}`;
    case 'not-started':
      return `${operation.name} failed: "${command}" could not be started: ${result.reason}`;
    case 'timed-out':
      return `${operation.name} was stopped: "${command}" ran longer than ${timeLimitMs / 1000} s`;
    default:
      return result satisfies never;
  }
}

/**
 * The lines of a log that a task's `warning-regex` values match, at most 100.
 *
 * @returns the lines, and what is wrong with expressions that cannot be used
 */
export function findWarnings(
  log: string,
  expressions: readonly string[],
): { readonly lines: readonly string[]; readonly problems: readonly string[] } {
  const problems: string[] = [];
  const patterns = expressions.flatMap((expression) => {
    try {
      return [new RegExp(expression, 'u')];
    } catch (error) {
      problems.push(`warning-regex "${expression}" is ignored: ${error instanceof Error ? error.message : 'invalid'}`);
      return [];
    }
  });
  const lines: string[] = [];
  if (patterns.length === 0) return { lines, problems };
  for (const line of log.split('\n')) {
    // Long lines are cut: an expression of the task must not keep the worker busy for hours.
    const start = line.slice(0, 4096);
    if (lines.length < 100 && patterns.some((pattern) => pattern.test(start))) lines.push(start);
  }
  return { lines, problems };
}
