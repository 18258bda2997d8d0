/** What the steps of a build have in common. */
import type { Store } from './store.ts';
import type { Workshop } from './workshop.ts';

/** Given to every step. */
export interface BuildContext {
  readonly store: Store;
  readonly signal: { readonly signal?: AbortSignal };
  /** Opened when it is first asked for. */
  readonly workshop: () => Promise<Workshop>;
  /** Undefined when nobody has asked for it. */
  readonly openedWorkshop: () => Workshop | undefined;
  say(line: string): void;
  /** A step begins that is not in the cache. */
  step(name: string): void;
  /** Notes how long it takes. */
  timed<T extends { readonly cached: boolean }>(name: string, act: () => Promise<T>): Promise<T>;
}
