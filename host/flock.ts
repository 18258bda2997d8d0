/** flock(1), of Debian's package `util-linux`: one process at a time, however it ends. */
import { start } from '../connections/process.ts';

/** Says that the lock is held, and holds it until its standard input ends, which it does when we do. */
const HOLD = 'echo held; exec cat >/dev/null';

/** flock's exit status when the time is up (`--conflict-exit-code`). */
const CONFLICT = 75;

/**
 * Locks a file or folder of this machine until it is disposed, or this process ends.
 *
 * @param waitSeconds - how long to wait for another process
 * @returns undefined when another process had it all the time
 */
export async function lockPath(path: string, waitSeconds: number): Promise<AsyncDisposable | undefined> {
  const argv = ['flock', '--wait', String(waitSeconds), '--conflict-exit-code', String(CONFLICT)];
  const holder = await start([...argv, path, 'sh', '-c', HOLD], { stdin: true });
  for await (const line of holder.stdout) {
    if (line !== 'held') continue;
    return {
      [Symbol.asyncDispose]: async () => {
        holder.endInput();
        await holder.exited;
      },
    };
  }
  const { status } = await holder.exited;
  if (status === CONFLICT) return undefined;
  throw new Error(`Cannot lock ${path}: ${holder.stderr.tail(2).join(' ') || `flock ended with ${status}`}`);
}
