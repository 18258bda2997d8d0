/**
 * The reboot budget on the state disk. A budget that cannot be trusted to be there after a reboot is no budget: then
 * `budget` is absent and the host goes by the rule of {@link judgeWithoutMemory}.
 */
import { readFile, rename, stat, statfs } from 'node:fs/promises';
import { dirname } from 'node:path';
import { writeAtomically } from './atomic-file.ts';
import { type Budget, EMPTY_BUDGET, clampToNow, formatBudget, parseBudget } from './budget.ts';
import type { Paths } from './paths.ts';

/** linux/magic.h: file systems that forget. */
const FORGETFUL = new Set([0x01021994 /* TMPFS_MAGIC */, 0x858458f6 /* RAMFS_MAGIC */, 0x794c7630 /* OVERLAYFS */]);

/** What was found. */
export interface LoadedBudget {
  readonly stateStorage: 'disk' | 'ram';
  readonly budget?: Budget;
  /** why there is none although there is a disk, or what was wrong with it */
  readonly problem?: string;
}

/** Whether `/state` is a disk: a mount of its own whose file system does not forget. */
export async function findStateStorage(paths: Paths): Promise<'disk' | 'ram'> {
  try {
    const [here, above] = await Promise.all([stat(paths.state), stat(dirname(paths.state))]);
    if (here.dev === above.dev) return 'ram';
    return FORGETFUL.has((await statfs(paths.state)).type) ? 'ram' : 'disk';
  } catch {
    return 'ram';
  }
}

/**
 * Reads the budget and makes sure that it can be written, by writing it.
 *
 * - No file: a first boot with this disk; an empty budget.
 * - A broken file: what it said is lost, so this boot has no budget; the file is moved aside and an empty one written,
 *   so that the next boot counts again.
 * - A disk that is full, read-only or failing: no budget.
 *
 * @param now - ms since the epoch
 */
export async function loadBudget(paths: Paths, stateStorage: 'disk' | 'ram', now: number): Promise<LoadedBudget> {
  if (stateStorage === 'ram') return { stateStorage };
  let budget = EMPTY_BUDGET;
  let problem: string | undefined;
  try {
    budget = clampToNow(parseBudget(await readFile(paths.budget, 'utf8')), now);
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') problem = messageOf(error);
  }
  try {
    if (problem !== undefined) await rename(paths.budget, `${paths.budget}.broken`).catch(() => undefined);
    await saveBudget(paths, budget);
  } catch (error) {
    return { stateStorage, problem: `${messageOf(error)}; ${RULE}` };
  }
  if (problem !== undefined) return { stateStorage, problem: `${problem} (moved aside); ${RULE}` };
  return { stateStorage, budget };
}

/**
 * Writes the budget and reads it back.
 *
 * @throws {Error} when it is not on the disk for sure
 */
export async function saveBudget(paths: Paths, budget: Budget): Promise<void> {
  const content = formatBudget(budget);
  try {
    await writeAtomically(paths.budget, content, { isDurable: true });
    if ((await readFile(paths.budget, 'utf8')) !== content) throw new Error('it reads back differently');
  } catch (cause) {
    throw new Error(`Cannot save the reboot budget in ${paths.budget}: ${messageOf(cause)}`, { cause });
  }
}

const RULE = 'until the next boot only changes seen to happen are followed';

function codeOf(error: unknown): unknown {
  return error instanceof Error && 'code' in error ? error.code : undefined;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
