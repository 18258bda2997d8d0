/**
 * Who is at work in a work folder: builds, which may use anything in it, or a prune, which takes things away; never both.
 *
 * Each makes a mark, `<work>/tmp/build.PID.START` or `prune.PID.START`, and only then looks for marks of the other kind. So of two
 * that begin at the same moment at least one sees the other: a prune steps back, a build waits. A process that was killed
 * leaves its mark, which counts no more as there is no such process, with that time of its start.
 */
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

/** A prune takes seconds; one that takes longer than this hangs. */
const PATIENCE_MS = 60_000;
const LOOK_AGAIN_MS = 50;

/** Somebody else is at work in the folder. */
export class BusyError extends Error {
  override readonly name = 'BusyError';
  readonly hint: string;

  constructor(message: string, hint: string) {
    super(message);
    this.hint = hint;
  }
}

/** Marks a build, or what else reads a work folder, until it is disposed. @throws {BusyError} when a prune hangs */
export async function announceBuild(work: string): Promise<AsyncDisposable> {
  const mark = await announce(work, 'build');
  const deadline = performance.now() + PATIENCE_MS;
  for (;;) {
    const [pid] = await whoElse(work, 'prune');
    if (pid === undefined) return mark;
    if (performance.now() > deadline) {
      await mark[Symbol.asyncDispose]();
      throw new BusyError(
        `Cannot build in ${work}: process ${pid} has been pruning it for ${PATIENCE_MS / 1000} s`,
        `look at it with "ps ${pid}"; build again when it is done`,
      );
    }
    await sleep(LOOK_AGAIN_MS);
  }
}

/** Marks what only reads a work folder, such as publishing; who may not write there goes without a mark. */
export async function announceReader(work: string): Promise<AsyncDisposable> {
  try {
    return await announceBuild(work);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (code !== 'EACCES' && code !== 'EROFS' && code !== 'EPERM') throw error;
    return { [Symbol.asyncDispose]: async () => await Promise.resolve() };
  }
}

/** Marks a prune until it is disposed. @throws {BusyError} while a build runs */
export async function announcePrune(work: string): Promise<AsyncDisposable> {
  const mark = await announce(work, 'prune');
  const [pid] = await whoElse(work, 'build');
  if (pid === undefined) return mark;
  await mark[Symbol.asyncDispose]();
  throw new BusyError(
    `Cannot prune ${work}: process ${pid} works in it (a build, or another command on images)`,
    'prune again when it is done; nothing was removed',
  );
}

type Kind = 'build' | 'prune';

async function announce(work: string, kind: Kind): Promise<AsyncDisposable> {
  const folder = join(work, 'tmp');
  await mkdir(folder, { recursive: true });
  const mark = join(folder, `${kind}.${process.pid}.${await startOf(process.pid)}.${(count += 1)}`);
  await writeFile(mark, '');
  return { [Symbol.asyncDispose]: async () => await rm(mark, { force: true }) };
}

/** Builds of one process each have a mark. */
let count = 0;

/** Processes with a mark of a kind; marks of those that are gone are removed. */
async function whoElse(work: string, kind: Kind): Promise<readonly number[]> {
  const found: number[] = [];
  for (const name of await readdir(join(work, 'tmp'))) {
    const [, ofKind, pid = '', start] = /^(build|prune)\.(\d+)\.(\d+)\.\d+$/.exec(name) ?? [];
    if (ofKind === undefined) continue;
    if ((await startOf(Number(pid))) !== start) await rm(join(work, 'tmp', name), { force: true });
    else if (ofKind === kind) found.push(Number(pid));
  }
  return found;
}

/** When a process was started, in clock ticks since the machine was (proc_pid_stat(5), field 22); undefined: there is none. */
async function startOf(pid: number): Promise<string | undefined> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined);
  // The second field is the name of the program, in parentheses, and may hold anything.
  return stat?.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
}
