/**
 * Ctrl-C and SIGTERM as an abort signal, so that a command lets go of what it holds. A second Ctrl-C ends the process at once; what the
 * command started ends with it.
 */
import { constants } from 'node:os';

/** A command was interrupted. */
export class InterruptedError extends Error {
  override readonly name = 'InterruptedError';

  /** As a shell has it: 128 and the number of the signal. */
  readonly exitStatus: number;

  constructor(signal: NodeJS.Signals) {
    super(`Interrupted by ${signal}`);
    this.exitStatus = 128 + constants.signals[signal];
  }
}

/** Listens until disposed. */
export function onInterrupt(): Disposable & { readonly signal: AbortSignal } {
  const controller = new AbortController();
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
  const listener = (signal: NodeJS.Signals): void => {
    if (controller.signal.aborted) process.exit(130);
    controller.abort(new InterruptedError(signal));
  };
  for (const signal of signals) process.on(signal, listener);
  return {
    signal: controller.signal,
    [Symbol.dispose]: () => {
      for (const signal of signals) process.off(signal, listener);
    },
  };
}
