/** Looks at one property after the other, and applies it or takes it back. */
import type { Json } from '../connections/connection.ts';
import { Attempt, type PropertyResult } from './attempt.ts';
import type { FarSide } from './far-side.ts';
import {
  AbortedChangeError,
  FailedChangeError,
  NotReversibleError,
  type Outcome,
  type PropertyApplication,
  type PropertyDefinition,
  findIrreversible,
  readRegistered,
} from './property.ts';
import type { Walk } from './walk.ts';
import type { Place } from './run.ts';

/** Works at one place. */
export class Work {
  readonly #at: FarSide;

  constructor(at: FarSide) {
    this.#at = at;
  }

  /** Applies (or takes back) a property of the top level: what it throws is in the result. */
  async top(application: PropertyApplication, place: Place, action: 'apply' | 'unapply'): Promise<PropertyResult> {
    const attempt = new Attempt(application, this.#at.run.data.mask, action);
    this.#at.run.onProgress({ kind: 'started', description: attempt.description, depth: 0, ...place });
    let result: PropertyResult;
    if (this.#at.aborted) result = attempt.end('skipped');
    else {
      try {
        const outcome =
          action === 'apply'
            ? await this.#apply(application, attempt, 0)
            : await this.#unapply(application, attempt, 0);
        result = attempt.end(outcome === 'changed' ? 'changed' : 'ok');
      } catch (error) {
        result = attempt.fail(error, this.#at.aborted);
      }
    }
    this.#at.run.onProgress({ kind: 'ended', result, depth: 0, ...place });
    return result;
  }

  /** Whether an application surely holds already. */
  async holds(application: PropertyApplication): Promise<boolean> {
    const { type, definition } = readRegistered(application.p);
    if (type === 'combinator') {
      if (definition.transparent !== true) return false;
      for (const child of definition.children(...application.a)) if (!(await this.holds(child))) return false;
      return true;
    }
    if (definition.apply === undefined) return true;
    if (definition.check === undefined) return false;
    await this.#at.ensureFacts(definition, application);
    return await definition.check(this.#at.reader(application), ...application.a);
  }

  async #apply(application: PropertyApplication, attempt: Attempt, depth: number): Promise<Outcome> {
    const { type, definition } = readRegistered(application.p);
    await this.#at.ensureFacts(definition, application);
    if (type === 'combinator')
      return await definition.apply(this.#walk(application, attempt, depth + 1), ...application.a);
    if (definition.apply === undefined) return 'no-change';
    if ((await definition.check?.(this.#at.reader(application), ...application.a)) === true) return 'no-change';
    const host = this.#at.writer(application);
    return await this.#change(definition, application, async () => await definition.apply?.(host, ...application.a));
  }

  async #unapply(application: PropertyApplication, attempt: Attempt, depth: number): Promise<Outcome> {
    const { type, definition } = readRegistered(application.p);
    const irreversible = findIrreversible(application);
    if (irreversible !== undefined) throw new NotReversibleError(irreversible);
    await this.#at.ensureFacts(definition, application);
    if (type === 'combinator') {
      return (await definition.unapply?.(this.#walk(application, attempt, depth + 1), ...application.a)) ?? 'no-change';
    }
    if (definition.unapply === undefined) return 'no-change';
    if ((await definition.checkUnapplied?.(this.#at.reader(application), ...application.a)) === true)
      return 'no-change';
    const host = this.#at.writer(application);
    return await this.#change(definition, application, async () => await definition.unapply?.(host, ...application.a));
  }

  /** Runs what may change the host; afterwards, also after a failure, what it may have made untrue is forgotten. */
  async #change(
    definition: PropertyDefinition<readonly Json[]>,
    application: PropertyApplication,
    action: () => Promise<Outcome | void>,
  ): Promise<Outcome> {
    try {
      return (await action()) ?? 'changed';
    } finally {
      if (definition.touches === 'own-files') {
        const own = definition.facts?.(...application.a) ?? [];
        this.#at.facts.forgetFiles(own.flatMap((request) => (request.fact === 'packages' ? [] : [request.path])));
      } else {
        this.#at.facts.forgetAll();
      }
    }
  }

  #walk(owner: PropertyApplication, parent: Attempt, depth: number): Walk {
    const { mask } = this.#at.run.data;
    const step = async (child: PropertyApplication, action: 'apply' | 'unapply'): Promise<Outcome> => {
      const attempt = new Attempt(child, mask, action);
      if (this.#at.aborted) {
        parent.children.push(attempt.end('skipped'));
        throw new AbortedChangeError('The work was aborted', { cause: this.#at.run.signal?.reason });
      }
      const place = { index: parent.children.length, count: 0 };
      // Held open, so that children that run at the same time keep their order.
      const slot = parent.children.push(attempt.end('skipped')) - 1;
      this.#at.run.onProgress({ kind: 'started', description: attempt.description, depth, ...place });
      let result: PropertyResult | undefined;
      try {
        const outcome =
          action === 'apply' ? await this.#apply(child, attempt, depth) : await this.#unapply(child, attempt, depth);
        result = attempt.end(outcome === 'changed' ? 'changed' : 'ok');
        return outcome;
      } catch (error) {
        result = attempt.fail(error, this.#at.aborted);
        throw error;
      } finally {
        if (result !== undefined) {
          parent.children[slot] = result;
          this.#at.run.onProgress({ kind: 'ended', result, depth, ...place });
        }
      }
    };
    const aborted = (): boolean => this.#at.aborted;
    return {
      apply: (child) => step(child, 'apply'),
      unapply: (child) => step(child, 'unapply'),
      holds: (child) => this.holds(child),
      skip: (child) => void parent.children.push(new Attempt(child, mask, 'apply').end('skipped')),
      atEnd: async (key, child) => {
        await this.#at.debts.oweEnd(key, child);
        this.#at.run.ends.set(key, child);
      },
      debts: this.#at.debts,
      through: async (hops) => {
        const there = await this.#at.through(hops);
        // What is done over there may be anything here.
        const leave = async (): Promise<void> => {
          this.#at.facts.forgetAll();
          await there[Symbol.asyncDispose]();
        };
        return { ...new Work(there).#walk(owner, parent, depth), [Symbol.asyncDispose]: leave };
      },
      deploy: async (hops, host) => {
        await using there = await this.#at.through(hops);
        const results = (await this.#at.run.deployInner?.(host, there.connection)) ?? [];
        parent.children.push(...results);
        this.#at.facts.forgetAll();
        const bad = results.find(({ outcome }) => outcome === 'failed' || outcome === 'aborted');
        if (bad !== undefined) throw bad.error ?? new FailedChangeError(`Cannot deploy "${host.name}"`);
        return results.some(({ outcome }) => outcome === 'changed') ? 'changed' : 'no-change';
      },
      get aborted() {
        return aborted();
      },
      host: this.#at.writer(owner),
    };
  }
}
