/**
 * Asks the helper for one verb: one connection, one JSON line out, one JSON line back.
 *
 * A helper that dies without an answer is asked again, because every verb may be repeated; systemd starts a new one on
 * the same socket.
 */
import { createConnection } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { HELPER_SOCKET, type ReplyTo, type Verb } from './verb.ts';

/** How {@link callHelper} reaches the helper and how long it waits. */
export interface CallOptions {
  /** default {@link HELPER_SOCKET} */
  readonly socket?: string;
  readonly signal?: AbortSignal;
  /** for the whole call with its repeats; default 150 s, which is more than the helper allows any verb */
  readonly timeoutMs?: number;
}

/** The helper said no, or could not be asked. */
export class HelperError extends Error {
  override readonly name = 'HelperError';
  readonly verb: Verb['verb'];
  /** `refused`: the helper answered so; `unreachable`: no answer came, so whether it was done is not known */
  readonly reason: 'refused' | 'unreachable';
  readonly hint: string | undefined;

  constructor(
    message: string,
    details: { verb: Verb['verb']; reason: HelperError['reason']; hint?: string | undefined; cause?: unknown },
  ) {
    super(message, { cause: details.cause });
    this.verb = details.verb;
    this.reason = details.reason;
    this.hint = details.hint;
  }
}

/** How often a call without an answer is made in all. */
const TRIES = 4;
const PAUSE_MS = 500;

/** The longest answer taken, in bytes: `machine.list` of some thousands of builds. */
const MAX_ANSWER_BYTES = 1024 * 1024;

/**
 * Has the helper perform a verb.
 *
 * @returns the verb's own answer, see {@link Replies}
 * @throws {HelperError} when the helper refuses or fails, or does not answer
 */
export async function callHelper<V extends Verb>(verb: V, options: CallOptions = {}): Promise<ReplyTo<V>> {
  const socket = options.socket ?? HELPER_SOCKET;
  const deadline = AbortSignal.timeout(options.timeoutMs ?? 150_000);
  const signal = options.signal === undefined ? deadline : AbortSignal.any([deadline, options.signal]);
  const answer = await exchangeRepeatedly(verb, socket, signal);
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the helper is root and answers by the same types
  if (answer['ok'] === true) return answer as unknown as ReplyTo<V>;
  throw new HelperError(typeof answer['error'] === 'string' ? answer['error'] : `The helper refused ${verb.verb}`, {
    verb: verb.verb,
    reason: 'refused',
    hint: typeof answer['hint'] === 'string' ? answer['hint'] : undefined,
  });
}

async function exchangeRepeatedly(
  verb: Verb,
  socket: string,
  signal: AbortSignal,
): Promise<Readonly<Record<string, unknown>>> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return parseAnswer(await exchange(`${JSON.stringify(verb)}\n`, socket, signal));
    } catch (cause) {
      if (attempt < TRIES && !signal.aborted) {
        // An abort during the pause ends the next exchange at once, which reports it.
        await sleep(PAUSE_MS * attempt, undefined, { signal }).catch(() => undefined);
        continue;
      }
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw new HelperError(`Cannot ask the helper at ${socket} for ${verb.verb}: ${reason} (try ${attempt})`, {
        verb: verb.verb,
        reason: 'unreachable',
        hint: 'see systemctl status buildos-helper.socket buildos-helper.service',
        cause,
      });
    }
  }
}

/** One connection: sends the line, gives the answer up to the end of the stream. */
function exchange(line: string, socket: string, signal: AbortSignal): Promise<string> {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    const connection = createConnection({ path: socket });
    const chunks: Buffer[] = [];
    let bytes = 0;
    const end = (error?: Error): void => {
      signal.removeEventListener('abort', onAbort);
      connection.destroy();
      if (error === undefined) resolve(Buffer.concat(chunks).toString('utf8'));
      else reject(error);
    };
    const onAbort = (): void =>
      end(signal.reason instanceof Error ? signal.reason : new Error('the call was given up'));
    signal.addEventListener('abort', onAbort);
    connection.on('connect', () => connection.write(line));
    connection.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
      chunks.push(chunk);
      if (bytes > MAX_ANSWER_BYTES) end(new Error(`the answer is longer than ${MAX_ANSWER_BYTES} bytes`));
    });
    connection.on('end', () => end());
    connection.on('error', end);
  });
}

function parseAnswer(text: string): Readonly<Record<string, unknown>> {
  if (!text.endsWith('\n')) throw new Error(text === '' ? 'it ended without an answer' : 'its answer was cut short');
  const answer: unknown = JSON.parse(text);
  if (typeof answer !== 'object' || answer === null || !('ok' in answer)) {
    throw new Error('its answer is not one of the protocol');
  }
  return { ...answer };
}
