/**
 * Priorities of controllers, `[F]DCBA`: A orders, B also holds back lower ones while a higher one's task runs, F gives a
 * task all CPUs of the host.
 *
 * Left out: C and D, the interruption of lower tasks by higher ones; they order and hold back as A and B do.
 */

/** A controller, as the host's options name it. */
export interface ControllerOption {
  /** 1 to 5 digits. */
  readonly priority: string;
  readonly url: string;
}

/** D, C, B and A as one number: a higher one is asked first. */
export function rank(priority: string): number {
  return Number(priority) % 10_000;
}

/** Whether a task of this priority gets all CPUs. */
export function wantsAllCpus(priority: string): boolean {
  return Number(priority) >= 10_000;
}

/**
 * The controllers to ask, in order: higher first, those of one priority as they were given.
 *
 * @param running - the priorities of the tasks that run now
 */
export function planPoll(
  controllers: readonly ControllerOption[],
  running: readonly string[],
): readonly ControllerOption[] {
  const highest = Math.max(0, ...running.map(level));
  return controllers
    .filter((controller) => level(controller.priority) >= highest)
    .toSorted((a, b) => rank(b.priority) - rank(a.priority));
}

/** What holds back: all digits but A. */
const level = (priority: string): number => Math.floor(rank(priority) / 10);
