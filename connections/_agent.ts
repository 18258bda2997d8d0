/**
 * The caller's side of an agent: starts one through any connection and makes a native connection of it.
 *
 * What the agent starts ends when it ends, and it ends when its stdin does: with this connection, whatever ends that.
 */
import { createHash } from 'node:crypto';
import { type AgentConfig, BOOT, type Request } from './_agent-protocol.ts';
import { FRAME, type Frame, FrameDecoder, WINDOW_BYTES, encodeFrame, encodeJson, pieces } from './_frames.ts';
import { passOn } from './attributes.ts';
import { lastWords, openPipe } from './_pipe.ts';
import {
  type AgentSource,
  type Chain,
  type CommandFailure,
  type Connection,
  type Hop,
  type Json,
  type NodeRuntime,
  type RunOptions,
  type RunResult,
  CommandError,
  FileError,
  HopError,
  checkArgv,
  checkPath,
  isOkStatus,
} from './connection.ts';
import { NativeCallError } from './native.ts';

/** What startAgent needs. */
export interface AgentStart {
  readonly hop: Hop;
  readonly base: Connection;
  readonly agent: AgentSource;
  /** The words that run `node` with more words after them, through `base`. */
  wrap(node: readonly string[]): readonly string[];
  /** How Node is started at the far end, and its files as they are named there. */
  readonly runtime: NodeRuntime;
  readonly config: Omit<AgentConfig, 'sizeBytes'>;
  /** Looks at what a start that failed said; an error of the hop is thrown from here. */
  examine?(ended: Pick<RunResult, 'status' | 'stderr'>): void;
  close?(): Promise<void>;
}

/** How long an agent has until it says hello: the bundle may come over a slow line. */
const HELLO_MS = 60_000;
/** How long it has to end when its input did. */
const CLOSE_MS = 3000;

/** A call that is not answered yet. */
interface Pending {
  readonly onFrame: (frame: Frame) => void;
  readonly onEnd: (error: Error) => void;
}

/**
 * Starts an agent.
 *
 * @throws {HopError} when it does not start, or says that it is another one
 */
export async function startAgent(start: AgentStart): Promise<Connection> {
  const { base, hop } = start;
  const chain: Chain = [...base.chain, hop];
  const bundle = await start.agent();
  const sha256 = createHash('sha256').update(bundle).digest('hex');
  const config: AgentConfig = { ...start.config, sizeBytes: bundle.length };
  const node = [...start.runtime.argv, '--input-type=module', '--eval', BOOT, JSON.stringify(config)];

  const calls = new Map<number, Pending>();
  const hello = Promise.withResolvers<string>();
  hello.promise.catch(() => {}); // who waits gets it; nobody may wait
  let gone: Error | undefined;
  const fail = (error: Error): void => {
    gone ??= error;
    hello.reject(gone);
    for (const { onEnd } of calls.values()) onEnd(gone);
    calls.clear();
  };
  const decoder = new FrameDecoder();
  const pipe = openPipe(base, start.wrap(node), (chunk, stream) => {
    if (stream === 'stderr' || gone !== undefined) return;
    try {
      for (const frame of decoder.push(chunk)) {
        if (frame.kind === FRAME.hello) hello.resolve(frame.payload.toString('utf8'));
        else calls.get(frame.call)?.onFrame(frame);
      }
    } catch (error) {
      fail(new HopError(hop, error instanceof Error ? error.message : String(error), { cause: error }));
    }
  });
  const watch = async (): Promise<void> => {
    const ended = await pipe.ended;
    try {
      if (!(ended instanceof Error) || ended instanceof CommandError) start.examine?.(ended);
      fail(new HopError(hop, `the agent is gone: ${lastWords(ended)}`));
    } catch (error) {
      fail(error instanceof Error ? error : new Error(String(error)));
    }
  };
  void watch();
  pipe.write(bundle);
  const timer = setTimeout(() => fail(new HopError(hop, `the agent says nothing for ${HELLO_MS} ms`)), HELLO_MS);
  try {
    checkHello(hop, await hello.promise, sha256);
  } catch (error) {
    await pipe.close(0);
    await start.close?.();
    throw error;
  } finally {
    clearTimeout(timer);
  }

  let lastCall = 0;
  /** Makes a call; `onBytes` gets what comes before the answer. */
  const ask = (
    request: Request,
    more: {
      readonly input?: RunOptions['input'];
      readonly signal?: AbortSignal | undefined;
      readonly onBytes?: (bytes: Uint8Array, stream: 'stdout' | 'stderr') => void;
    },
  ): Promise<Json> =>
    new Promise((resolve, reject) => {
      if (gone !== undefined) {
        reject(gone);
        return;
      }
      const call = ++lastCall;
      const window = new Window();
      const onAbort = (): void => pipe.write(encodeFrame(FRAME.abort, call, new Uint8Array()));
      const settle = (): void => {
        calls.delete(call);
        window.close();
        more.signal?.removeEventListener('abort', onAbort);
      };
      calls.set(call, {
        onEnd: (error) => {
          settle();
          reject(error);
        },
        onFrame: ({ kind, payload }) => {
          if (kind === FRAME.stdout || kind === FRAME.stderr) {
            more.onBytes?.(payload, kind === FRAME.stdout ? 'stdout' : 'stderr');
          } else if (kind === FRAME.taken) {
            window.taken(Number(payload.toString('utf8')));
          } else if (kind === FRAME.done) {
            settle();
            resolve(parseJson(payload));
          } else if (kind === FRAME.failed) {
            settle();
            reject(new RemoteFailure(parseJson(payload)));
          }
        },
      });
      pipe.write(encodeJson(FRAME.request, call, request));
      more.signal?.addEventListener('abort', onAbort, { once: true });
      if (more.input === undefined) return;
      sendInput(more.input, window, (piece) => pipe.write(encodeFrame(FRAME.input, call, piece)))
        .then(() => pipe.write(encodeFrame(FRAME.inputEnd, call, new Uint8Array())))
        .catch(onAbort);
    });

  const run = async (argv: readonly string[], options: RunOptions = {}): Promise<RunResult> => {
    checkArgv(argv);
    const { signal, onOutput, okStatus, input, env, cwd, timeoutMs, maxOutputBytes, keepStdout } = options;
    if (cwd !== undefined) checkPath(cwd);
    const chunks = { stdout: [] as Uint8Array[], stderr: [] as Uint8Array[] };
    const collected = (): { stdout: Uint8Array; stderr: Uint8Array } => ({
      stdout: Buffer.concat(chunks.stdout),
      stderr: Buffer.concat(chunks.stderr),
    });
    if (signal?.aborted === true) {
      throw new CommandError({ argv, chain, failure: 'aborted', status: 130, ...collected(), cause: signal.reason });
    }
    const remote = {
      ...(env === undefined ? {} : { env }),
      ...(cwd === undefined ? {} : { cwd }),
      ...(timeoutMs === undefined ? {} : { timeoutMs }),
      ...(maxOutputBytes === undefined ? {} : { maxOutputBytes }),
      ...(keepStdout === undefined ? {} : { keepStdout }),
    };
    try {
      const done = await ask(
        { op: 'run', argv, options: remote, hasInput: input !== undefined },
        {
          input,
          signal,
          onBytes: (bytes, stream) => {
            if (stream === 'stderr' || keepStdout !== 'no') chunks[stream].push(bytes);
            onOutput?.(bytes, stream);
          },
        },
      );
      const status = Number(member(done, 'status'));
      if (!isOkStatus(status, okStatus))
        throw new CommandError({ argv, chain, failure: 'status', status, ...collected() });
      return { status, ...collected() };
    } catch (error) {
      if (!(error instanceof RemoteFailure)) throw error;
      throw error.asCommandError({ argv, chain, ...collected() }, { timeoutMs, abortReason: signal?.reason });
    }
  };

  const connection: Connection = {
    chain,
    kind: 'native',
    run,
    readFile: async (path) => {
      checkPath(path);
      const parts: Uint8Array[] = [];
      try {
        await ask({ op: 'readFile', path }, { onBytes: (bytes) => parts.push(bytes) });
      } catch (error) {
        throw error instanceof RemoteFailure ? error.asFileError('read', path, chain) : error;
      }
      return Buffer.concat(parts);
    },
    writeFile: async (path, content, { mode }) => {
      checkPath(path);
      try {
        await ask({ op: 'writeFile', path, mode }, { input: content });
      } catch (error) {
        throw error instanceof RemoteFailure ? error.asFileError('write', path, chain) : error;
      }
    },
    ...(base.data === undefined ? {} : { data: base.data }),
    native: {
      agent: start.agent,
      runtime: async () => start.runtime,
      call: async (name, args) => {
        try {
          return await ask({ op: 'call', name, args }, {});
        } catch (error) {
          throw error instanceof RemoteFailure ? error.asCallError(name) : error;
        }
      },
    },
    [Symbol.asyncDispose]: async () => {
      await pipe.close(CLOSE_MS);
      await start.close?.();
    },
  };
  passOn(base, connection);
  return connection;
}

function checkHello(hop: Hop, hello: string, sha256: string): void {
  const said = member(JSON.parse(hello), 'sha256');
  if (said !== sha256) {
    throw new HopError(hop, `the agent there is ${String(said)}, and ours is ${sha256}`, {
      hint: 'Something on the way changes bytes.',
    });
  }
}

async function sendInput(
  input: NonNullable<RunOptions['input']>,
  window: Window,
  send: (piece: Uint8Array) => void,
): Promise<void> {
  const all = typeof input === 'string' ? [Buffer.from(input)] : input instanceof Uint8Array ? [input] : input;
  for await (const chunk of all) {
    for (const piece of pieces(chunk)) {
      if (!(await window.take(piece.length))) return;
      send(piece);
    }
  }
}

/** How much input may still be sent before the agent took some. */
class Window {
  #free = WINDOW_BYTES;
  #closed = false;
  #wake: (() => void) | undefined;

  /** Waits for room; false when the call has ended. */
  async take(sizeBytes: number): Promise<boolean> {
    while (this.#free < sizeBytes && !this.#closed) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    this.#free -= sizeBytes;
    return !this.#closed;
  }

  taken(sizeBytes: number): void {
    this.#free += sizeBytes;
    this.#wake?.();
  }

  close(): void {
    this.#closed = true;
    this.#wake?.();
  }
}

const COMMAND_FAILURES: readonly CommandFailure[] = ['status', 'signal', 'timeout', 'aborted', 'output', 'start'];

/** An error of the far end, before it is told in the caller's words. */
class RemoteFailure extends Error {
  override readonly name = 'RemoteFailure';
  readonly #said: Json;

  constructor(said: Json) {
    super(JSON.stringify(said));
    this.#said = said;
  }

  asCommandError(
    fields: {
      readonly argv: readonly string[];
      readonly chain: Chain;
      readonly stdout: Uint8Array;
      readonly stderr: Uint8Array;
    },
    ours: { readonly timeoutMs: number | undefined; readonly abortReason: unknown },
  ): Error {
    const failure = COMMAND_FAILURES.find((one) => one === this.#string('failure'));
    if (failure === undefined) return this.#typeError();
    const signal = this.#string('signal');
    const cause = this.#string('cause');
    return new CommandError({
      ...fields,
      failure,
      status: Number(member(this.#said, 'status')),
      ...(signal === undefined ? {} : { signal }),
      ...(ours.timeoutMs === undefined ? {} : { timeoutMs: ours.timeoutMs }),
      ...(failure === 'aborted' && ours.abortReason !== undefined ? { cause: ours.abortReason } : {}),
      ...(failure === 'aborted' || cause === undefined ? {} : { cause: new Error(cause) }),
    });
  }

  asFileError(action: 'read' | 'write', path: string, chain: Chain): Error {
    const code = this.#string('code');
    if (code === undefined) return this.#typeError();
    const hint = this.#string('hint');
    return new FileError({
      action,
      path,
      code,
      reason: this.#string('reason') ?? code,
      chain,
      ...(hint === undefined ? {} : { hint }),
    });
  }

  asCallError(call: string): Error {
    const hint = this.#string('hint');
    return new NativeCallError({
      call,
      thrown: this.#string('thrown') ?? 'Error',
      message: this.#string('message') ?? this.message,
      ...(hint === undefined ? {} : { hint }),
    });
  }

  #typeError(): TypeError {
    return new TypeError(this.#string('message') ?? this.message);
  }

  #string(name: string): string | undefined {
    const value = member(this.#said, name);
    return typeof value === 'string' ? value : undefined;
  }
}

function parseJson(payload: Buffer): Json {
  // What JSON.parse gives is Json.
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion
  return JSON.parse(payload.toString('utf8')) as Json;
}

const member = (value: unknown, name: string): unknown =>
  typeof value === 'object' && value !== null ? Reflect.get(value, name) : undefined;
