/**
 * What a connection is: the only door to the programs and files of a host.
 *
 * A chain of hops is read left to right, each hop reached through the one before. Whatever is at the far end, there are
 * four operations and no others: run a program, read a file, write a file, ask for prerequisite data. That is what lets
 * hops nest. A native connection has a fifth: call a function of ours that is defined there (native.ts).
 *
 * Left out: long-running children (process.ts), where prerequisite data comes from (properties/).
 */
import { formatChainText } from './chain.ts';

/** Plain data, as JSON holds it. */
export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };

/** Names a piece of prerequisite data: `{ context: "b1", name: "joe.password" }`. */
export interface DataRef {
  /** What it belongs to, such as a host. */
  readonly context: string;
  /** What it is. */
  readonly name: string;
}

/**
 * Where prerequisite data comes from.
 *
 * @returns undefined when there is none of that name
 */
export type DataSource = (ref: DataRef) => Promise<Uint8Array | undefined>;

/** One hop of a chain: its name in the table of hops, and its arguments. */
export type Hop = readonly [name: string, args?: Readonly<Record<string, string | number | boolean>>];

/** A chain in normal form: the first hop is `local`. */
export type Chain = readonly Hop[];

/** How a program is run. */
export interface RunOptions {
  /** Bytes for the program's stdin, all at once or as they come; without it stdin is empty. */
  readonly input?: string | Uint8Array | AsyncIterable<Uint8Array>;
  /** Variables to add to the far end's environment. */
  readonly env?: Readonly<Record<string, string>>;
  /** Absolute working directory at the far end. */
  readonly cwd?: string;
  /** After this time the process group is ended and the run fails; without it there is no limit. */
  readonly timeoutMs?: number;
  /** Aborting ends the process group; the run then fails with the signal's reason as its cause. */
  readonly signal?: AbortSignal;
  /** Statuses that are no failure; default [0]. `any`: every status, but not a death by signal. */
  readonly okStatus?: readonly number[] | 'any';
  /** More output than this on one stream ends the run with an error; default 256 MiB. */
  readonly maxOutputBytes?: number;
  /**
   * The command looks at files of the far end or changes them, and does nothing else. It sees the far end's own where a hop
   * covers some for convenience: a chroot's /etc/resolv.conf is otherwise that of its outside. What it leaves running is ended,
   * and a hop may run it with less around it: a held chroot does.
   */
  readonly ownFiles?: true;
  /** Gets each chunk as it comes, besides what the result collects. A promise holds the program back until it settles. */
  readonly onOutput?: (chunk: Uint8Array, stream: 'stdout' | 'stderr') => unknown;
  /** `no`: stdout goes to onOutput only, without a limit, and the result has none of it. Default `yes`. */
  readonly keepStdout?: 'yes' | 'no';
}

/** What a program did. */
export interface RunResult {
  /** Exit status, 0 to 255. */
  readonly status: number;
  readonly stdout: Uint8Array;
  readonly stderr: Uint8Array;
}

/** A way to a host. Dispose it to let go of what it holds. */
export interface Connection extends AsyncDisposable {
  /** The hops that lead here, in normal form. */
  readonly chain: Chain;
  /** `native`: our JavaScript runs there; `posix`: a shell is there. */
  readonly kind: 'posix' | 'native';
  /**
   * Runs a program; no shell looks at the words.
   *
   * Behind a shell, a program that a signal killed looks like one that ended with status 128 + n.
   *
   * @param argv - the program (looked up in the far end's PATH) and its arguments; no NUL bytes
   * @throws {CommandError} when the status is not in okStatus, on a timeout, an abort, a signal, or a failed start
   */
  run(argv: readonly string[], options?: RunOptions): Promise<RunResult>;
  /**
   * Reads a whole file.
   *
   * @param path - absolute path at the far end
   * @throws {FileError} with a code such as ENOENT
   */
  readFile(path: string): Promise<Uint8Array>;
  /**
   * Replaces a file in one step: a reader sees the old content or the new, and never more permissions than `mode`.
   * A symbolic link at `path` is replaced, not followed.
   *
   * @param path - absolute path at the far end; its directory must exist
   * @throws {FileError}
   */
  writeFile(path: string, content: string | Uint8Array, options: { readonly mode: number }): Promise<void>;
  /** Asks for prerequisite data of the side where the chain begins; without it there is none. */
  readonly data?: DataSource;
  /** There exactly where `kind` is `native`. */
  readonly native?: NativeSide;
}

/** What only our JavaScript at the far end can do. Properties use callNative() of native.ts, which has types. */
export interface NativeSide {
  /**
   * Runs a function defined there.
   *
   * @throws {NativeCallError} with what it threw
   */
  call(name: string, args: readonly Json[]): Promise<Json>;
  /** The Node that runs there, for hops that start another. */
  runtime(): Promise<NodeRuntime>;
  /** The program that such hops start; undefined where the chain was opened without one. */
  readonly agent: AgentSource | undefined;
}

/** A Node as files of a host. */
export interface NodeRuntime {
  /** The words that start it. */
  readonly argv: readonly string[];
  /** The binary, its loader and its libraries: what to call them in a folder of their own, and where they are. */
  readonly files: readonly { readonly name: string; readonly path: string }[];
  /** `x64`, `arm64` */
  readonly arch: string;
}

/** Gives the agent: one ES module, agent-main.ts and all that defines native functions, bundled. */
export type AgentSource = () => Promise<Uint8Array>;

/** Why a command failed. */
export type CommandFailure = 'status' | 'signal' | 'timeout' | 'aborted' | 'output' | 'start';

/** What a CommandError is made of. */
export interface CommandErrorFields {
  readonly argv: readonly string[];
  /** Where it ran; left out of the message when it is only `local`. */
  readonly chain?: Chain;
  readonly failure: CommandFailure;
  /** Exit status; 128 + n after signal n; 127 when it could not be started. */
  readonly status: number;
  readonly signal?: string;
  readonly stdout: Uint8Array;
  readonly stderr: Uint8Array;
  /** For a timeout: the limit. */
  readonly timeoutMs?: number;
  readonly hint?: string;
  readonly cause?: unknown;
}

/** A program failed. The message holds the command, ready to be copied into a shell, and the end of its stderr. */
export class CommandError extends Error {
  override readonly name = 'CommandError';
  readonly argv: readonly string[];
  readonly chain: Chain;
  readonly failure: CommandFailure;
  readonly status: number;
  readonly signal: string | undefined;
  readonly stdout: Uint8Array;
  readonly stderr: Uint8Array;
  readonly hint: string | undefined;
  /** For a timeout: the limit. */
  readonly timeoutMs: number | undefined;

  constructor(fields: CommandErrorFields) {
    super(commandMessage(fields), fields.cause === undefined ? undefined : { cause: fields.cause });
    this.argv = fields.argv;
    this.chain = fields.chain ?? [['local']];
    this.failure = fields.failure;
    this.status = fields.status;
    this.signal = fields.signal;
    this.stdout = fields.stdout;
    this.stderr = fields.stderr;
    this.timeoutMs = fields.timeoutMs;
    this.hint = fields.hint ?? hintFor(fields);
  }
}

/** A file could not be read or written. */
export class FileError extends Error {
  override readonly name = 'FileError';
  /** As errno says it: ENOENT, EACCES, EISDIR, ENOTDIR, ENOSPC, EROFS, …; EIO when it cannot be told. */
  readonly code: string;
  readonly path: string;
  readonly hint: string | undefined;

  constructor(fields: {
    readonly action: 'read' | 'write';
    readonly path: string;
    readonly code: string;
    readonly reason: string;
    readonly chain?: Chain;
    readonly hint?: string;
    readonly cause?: unknown;
  }) {
    const where = describeWhere(fields.chain);
    super(
      `Cannot ${fields.action} "${fields.path}"${where}: ${fields.reason}`,
      fields.cause === undefined ? undefined : { cause: fields.cause },
    );
    this.code = fields.code;
    this.path = fields.path;
    this.hint = fields.hint;
  }
}

/** A hop could not be opened or used: wrong arguments, missing rights, a missing program or root. */
export class HopError extends Error {
  override readonly name = 'HopError';
  readonly hop: Hop;
  readonly hint: string | undefined;

  constructor(hop: Hop, reason: string, options: { readonly hint?: string; readonly cause?: unknown } = {}) {
    super(
      `Cannot use hop ${formatChainText([hop])}: ${reason}`,
      options.cause === undefined ? undefined : { cause: options.cause },
    );
    this.hop = hop;
    this.hint = options.hint;
  }
}

/** The stdout of a result as UTF-8 text; nothing is trimmed. */
export function text(result: RunResult): string {
  return Buffer.from(result.stdout).toString('utf8');
}

/** The stdout of a result as lines, without a last empty one. */
export function lines(result: RunResult): string[] {
  const all = text(result).split('\n');
  if (all.at(-1) === '') all.pop();
  return all;
}

/** Quotes words for a POSIX shell; a word that needs no quotes gets none. */
export function shellQuote(argv: readonly string[]): string {
  return argv
    .map((word) =>
      /^[A-Za-z0-9_@%+:,./-][A-Za-z0-9_@%+=:,./-]*$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`,
    )
    .join(' ');
}

/** Whether a status is a success under these options. */
export function isOkStatus(status: number, okStatus: RunOptions['okStatus']): boolean {
  return okStatus === 'any' || (okStatus ?? [0]).includes(status);
}

/**
 * Refuses words that no program can get.
 *
 * @throws {TypeError} for an empty argv, an empty program name, a NUL byte, or half a surrogate pair (it has no UTF-8)
 */
export function checkArgv(argv: readonly string[]): void {
  if (argv.length === 0 || argv[0] === '') throw new TypeError('Cannot run a command without a program name');
  const bad = argv.find((word) => word.includes('\0'));
  if (bad !== undefined) throw new TypeError(`Cannot pass a NUL byte to a program: ${JSON.stringify(bad)}`);
  const half = argv.find((word) => !word.isWellFormed());
  if (half !== undefined)
    throw new TypeError(`Cannot pass text that has no UTF-8 to a program: ${JSON.stringify(half)}`);
}

/**
 * Refuses paths that depend on a working directory.
 *
 * @throws {TypeError}
 */
export function checkPath(path: string): void {
  if (!path.startsWith('/') || path.includes('\0') || !path.isWellFormed()) {
    throw new TypeError(`Cannot use ${JSON.stringify(path)} as a path: it must be absolute, UTF-8, and without NUL`);
  }
}

/** How much of stderr goes into a message. */
const TAIL_LINES = 12;
const TAIL_CHARACTERS = 2000;
/** A longer command is cut in the message; `argv` has it all. */
const COMMAND_CHARACTERS = 1500;

function commandMessage(fields: CommandErrorFields): string {
  const quoted = shellQuote(fields.argv);
  const command = quoted.length > COMMAND_CHARACTERS ? `${quoted.slice(0, COMMAND_CHARACTERS)}…` : quoted;
  const tail = tailOf(fields.stderr.length > 0 ? fields.stderr : fields.stdout);
  return `Command failed${describeWhere(fields.chain)}: ${command}\n  ${reasonOf(fields)}${tail === '' ? '' : `\n${tail}`}`;
}

function reasonOf(fields: CommandErrorFields): string {
  const reasons: Readonly<Record<CommandFailure, string>> = {
    status: `exit status ${fields.status}`,
    signal: `killed by ${fields.signal ?? 'a signal'}`,
    timeout: `ended after its time limit of ${fields.timeoutMs ?? 0} ms`,
    aborted: 'ended because the work was aborted',
    output: 'ended because it wrote more output than allowed',
    start: `could not be started: ${fields.cause instanceof Error ? fields.cause.message : 'unknown reason'}`,
  };
  return reasons[fields.failure];
}

function hintFor(fields: CommandErrorFields): string | undefined {
  const program = fields.argv[0] ?? '';
  if (fields.failure === 'start' || (fields.failure === 'status' && fields.status === 127)) {
    return `Is "${program}" installed, and in the PATH of that host?`;
  }
  if (fields.failure === 'timeout') return 'Run the command by hand to see what it waits for.';
  return undefined;
}

function describeWhere(chain: Chain | undefined): string {
  return chain === undefined || chain.length <= 1 ? '' : ` at ${formatChainText(chain.slice(1))}`;
}

function tailOf(bytes: Uint8Array): string {
  const end = Buffer.from(bytes.subarray(Math.max(0, bytes.length - TAIL_CHARACTERS)))
    .toString('utf8')
    .trimEnd();
  return end
    .split('\n')
    .slice(-TAIL_LINES)
    .map((line) => `  | ${line}`)
    .join('\n')
    .replace(/^ {2}\| $/, '');
}
