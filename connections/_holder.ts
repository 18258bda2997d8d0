/**
 * A program that stands behind a hop for as long as the connection lives: ssh's master, a container. It runs in a shell
 * script that says a line when it is ready, and cleans up when its stdin ends, however that comes.
 *
 * The script starts a guard first, in a session of its own: it waits for the end of stdin, then ends the script, and
 * removes what that may have left if it was killed. The program itself dies with the script (PR_SET_PDEATHSIG).
 */
import { type Pipe, lastWords, openPipe } from './_pipe.ts';
import type { Connection, RunResult } from './connection.ts';

/** A holder that is ready. */
export interface Holder {
  /** What it said: the rest of its line. */
  readonly ready: string;
  readonly ended: Promise<RunResult | Error>;
  close(): Promise<void>;
}

/** What the script says when it is ready, and a word or more after it. */
export const READY = 'buildos-ready';

/**
 * The beginning of a script: `hold SCRIPT WORD…` runs the script with these words when stdin ends and ours has ended.
 * `dies` is in front of a program that shall die with us.
 */
export const HOLD = `
fail() { echo "$*" >&2; exit 1; }
exec 3<&0 </dev/null
dies=
if command -v setpriv >/dev/null; then dies='setpriv --pdeathsig KILL --'; fi
hold() {
  exec 4>&1
  # The substitution ends when the guard is in its session, so that who kills our group does not get both.
  : "$(setsid sh -c '
    exec >&4 4>&- # stays open: who waits for the end of our script waits for us too
    trap "" HUP INT TERM
    after=$1 holder=$2; shift 2
    cat >/dev/null
    kill -TERM "$holder"
    left=150
    while [ -e "/proc/$holder" ] && [ "$left" -gt 0 ]; do sleep 0.1; left=$((left - 1)); done
    kill -KILL "$holder"
    eval "$after"
  ' guard "$1" "$$" "$2" <&3 2>/dev/null &)"
  exec 3<&- 4>&-
}
`;

/** How long a holder has to end; the guard ends it by force after 15 s. */
const CLOSE_MS = 20_000;

/**
 * Starts a holder.
 *
 * @returns what it said last, when it does not get ready in time
 */
export async function startHolder(
  base: Connection,
  argv: readonly string[],
  timeoutMs: number,
): Promise<Holder | { readonly failed: string }> {
  const ready = Promise.withResolvers<string>();
  let said = '';
  const pipe: Pipe = openPipe(base, argv, (chunk, stream) => {
    if (stream === 'stderr' || said.length > 65_536) return;
    said += Buffer.from(chunk).toString('latin1');
    const [, rest] = new RegExp(`^${READY}(.*)\n`, 'm').exec(said) ?? [];
    if (rest !== undefined) ready.resolve(rest.trim());
  });
  const timer = Promise.withResolvers<{ failed: string }>();
  const clock = setTimeout(() => timer.resolve({ failed: `it is not ready after ${timeoutMs} ms` }), timeoutMs);
  const first = await Promise.race([ready.promise, pipe.ended, timer.promise]);
  clearTimeout(clock);
  if (typeof first === 'string') return { ready: first, ended: pipe.ended, close: () => pipe.close(CLOSE_MS) };
  await pipe.close(CLOSE_MS);
  const failed = 'failed' in first ? first.failed : lastWords(first);
  return { failed: `${failed}${said.trim() === '' ? '' : `\n${said.trim().slice(-2000)}`}` };
}
