/** The root that packages of a lock make, for all steps of a build that read it: made once, used while it is kept. */
import type { PackageLock } from '../manifests/package-lock.ts';
import { baseRootKey, findOrMakeBaseRoot, mountBaseRoot } from './base-root.ts';
import type { BuildContext } from './build-context.ts';
import { type Archives, withMirror } from './lock.ts';
import { once } from './once.ts';
import type { Store } from './store.ts';

/** Where packages come from. */
export interface PackageOrigin {
  readonly mirror?: string;
  readonly snapshot?: string | undefined;
  readonly archives?: Archives;
}

/** The root of packages, mounted read-only in the workshop when it is first asked for. */
export class PackagesRoot {
  readonly key: string;
  /** Where it is. One that is made here is used at once, while it is put into the cache. */
  readonly folder: () => Promise<string>;
  /** Where it is made, once its kernel modules are indexed; undefined when it is not made here. */
  readonly indexed: () => Promise<string | undefined>;
  readonly #store: Store;
  readonly #given = new AbortController();
  #kept: Promise<unknown> | undefined;

  /** @param what.code - digest of the code that makes it */
  constructor(
    context: BuildContext,
    what: { readonly lock: PackageLock; readonly code: string; readonly from: PackageOrigin },
  ) {
    const { lock, code, from } = what;
    const { signal } = context.signal;
    this.key = baseRootKey(lock, code);
    this.#store = context.store;
    const early = Promise.withResolvers<string>();
    const indexed = Promise.withResolvers<string>();
    this.indexed = async () => {
      // Without modules, or without success: then there is nothing to be done early.
      const over = this.folder().then(() => undefined);
      return await Promise.race([indexed.promise, over]).catch(() => undefined);
    };
    this.folder = once(async () => {
      const made = context.timed('root of packages', () =>
        findOrMakeBaseRoot({
          store: context.store,
          lock: withMirror(lock, from.mirror),
          code,
          workshop: context.workshop,
          ...('snapshot' in from && { snapshot: from.snapshot }),
          offline: from.archives === 'offline',
          signal: AbortSignal.any([this.#given.signal, ...(signal === undefined ? [] : [signal])]),
          onProgress: (line) => context.say(line),
          onStep: (step) => context.step(step),
          onIndexed: indexed.resolve,
          onRoot: early.resolve,
        }),
      );
      this.#kept = made;
      const found = async (): Promise<string> => {
        const { entry, cached } = await made;
        return cached ? await mountBaseRoot(await context.workshop(), entry) : await early.promise;
      };
      return await Promise.race([early.promise, found()]);
    });
  }

  /**
   * Makes it before it is asked for, unless it is in the cache: then it may be that nothing has to be done at all.
   *
   * @returns whether it is made
   */
  async begin(): Promise<boolean> {
    if ((await this.#store.find('roots', this.key)) !== undefined) return false;
    // Who asks for it hears what went wrong.
    this.folder().catch(() => undefined);
    return true;
  }

  /** It is in the cache, if it was asked for. */
  async settled(): Promise<void> {
    await this.#kept;
  }

  /** Nobody will ask for it any more. */
  async abandon(): Promise<void> {
    this.#given.abort();
    await this.settled().catch(() => undefined);
  }
}
