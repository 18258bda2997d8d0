/** Says of one property after the other what deploy would do with it; it gets nothing that could change the far side. */
import { CommandError, FileError, HopError } from '../connections/connection.ts';
import { hideSecrets } from './attempt.ts';
import { MissingDataError } from './data.ts';
import type { FarSide } from './far-side.ts';
import {
  FailedChangeError,
  NotReversibleError,
  type PropertyApplication,
  describeApplication,
  findIrreversible,
  readRegistered,
} from './property.ts';
import type { PlanWalk, PlannedProperty } from './walk.ts';

/** Plans at one place. */
export class Planner {
  readonly #at: FarSide;

  constructor(at: FarSide) {
    this.#at = at;
  }

  /** Says what applying would do. */
  async plan(application: PropertyApplication): Promise<readonly PlannedProperty[]> {
    const { type, definition } = readRegistered(application.p);
    await this.#at.ensureFacts(definition, application);
    const planned = { application, description: describeApplication(application), action: 'apply' } as const;
    if (type === 'combinator') {
      return await this.#tryPlan(planned, async () => {
        if (definition.plan !== undefined) return await definition.plan(this.#planWalk(), ...application.a);
        return await each(definition.children(...application.a), (child) => this.plan(child));
      });
    }
    if (definition.apply === undefined) return [{ ...planned, state: 'ok', lines: [] }];
    if (definition.check === undefined) return [{ ...planned, state: 'unknown', lines: [] }];
    return await this.#tryPlan(planned, async () => {
      const host = this.#at.reader(application);
      if ((await definition.check?.(host, ...application.a)) === true) return [{ ...planned, state: 'ok', lines: [] }];
      const lines = (await definition.plan?.(host, ...application.a)) ?? [];
      return [{ ...planned, state: 'change', lines }];
    });
  }

  /** Says what taking back would do. */
  async planUnapplied(application: PropertyApplication): Promise<readonly PlannedProperty[]> {
    const irreversible = findIrreversible(application);
    if (irreversible !== undefined) throw new NotReversibleError(irreversible);
    const { type, definition } = readRegistered(application.p);
    await this.#at.ensureFacts(definition, application);
    const description = `not: ${describeApplication(application)}`;
    const planned = { application, description, action: 'unapply' } as const;
    if (type === 'combinator') {
      return await this.#tryPlan(planned, async () => {
        if (definition.planUnapplied !== undefined) {
          return await definition.planUnapplied(this.#planWalk(), ...application.a);
        }
        return await each(definition.children(...application.a).toReversed(), (child) => this.planUnapplied(child));
      });
    }
    if (definition.unapply === undefined) return [{ ...planned, state: 'ok', lines: [] }];
    return await this.#tryPlan(planned, async () => {
      const gone = await definition.checkUnapplied?.(this.#at.reader(application), ...application.a);
      return [{ ...planned, state: gone === undefined ? 'unknown' : gone ? 'ok' : 'change', lines: [] }];
    });
  }

  /** A line of a plan; what cannot be looked at yet (a program not installed, a password to ask for) is unknown. */
  async #tryPlan(
    planned: Omit<PlannedProperty, 'state' | 'lines'>,
    look: () => Promise<readonly PlannedProperty[]>,
  ): Promise<readonly PlannedProperty[]> {
    const { mask } = this.#at.run.data;
    try {
      return (await look()).map((one) => ({ ...one, lines: one.lines.map((line) => mask.hide(line)) }));
    } catch (error) {
      if (!(error instanceof Error) || !UNKNOWN_YET.some((kind) => error instanceof kind) || this.#at.aborted) {
        throw hideSecrets(error, mask);
      }
      const [reason = ''] = mask.hide(error.message).split('\n');
      return [{ ...planned, state: 'unknown', lines: [reason] }];
    }
  }

  #planWalk(): PlanWalk {
    return {
      host: this.#at.reader(undefined),
      debts: this.#at.debts,
      plan: (child) => this.plan(child),
      planUnapplied: (child) => this.planUnapplied(child),
      atEnd: (key, child) => void this.#at.run.ends.set(key, child),
      through: async (hops) => {
        const there = await this.#at.through(hops);
        return { ...new Planner(there).#planWalk(), [Symbol.asyncDispose]: () => there[Symbol.asyncDispose]() };
      },
      planHost: async (hops, host) => {
        await using there = await this.#at.through(hops);
        return (await this.#at.run.planInner?.(host, there.connection)) ?? [];
      },
    };
  }
}

/** What a plan takes for not knowing yet: a program or user that an earlier property will bring, a password to ask for. */
const UNKNOWN_YET = [CommandError, FileError, HopError, MissingDataError, FailedChangeError] as const;

async function each(
  children: readonly PropertyApplication[],
  plan: (child: PropertyApplication) => Promise<readonly PlannedProperty[]>,
): Promise<readonly PlannedProperty[]> {
  const planned: PlannedProperty[] = [];
  for (const child of children) planned.push(...(await plan(child)));
  return planned;
}
