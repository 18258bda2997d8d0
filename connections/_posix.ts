/**
 * What every posix hop does the same way: how words get a working directory and variables without a shell looking at
 * them, files by way of `run`, and errors that speak of the caller's command rather than the hop's.
 */
import { prepend } from './_input.ts';
import { passOn, shareAttributes } from './attributes.ts';
import {
  type Chain,
  type Connection,
  type Hop,
  type RunOptions,
  type RunResult,
  CommandError,
  FileError,
  checkArgv,
  checkPath,
  text,
} from './connection.ts';

/** Words, or words and bytes that go ahead of the program's stdin. */
type Wrapped = readonly string[] | { readonly words: readonly string[]; readonly first: Uint8Array };

/** A way to run some commands, and not others: it gives undefined for these. */
interface QuickerWay {
  run(argv: readonly string[], options: RunOptions): Promise<RunResult | undefined>;
  close(): Promise<void>;
}

/** What a hop gives posixConnection. */
export interface PosixHop {
  readonly hop: Hop;
  /** The connection it stands on. */
  readonly base: Connection;
  /**
   * The words that run `argv` at the far end, through `base`. They must carry every word unchanged. A hop may also say
   * bytes that go ahead of the program's stdin, for what it puts between to read.
   */
  wrap(
    argv: readonly string[],
    options: Pick<RunOptions, 'ownFiles'> & { readonly env: RunOptions['env']; readonly cwd: RunOptions['cwd'] },
  ): Wrapped | Promise<Wrapped>;
  /** Looks at every status but 0 before it is reported: an error of the hop itself is thrown from here. */
  examine?(result: Pick<RunResult, 'status' | 'stderr'>): void | Promise<void>;
  /** Ends a run early, where ending our side does not end the other. Bounded; never rejects. */
  cut?(words: readonly string[]): Promise<void>;
  /** Another way to run some commands, tried first. */
  quicker?(chain: Chain, run: Connection['run']): QuickerWay;
  /** Whether a written file goes to the disk before it takes its name; default true. */
  readonly durable?: boolean;
  /** Files are those of `base`: no need to go through programs. */
  readonly sameFiles?: boolean;
  close?(): Promise<void>;
}

/** Makes a connection of a hop that can run a program. */
export function posixConnection(way: PosixHop): Connection {
  const { base } = way;
  const chain: Chain = [...base.chain, way.hop];

  const run = async (argv: readonly string[], options: RunOptions = {}): Promise<RunResult> => {
    checkArgv(argv);
    if (options.cwd !== undefined) checkPath(options.cwd);
    return (await quicker?.run(argv, options)) ?? (await runAsEver(argv, options));
  };

  const runAsEver = async (argv: readonly string[], options: RunOptions = {}): Promise<RunResult> => {
    const { env, cwd, ...rest } = options;
    const wrapped = await way.wrap(argv, { env, cwd, ...(rest.ownFiles === true ? { ownFiles: true } : {}) });
    const plain = isWords(wrapped);
    const words = plain ? wrapped : wrapped.words;
    try {
      const given = plain ? rest : { ...rest, input: prepend(wrapped.first, rest.input) };
      const result = await (way.cut === undefined ? base.run(words, given) : runCut(words, given));
      if (result.status !== 0) await way.examine?.(result);
      return result;
    } catch (error) {
      if (!(error instanceof CommandError)) throw error;
      if (error.failure === 'status' || error.failure === 'signal') await way.examine?.(error);
      throw errorOf(error, argv, chain);
    }
  };

  /** Ends the other side first when the time is over: what loses its streams before may end and leave others behind. */
  const runCut = async (words: readonly string[], options: RunOptions): Promise<RunResult> => {
    const { timeoutMs, signal, ...rest } = options;
    const control = new AbortController();
    let early: 'timeout' | 'aborted' | undefined;
    const end = async (why: 'timeout' | 'aborted'): Promise<void> => {
      if (early !== undefined) return;
      early = why;
      await way.cut?.(words);
      control.abort(signal?.reason);
    };
    const onAbort = (): void => void end('aborted');
    const timer = timeoutMs === undefined ? undefined : setTimeout(() => void end('timeout'), timeoutMs);
    if (signal?.aborted === true) control.abort(signal.reason);
    signal?.addEventListener('abort', onAbort, { once: true });
    const failed = (error: Pick<CommandError, 'status' | 'stdout' | 'stderr'>): CommandError =>
      new CommandError({
        argv: words,
        failure: early ?? 'aborted',
        status: error.status,
        stdout: error.stdout,
        stderr: error.stderr,
        ...(early === 'timeout' ? { timeoutMs: timeoutMs ?? 0 } : { cause: signal?.reason }),
      });
    try {
      const result = await base.run(words, { ...rest, signal: control.signal });
      if (early !== undefined) throw failed(result);
      return result;
    } catch (error) {
      if (!(error instanceof CommandError)) throw error;
      if (error.failure === 'output') await way.cut?.(words);
      throw early === undefined || error.failure === 'output' ? error : failed(error);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
    }
  };

  const readFile = async (path: string): Promise<Uint8Array> => {
    checkPath(path);
    const result = await run(['cat', '--', path], { env: { LC_ALL: 'C' }, okStatus: 'any', ownFiles: true });
    if (result.status !== 0) throw posixFileError('read', path, result, chain);
    return result.stdout;
  };

  const writeFile = async (
    path: string,
    content: string | Uint8Array,
    options: { readonly mode: number },
  ): Promise<void> => {
    checkPath(path);
    const mode = (options.mode & 0o7777).toString(8).padStart(4, '0');
    const script = way.durable === false ? WRITE_SCRIPT : WRITE_DURABLE_SCRIPT;
    const result = await run(['sh', '-c', script, 'write', path, mode], {
      env: { LC_ALL: 'C' },
      input: content,
      okStatus: 'any',
      ownFiles: true,
    });
    if (result.status !== 0) throw posixFileError('write', path, result, chain);
  };

  const quicker = way.quicker?.(chain, runAsEver);
  const connection: Connection = {
    chain,
    kind: 'posix',
    run,
    readFile: way.sameFiles === true ? (path) => base.readFile(path) : readFile,
    writeFile: way.sameFiles === true ? (path, content, options) => base.writeFile(path, content, options) : writeFile,
    ...(base.data === undefined ? {} : { data: base.data }),
    async [Symbol.asyncDispose]() {
      await quicker?.close();
      await way.close?.();
    },
  };
  passOn(base, connection);
  return connection;
}

const isWords = (wrapped: Wrapped): wrapped is readonly string[] => Array.isArray(wrapped);

/** The same place by another name: a hop that has nothing to do. */
export function sameConnection(base: Connection, hop: Hop): Connection {
  const connection: Connection = { ...base, chain: [...base.chain, hop], async [Symbol.asyncDispose]() {} };
  shareAttributes(base, connection);
  return connection;
}

/**
 * Puts a working directory and variables in front of a command, as words: `env -C DIR A=B -- program …`.
 *
 * `env` would take a program name that holds `=` for a variable; only then a shell stands between, and it gets the words
 * as its arguments.
 */
export function withEnvironment(
  argv: readonly string[],
  options: { readonly env: RunOptions['env']; readonly cwd: RunOptions['cwd'] },
): readonly string[] {
  const variables = Object.entries(options.env ?? {}).map(([name, value]) => assignment(name, value));
  const command = argv[0]?.includes('=') === true ? ['sh', '-c', 'exec "$@"', 'sh', ...argv] : argv;
  const placed =
    options.cwd === undefined ? command : ['sh', '-c', 'cd "$1" && shift && exec "$@"', 'sh', options.cwd, ...command];
  return variables.length === 0 ? placed : ['env', '--', ...variables, ...placed];
}

/**
 * One variable as a word for env(1).
 *
 * @throws {TypeError} for a name that a shell could not use either, or a NUL byte
 */
export function assignment(name: string, value: string): string {
  if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(name) || value.includes('\0')) {
    throw new TypeError(`Cannot set the variable ${JSON.stringify(name)}`);
  }
  return `${name}=${value}`;
}

/**
 * The new content goes to a file of mode 0600 beside the old one, which then takes its place. mv -T: never into a
 * directory of that name.
 */
const writeScript = (sync: string): string => `
set -e
umask 077
new=$(mktemp -- "$1.XXXXXXXX")
trap 'rm -f -- "$new"' EXIT
trap 'exit 143' TERM
cat > "$new"
chmod -- "$2" "$new"
${sync}mv -fT -- "$new" "$1"
trap - EXIT
`;
const WRITE_SCRIPT = writeScript('');
const WRITE_DURABLE_SCRIPT = writeScript('sync -- "$new"\n');

/** The error as the caller of this hop should see it: with the caller's words, and where they ran. */
function errorOf(error: CommandError, argv: readonly string[], chain: Chain): CommandError {
  return new CommandError({
    argv,
    chain,
    failure: error.failure,
    status: error.status,
    stdout: error.stdout,
    stderr: error.stderr,
    cause: error.cause,
    ...(error.signal === undefined ? {} : { signal: error.signal }),
    ...(error.timeoutMs === undefined ? {} : { timeoutMs: error.timeoutMs }),
  });
}

/** What the C library says, in English since we asked for LC_ALL=C. */
const ERRNO: readonly (readonly [message: string, code: string])[] = [
  ['No such file or directory', 'ENOENT'],
  ['Permission denied', 'EACCES'],
  ['Operation not permitted', 'EPERM'],
  ['Is a directory', 'EISDIR'],
  ['cannot overwrite directory', 'EISDIR'],
  ['Not a directory', 'ENOTDIR'],
  ['No space left on device', 'ENOSPC'],
  ['Read-only file system', 'EROFS'],
  ['Too many levels of symbolic links', 'ELOOP'],
  ['File name too long', 'ENAMETOOLONG'],
];

function posixFileError(action: 'read' | 'write', path: string, result: RunResult, chain: Chain): FileError {
  const said = text({ ...result, stdout: result.stderr }).trim();
  const code = ERRNO.find(([message]) => said.includes(message))?.[1] ?? 'EIO';
  const reason = said === '' ? `status ${result.status}` : (said.split('\n').at(-1) ?? said);
  return new FileError({ action, path, code, reason: code === 'EIO' ? reason : `${code}, ${reason}`, chain });
}
