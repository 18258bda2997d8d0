/**
 * The agent: our JavaScript at the far end of a native connection. It answers calls over stdin and stdout (_frames.ts)
 * until its input ends.
 *
 * An agent with more native functions is a module of its own that imports theirs and then this one.
 */
import { type Json, type RunOptions, CommandError, FileError } from './connection.ts';
import { FRAME, type Frame, FrameDecoder, encodeFrame, encodeJson, pieces } from './_frames.ts';
import { InputQueue } from './_input.ts';
import { type AgentConfig, AGENT_GLOBAL, parseRequest } from './_agent-protocol.ts';
import { openLocal } from './local.ts';
import { NativeCallError } from './native.ts';

await serve();

/** Answers until the input ends, then ends what still runs. */
async function serve(): Promise<void> {
  const { sha256, config } = started();
  console.log = console.error; // stdout is ours
  become(config);
  const local = openLocal({ killWithUs: 'group', ...(config.env === undefined ? {} : { env: config.env }) });
  const calls = new Map<number, { readonly input: InputQueue; readonly control: AbortController }>();
  const send = (frame: Uint8Array): undefined | Promise<void> =>
    process.stdout.write(frame) ? undefined : new Promise((resolve) => process.stdout.once('drain', resolve));
  process.stdout.on('error', () => process.exit(1)); // nobody listens any more
  await send(encodeJson(FRAME.hello, 0, { sha256, uid: process.getuid?.() ?? -1, arch: process.arch }));

  const begin = (call: number, request: unknown): void => {
    const control = new AbortController();
    const input = new InputQueue((size) => void send(encodeJson(FRAME.taken, call, size)));
    calls.set(call, { input, control });
    answer(call, request, input, control.signal)
      .then((result) => send(encodeJson(FRAME.done, call, result)))
      .catch((error: unknown) => send(encodeJson(FRAME.failed, call, describeError(error))))
      .finally(() => calls.delete(call))
      .catch(() => process.exit(1));
  };

  const answer = async (call: number, asked: unknown, input: InputQueue, signal: AbortSignal): Promise<Json> => {
    const request = parseRequest(asked);
    if (request.op === 'call') return (await local.native?.call(request.name, request.args)) ?? null;
    if (request.op === 'readFile') {
      for (const piece of pieces(await local.readFile(request.path)))
        await send(encodeFrame(FRAME.stdout, call, piece));
      return null;
    }
    if (request.op === 'writeFile') {
      const content = Buffer.concat(await Array.fromAsync(input));
      await local.writeFile(request.path, content, { mode: request.mode });
      return null;
    }
    const options: RunOptions = {
      ...request.options,
      ...(request.hasInput ? { input } : {}),
      okStatus: 'any',
      signal,
      onOutput: (chunk, stream) => {
        let last: undefined | Promise<void>;
        for (const piece of pieces(chunk)) last = send(encodeFrame(FRAME[stream], call, piece));
        return last;
      },
    };
    return { status: (await local.run(request.argv, options)).status };
  };

  const take = (frame: Frame): void => {
    const call = calls.get(frame.call);
    if (frame.kind === FRAME.request) begin(frame.call, JSON.parse(frame.payload.toString('utf8')));
    else if (frame.kind === FRAME.input) call?.input.push(Buffer.from(frame.payload));
    else if (frame.kind === FRAME.inputEnd) call?.input.end();
    else if (frame.kind === FRAME.abort) call?.control.abort(new Error('aborted by the caller'));
  };

  const decoder = new FrameDecoder();
  process.stdin.on('data', (chunk: Buffer) => {
    for (const frame of decoder.push(chunk)) take(frame);
  });
  // The guard of the local connection ends what still runs.
  process.stdin.on('end', () => process.exit(0));
  process.stdin.on('error', () => process.exit(1));
}

/** What the few lines that loaded us left (_agent-protocol.ts). */
function started(): { readonly sha256: string; readonly config: AgentConfig } {
  const found: unknown = Reflect.get(globalThis, AGENT_GLOBAL);
  if (typeof found !== 'object' || found === null)
    throw new TypeError('The agent is started by a connection, not by hand');
  // Made by BOOT from what startAgent() gave it, in the same version.
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion
  return found as { readonly sha256: string; readonly config: AgentConfig };
}

/** Becomes another user, for good. */
function become({ become: user }: AgentConfig): void {
  process.umask(0o022);
  if (user === undefined) return;
  process.setgroups?.([...user.groups]);
  process.setgid?.(user.gid);
  process.setuid?.(user.uid);
  process.chdir('/');
}

function describeError(error: unknown): Json {
  if (error instanceof CommandError) {
    return {
      kind: 'command',
      failure: error.failure,
      status: error.status,
      signal: error.signal ?? null,
      cause: error.cause instanceof Error ? error.cause.message : null,
    };
  }
  if (error instanceof FileError) {
    return { kind: 'file', code: error.code, reason: reasonOf(error), hint: error.hint ?? null };
  }
  if (error instanceof NativeCallError) {
    return { kind: 'call', thrown: error.thrown, message: error.message, hint: error.hint ?? null };
  }
  return { kind: 'type', message: error instanceof Error ? error.message : String(error) };
}

const reasonOf = (error: FileError): string => (error.cause instanceof Error ? error.cause.message : error.message);
