/** A program that runs as long as a connection: bytes in and out while it runs, over whatever hops lead to it. */
import { type Connection, type RunResult, CommandError } from './connection.ts';
import { InputQueue } from './_input.ts';

/** A running program. */
export interface Pipe {
  write(chunk: Uint8Array): void;
  /** Settles when it has ended, well or not; never rejects. */
  readonly ended: Promise<RunResult | Error>;
  /** Ends its input, waits, and ends it by force if it stays. */
  close(graceMs: number): Promise<void>;
}

/** What such a program may say on stderr in all; more ends it. */
const MAX_STDERR_BYTES = 16 * 1024 * 1024;

/** Starts a program; `onOutput` gets its bytes as they come. */
export function openPipe(
  base: Pick<Connection, 'run'>,
  argv: readonly string[],
  onOutput: (chunk: Uint8Array, stream: 'stdout' | 'stderr') => void,
): Pipe {
  const input = new InputQueue();
  const control = new AbortController();
  const ended = base
    .run(argv, {
      input,
      keepStdout: 'no',
      maxOutputBytes: MAX_STDERR_BYTES,
      okStatus: 'any',
      signal: control.signal,
      onOutput,
    })
    .catch((error: unknown) => (error instanceof Error ? error : new Error(String(error))));
  return {
    write: (chunk) => input.push(chunk),
    ended,
    close: async (graceMs) => {
      input.end();
      const timer = setTimeout(() => control.abort(new Error('the connection is let go')), graceMs);
      await ended;
      clearTimeout(timer);
    },
  };
}

/** What a program that ended said last, for a message. */
export function lastWords(ended: RunResult | Error): string {
  if (ended instanceof Error && !(ended instanceof CommandError)) return ended.message;
  const said = Buffer.from(ended.stderr).toString('utf8').trim();
  return said === '' ? `it ended with status ${ended.status}` : said;
}
