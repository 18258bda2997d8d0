/** Performs the steps of plan.ts: one exhaustive switch, no choices. */
import { type Connection, CommandError, text } from '../connections/connection.ts';
import type { BootStep } from '../host/host-json.ts';
import { mountAll } from '../host/mount.ts';
import { BUSYBOX } from './layout.ts';
import { type Action, type Folder, InitError, type Step } from './step.ts';

const FOLDERS_TIMEOUT_MS = 30_000;
/** 1 GB at 10 MB/s, and some. */
const DIGEST_TIMEOUT_MS = 180_000;

/** Three words a folder: mode, owner, path. */
const MAKE_FOLDERS = `
while [ $# -ge 3 ]; do
  "$0" mkdir -p "$3" && "$0" chown "$2" "$3" && "$0" chmod "$1" "$3" || exit
  shift 3
done`;

/** What run() uses besides the connection. */
export interface RunOptions {
  /** Milliseconds since the kernel started. */
  readonly nowMs: () => number;
  /** Told after each step. */
  readonly onStep: (step: Step, timing: BootStep) => void;
}

/**
 * Performs steps in order.
 *
 * @throws {InitError} of the first step that fails; nothing is undone
 */
export async function run(steps: readonly Step[], on: Connection, options: RunOptions): Promise<void> {
  for (const step of steps) {
    const startMs = options.nowMs();
    try {
      for (const action of step.actions) await perform(action, on);
    } catch (error) {
      if (error instanceof InitError) throw error;
      throw new InitError(step.name, reasonOf(error), { hint: step.hint, cause: error });
    }
    options.onStep(step, { name: step.name, startMs, endMs: options.nowMs() });
  }
}

async function perform(action: Action, on: Connection): Promise<void> {
  switch (action.kind) {
    case 'mount':
      return await mountAll(on, action.mounts, { busybox: BUSYBOX });
    case 'check-digest':
      return await checkDigest(action, on);
    case 'make-folders':
      return await makeFolders(action.folders, on);
    case 'write-file':
      await on.writeFile(action.path, action.content, { mode: action.mode });
      if (action.owner !== undefined) {
        await on.run([BUSYBOX, 'chown', `${action.owner.uid}:${action.owner.gid}`, action.path], {
          timeoutMs: FOLDERS_TIMEOUT_MS,
        });
      }
      return undefined;
  }
}

async function makeFolders(folders: readonly Folder[], on: Connection): Promise<void> {
  const words = folders.flatMap(({ path, mode, owner }) => [mode.toString(8), `${owner.uid}:${owner.gid}`, path]);
  await on.run([BUSYBOX, 'sh', '-c', MAKE_FOLDERS, BUSYBOX, ...words], { timeoutMs: FOLDERS_TIMEOUT_MS });
}

async function checkDigest(action: { readonly file: string; readonly sha256: string }, on: Connection): Promise<void> {
  const said = text(await on.run([BUSYBOX, 'sha256sum', action.file], { timeoutMs: DIGEST_TIMEOUT_MS }));
  const found = said.slice(0, 64);
  if (found === action.sha256) return;
  throw new Error(`${action.file} is damaged: its SHA-256 is ${found}, it should be ${action.sha256}`);
}

/** What the program said rather than the script that ran it, which nobody wants to read on a console. */
function reasonOf(error: unknown): string {
  if (error instanceof CommandError && error.failure === 'status') {
    const said = Buffer.from(error.stderr).toString('utf8').trim();
    if (said !== '') return said;
  }
  return error instanceof Error ? error.message : String(error);
}
