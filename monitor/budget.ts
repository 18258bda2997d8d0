/**
 * The reboot budget: how often a host may reboot for a change before it holds (spec: host, Monitor 4). Pure; the file
 * is read and written in budget-file.ts.
 *
 *     no more than 3 attempts a target      1st at once, 2nd 10 min after it, 3rd 20 min after that, then held
 *     no more than 6 reboots in 24 hours    whatever their targets
 *
 * A target is what the host wants to become: `image <build id>` or `toolchain <name> <list id>`. One reached is taken
 * off its reboots, so going back to an older image later starts afresh; the reboots still count for the day.
 *
 * A host without a durable budget (no state disk, or one that is full or broken) cannot know what it did before, so
 * these numbers mean nothing to it: it would find a fresh budget after each reboot, which is the loop. It goes by what
 * this boot has seen with its own eyes instead: see {@link judgeWithoutMemory}.
 */
import * as z from 'zod';

/** One reboot that was asked for. */
export interface Reboot {
  /** ms since the epoch, by the host's clock */
  readonly atMs: number;
  /** what it was to reach and has not reached yet */
  readonly targets: readonly string[];
}

/** All reboots remembered, oldest first. */
export interface Budget {
  readonly reboots: readonly Reboot[];
}

/** May the host reboot? `wait`: not before `untilMs`. `held`: not for this target; `untilMs` is absent then. */
export type Verdict =
  | { readonly kind: 'go' }
  | { readonly kind: 'wait'; readonly untilMs: number; readonly why: string }
  | { readonly kind: 'held'; readonly why: string };

/** What this boot has seen of a change, counted in looks that got an answer. */
export interface Witness {
  /** looks in a row that found the published state unchanged, before the change came */
  readonly looksBefore: number;
  /** looks in a row that found the change, always the same */
  readonly looksSince: number;
  /** reboots already asked for in this boot */
  readonly rebootsThisBoot: number;
  /** ms since boot */
  readonly uptimeMs: number;
}

const ATTEMPTS_PER_TARGET = 3;
export const REBOOTS_PER_DAY = 6;
export const FIRST_PAUSE_MS: number = 10 * 60_000;
export const DAY_MS: number = 24 * 3_600_000;
/** Looks that must agree before and after a change when there is no durable budget. */
const STEADY_LOOKS = 3;

/** More are never needed: 3 for the target and 6 for the day; the oldest are forgotten. */
const REMEMBERED = 32;

export const EMPTY_BUDGET: Budget = { reboots: [] };

/** The text is no budget. */
export class BudgetError extends Error {
  override readonly name = 'BudgetError';
  readonly hint = 'delete the file, or boot with the state disk checked: fsck, or mkfs with the label buildos.state';
}

/**
 * Judges whether the host may reboot for any of the targets.
 *
 * @param now - ms since the epoch
 */
export function judge(budget: Budget, targets: readonly string[], now: number): Verdict {
  const { reboots } = clampToNow(budget, now);
  const today = reboots.filter((reboot) => reboot.atMs > now - DAY_MS).sort((a, b) => a.atMs - b.atMs);
  const verdicts = targets.map((target) => judgeTarget(reboots, target, now));
  const best = verdicts.find((verdict) => verdict.kind === 'go') ?? earliest(verdicts);
  if (best.kind === 'held') return best;
  const oldest = today.at(-REBOOTS_PER_DAY);
  if (oldest !== undefined) {
    const untilMs = Math.max(oldest.atMs + DAY_MS, best.kind === 'wait' ? best.untilMs : 0);
    return {
      kind: 'wait',
      untilMs,
      why: `${today.length} reboots in the last 24 hours, ${REBOOTS_PER_DAY} are allowed`,
    };
  }
  return best;
}

/**
 * The rule without a durable budget: reboot only for a change that happened before this boot's eyes.
 *
 * - The published state was one thing for {@link STEADY_LOOKS} looks and has been another for as many: mirrors that
 *   disagree and publishers in the middle of their work are not followed. A host that comes up with the old image
 *   again finds the new id at its *first* look, so it has no looks from before, and holds. That is what ends the loop.
 * - One reboot a boot.
 * - A change it did not see happen (published between the download of the image and the first look) is followed after
 *   24 hours of uptime: at worst one reboot a day, on a host that is then out of date anyway.
 *
 * The six a day cannot be kept by who forgets; each reboot answers one act of the publisher, or one day.
 *
 * `untilMs` counts from boot, not from the epoch.
 */
export function judgeWithoutMemory(witness: Witness): Verdict {
  if (witness.rebootsThisBoot > 0) {
    return {
      kind: 'held',
      why: 'a reboot was tried in this boot, and there is no lasting reboot budget to count more',
    };
  }
  if (witness.looksSince < STEADY_LOOKS) {
    const more = STEADY_LOOKS - witness.looksSince;
    return {
      kind: 'wait',
      untilMs: 0,
      why: `no lasting reboot budget: ${more} more ${more === 1 ? 'look' : 'looks'} must find the same`,
    };
  }
  if (witness.looksBefore >= STEADY_LOOKS || witness.uptimeMs >= DAY_MS) return { kind: 'go' };
  return {
    kind: 'wait',
    untilMs: DAY_MS,
    why: 'no lasting reboot budget, and this boot did not see the change happen: it may have been tried already',
  };
}

/** The budget after a reboot for these targets. */
export function recordReboot(budget: Budget, targets: readonly string[], now: number): Budget {
  return { reboots: [...clampToNow(budget, now).reboots, { atMs: now, targets: [...targets] }].slice(-REMEMBERED) };
}

/** The budget once a target is reached: no attempt counts against it any more. */
export function recordReached(budget: Budget, target: string): Budget {
  if (!budget.reboots.some((reboot) => reboot.targets.includes(target))) return budget;
  return {
    reboots: budget.reboots.map((reboot) => ({
      atMs: reboot.atMs,
      targets: reboot.targets.filter((one) => one !== target),
    })),
  };
}

/**
 * The budget with no reboot in the future. A clock that was wrong (a flat battery, no time server yet) would otherwise
 * hold the host for years; a reboot "in the future" counts as one made now.
 */
export function clampToNow(budget: Budget, now: number): Budget {
  if (budget.reboots.every((reboot) => reboot.atMs <= now)) return budget;
  return { reboots: budget.reboots.map((reboot) => ({ ...reboot, atMs: Math.min(reboot.atMs, now) })) };
}

/**
 * Reads a budget.
 *
 * @throws {BudgetError} when the text is not what {@link formatBudget} writes
 */
export function parseBudget(text: string): Budget {
  let data: unknown;
  try {
    data = JSON.parse(text);
  } catch (error) {
    throw new BudgetError('Cannot read the reboot budget: not JSON', { cause: error });
  }
  const result = SCHEMA.safeParse(data);
  if (!result.success) throw new BudgetError(`Cannot read the reboot budget: ${z.prettifyError(result.error)}`);
  return { reboots: result.data.reboots };
}

/** The text of a budget, one reboot a line, with a final newline. */
export function formatBudget(budget: Budget): string {
  const lines = budget.reboots.map((reboot) => `    ${JSON.stringify(reboot)}`);
  return `{\n  "version": 1,\n  "reboots": [${lines.length === 0 ? '' : `\n${lines.join(',\n')}\n  `}]\n}\n`;
}

const SCHEMA = z.object({
  version: z.literal(1),
  reboots: z
    .array(z.object({ atMs: z.int().nonnegative(), targets: z.array(z.string().max(300)).max(64) }))
    .max(10 * REMEMBERED),
});

function judgeTarget(reboots: readonly Reboot[], target: string, now: number): Verdict {
  const attempts = reboots.filter((reboot) => reboot.targets.includes(target));
  const last = attempts.at(-1);
  if (last === undefined) return { kind: 'go' };
  if (attempts.length >= ATTEMPTS_PER_TARGET) {
    return { kind: 'held', why: `${attempts.length} reboots did not reach ${target}` };
  }
  const untilMs = last.atMs + FIRST_PAUSE_MS * 2 ** (attempts.length - 1);
  if (now >= untilMs) return { kind: 'go' };
  return { kind: 'wait', untilMs, why: `reboot ${attempts.length} of ${ATTEMPTS_PER_TARGET} did not reach ${target}` };
}

function earliest(verdicts: readonly Verdict[]): Verdict {
  const waits = verdicts.filter((verdict) => verdict.kind === 'wait').sort((a, b) => a.untilMs - b.untilMs);
  return waits[0] ?? verdicts[0] ?? { kind: 'held', why: 'there is no target' };
}
