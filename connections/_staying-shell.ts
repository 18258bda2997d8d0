/**
 * A shell that stays at the far end of a connection and runs one command after the other, for those that only look at files or
 * change them (`ownFiles`): what it costs to enter is paid once.
 *
 * ```
 *   to it     (export LC_ALL=C; exec cat -- /etc/fstab) </dev/null; said "$?"
 *   from it   what cat writes on both streams, and then on both: MARK STATUS more
 * ```
 *
 * It has a PID namespace, /run, /tmp and /dev/shm of its own, and sees to it that no command meets what another left: whatever
 * still runs is killed, and when there is something in one of these folders the shell says `last` and ends; the next command
 * gets a new one. What ends it ends all that runs in it.
 */
import { randomUUID } from 'node:crypto';
import { type Pipe, openPipe } from './_pipe.ts';
import { assignment } from './_posix.ts';
import {
  type Chain,
  type CommandFailure,
  type Connection,
  type RunOptions,
  type RunResult,
  CommandError,
  isOkStatus,
  shellQuote,
} from './connection.ts';
import { MAX_OUTPUT_BYTES } from './local.ts';

/** More input than this goes to a command of its own. */
const MAX_INPUT_BYTES = 65_536;

/** How long the shell has to start. */
const START_MS = 30_000;
/** How long it has to end when its input did. */
const CLOSE_MS = 2000;

/** How often what was left is killed until it is gone; then the shell is given up. */
const KILL_TRIES = 200;

/**
 * What it reads first. `kill -1` is for a PID namespace: our parent leads one. It fails when nobody is left, and counts who is
 * dying, and who is dead until our parent has noticed.
 */
const prologue = (mark: string): string => `
[ "$PPID" = 1 ] || exit 1
look() { set -- /tmp/* /tmp/.[!.]* /dev/shm/* /dev/shm/.[!.]* /run/* /run/.[!.]* /run/lock/*; seen=$*; }
said() {
  tries=0
  while kill -s KILL -- -1 2>/dev/null && [ $tries -lt ${KILL_TRIES} ]; do
    tries=$((tries + 1))
    if [ $tries -gt 10 ]; then sleep 0.01 2>/dev/null; fi
  done
  look
  more=more
  [ "$seen" = "$clean" ] && [ $tries -lt ${KILL_TRIES} ] || more=last
  printf '${mark} %s %s\\n' "$1" "$more"
  printf '${mark} %s %s\\n' "$1" "$more" >&2
  [ "$more" = more ] || exit 0
}
look
clean=$seen
said 0
`;

/** Runs commands in one shell, which it starts when it is first needed, and again when that has ended. */
export class StayingShell {
  readonly #chain: Chain;
  readonly #runAlone: Connection['run'];
  #shell: Shell | undefined;
  #busy = false;

  /**
   * @param chain - where it is, for messages
   * @param runAlone - runs a program there, in a world of its own
   */
  constructor(chain: Chain, runAlone: Connection['run']) {
    this.#chain = chain;
    this.#runAlone = runAlone;
  }

  /**
   * Runs a command.
   *
   * @returns undefined when nothing was run: it is not for this, another one runs, or there can be no shell
   * @throws {CommandError}
   */
  async run(argv: readonly string[], options: RunOptions): Promise<RunResult | undefined> {
    const request = this.#busy ? undefined : requestOf(argv, options);
    if (request === undefined) return undefined;
    this.#busy = true;
    try {
      this.#shell ??= await startShell(this.#runAlone);
      if (this.#shell === undefined || options.signal?.aborted === true) return undefined;
      const { failure, more, ...result } = await this.#shell.execute(request, options);
      if (!more) this.#shell = undefined;
      if (failure === undefined && isOkStatus(result.status, options.okStatus)) return result;
      const { timeoutMs, signal } = options;
      throw new CommandError({
        argv,
        chain: this.#chain,
        failure: failure ?? 'status',
        ...result,
        ...(failure === 'timeout' && timeoutMs !== undefined ? { timeoutMs } : {}),
        ...(failure === 'aborted' ? { cause: signal?.reason } : {}),
      });
    } finally {
      this.#busy = false;
    }
  }

  async close(): Promise<void> {
    await this.#shell?.close(CLOSE_MS);
    this.#shell = undefined;
  }
}

/** What the shell reads to run a command; undefined for what it cannot run. */
function requestOf(argv: readonly string[], options: RunOptions): Uint8Array | undefined {
  const { input, env = {}, cwd } = options;
  if (options.ownFiles !== true || options.onOutput !== undefined || options.keepStdout !== undefined) return undefined;
  if (input !== undefined && typeof input !== 'string' && !(input instanceof Uint8Array)) return undefined;
  const bytes = Buffer.from(input ?? '');
  // No word of a shell holds a NUL.
  if (bytes.length > MAX_INPUT_BYTES || bytes.includes(0)) return undefined;
  const variables = Object.entries(env).map(([name, value]) => assignment(name, value));
  const exported = variables.length === 0 ? '' : `export ${shellQuote(variables)}; `;
  const command = `(${exported}${cwd === undefined ? '' : `cd ${shellQuote([cwd])} && `}exec ${shellQuote(argv)})`;
  const line = bytes.length === 0 ? `${command} </dev/null` : `printf %s '\0' | ${command}`;
  const [before = '', after] = `${line}; said "$?"\n`.split('\0');
  if (after === undefined) return Buffer.from(before);
  const word = Buffer.from(bytes.toString('latin1').replaceAll("'", "'\\''"), 'latin1');
  return Buffer.concat([Buffer.from(before), word, Buffer.from(after)]);
}

async function startShell(runAlone: Connection['run']): Promise<Shell | undefined> {
  const mark = `@@${randomUUID()}`;
  const shell = new Shell(runAlone, mark);
  const { failure, more } = await shell.execute(Buffer.from(prologue(mark)), { timeoutMs: START_MS });
  return failure === undefined && more ? shell : undefined;
}

/** What became of a command. */
interface Executed extends RunResult {
  /** Why it was ended; `signal`: somebody ended the shell. */
  readonly failure?: CommandFailure;
  /** Whether the shell takes another command. */
  readonly more: boolean;
}

/** A shell that runs. */
class Shell {
  readonly #pipe: Pipe;
  readonly #mark: RegExp;
  #stdout: Stream;
  #stderr: Stream;
  #limit = MAX_OUTPUT_BYTES;
  #settle: (failure: CommandFailure | undefined) => void = () => undefined;

  constructor(runAlone: Connection['run'], mark: string) {
    this.#mark = new RegExp(`${mark} (\\d+) (more|last)\n$`);
    this.#stdout = new Stream(this.#mark);
    this.#stderr = new Stream(this.#mark);
    const run: Connection['run'] = (argv, options) => runAlone(argv, { ...options, ownFiles: true });
    this.#pipe = openPipe({ run }, ['sh'], (chunk, name) => {
      const stream = name === 'stdout' ? this.#stdout : this.#stderr;
      stream.push(chunk);
      if (stream.sizeBytes > this.#limit) this.#settle('output');
      else if (this.#stdout.said !== undefined && this.#stderr.said !== undefined) this.#settle(undefined);
    });
    void this.#pipe.ended.then(() => this.#settle('signal'));
  }

  /** Runs what the shell reads, one at a time. Bounded as the options say; never rejects. */
  async execute(
    request: Uint8Array,
    options: Pick<RunOptions, 'timeoutMs' | 'signal' | 'maxOutputBytes'>,
  ): Promise<Executed> {
    const { timeoutMs, signal, maxOutputBytes = MAX_OUTPUT_BYTES } = options;
    const settled = Promise.withResolvers<CommandFailure | undefined>();
    this.#settle = settled.resolve;
    this.#limit = maxOutputBytes;
    this.#stdout = new Stream(this.#mark);
    this.#stderr = new Stream(this.#mark);
    const timer = timeoutMs === undefined ? undefined : setTimeout(() => settled.resolve('timeout'), timeoutMs);
    const onAbort = (): void => settled.resolve('aborted');
    signal?.addEventListener('abort', onAbort, { once: true });
    this.#pipe.write(request);
    const failure = await settled.promise;
    clearTimeout(timer);
    signal?.removeEventListener('abort', onAbort);
    const streams = { stdout: this.#stdout.bytes(), stderr: this.#stderr.bytes() };
    const { said } = this.#stdout;
    if (failure === undefined && said !== undefined) return { status: said.status, more: said.more, ...streams };
    const ended = await this.close(0);
    return { status: ended, ...streams, more: false, ...(failure === undefined ? {} : { failure }) };
  }

  /** Ends it, and what runs in it. @returns its status */
  async close(graceMs: number): Promise<number> {
    await this.#pipe.close(graceMs);
    const ended = await this.#pipe.ended;
    return 'status' in ended && typeof ended.status === 'number' ? ended.status : 137;
  }
}

/** What a command writes to one stream, up to what the shell says when it has ended. */
class Stream {
  readonly #mark: RegExp;
  readonly #chunks: Uint8Array[] = [];
  #tail = '';
  sizeBytes = 0;
  said: { readonly length: number; readonly status: number; readonly more: boolean } | undefined;

  constructor(mark: RegExp) {
    this.#mark = mark;
  }

  push(chunk: Uint8Array): void {
    this.#chunks.push(chunk);
    this.sizeBytes += chunk.length;
    this.#tail = (this.#tail + Buffer.from(chunk.subarray(-TAIL_BYTES)).toString('latin1')).slice(-TAIL_BYTES);
    const [all, status, more] = this.#mark.exec(this.#tail) ?? [];
    if (all !== undefined) this.said = { length: all.length, status: Number(status), more: more === 'more' };
  }

  bytes(): Uint8Array {
    return Buffer.concat(this.#chunks).subarray(0, this.sizeBytes - (this.said?.length ?? 0));
  }
}

/** More than the shell says. */
const TAIL_BYTES = 80;
