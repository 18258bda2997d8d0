/**
 * The engine: looks at one property after the other, and applies, takes back or plans it through a connection.
 *
 * A {@link Run} is what one deploy or plan has in common: the host's static facts, data, debts, what comes at the end. A
 * {@link Work} is that at one place: a property such as `as` goes on at another.
 */
import {
  type Connection,
  type Json,
  type RunOptions,
  CommandError,
  FileError,
  HopError,
} from '../connections/connection.ts';
import { callNative } from '../connections/native.ts';
import { Attempt, type PropertyResult, hideSecrets } from './attempt.ts';
import { learn } from './catalogue.ts';
import { type DataRef, type DataStore, MissingDataError, describeRef } from './data.ts';
import { DebtBook } from './debts.ts';
import { type FactRequest, FactStore } from './facts.ts';
import type { HostAttrs } from './host-attrs.ts';
import type { HostDefinition } from './host-definition.ts';
import { openHops, readSource } from './places.ts';
import { checkReadOnly } from './read-only.ts';
import {
  AbortedChangeError,
  type CombinatorDefinition,
  FailedChangeError,
  type HostReader,
  type HostWriter,
  InapplicablePropertyError,
  NotReversibleError,
  type Outcome,
  type PlanWalk,
  type PlannedProperty,
  type PropertyApplication,
  type PropertyDefinition,
  type Walk,
  checkApplication,
  describeApplication,
  findIrreversible,
  readRegistered,
} from './property.ts';

/** Where one of several stands. */
export interface Place {
  readonly index: number;
  readonly count: number;
}

/** What deploy tells while it works. */
export type DeployProgress =
  | ({ readonly kind: 'started'; readonly description: string; readonly depth: number } & Place)
  | { readonly kind: 'line'; readonly line: string }
  | ({ readonly kind: 'ended'; readonly result: PropertyResult; readonly depth: number } & Place);

/** What one deploy or plan has in common at all places. */
export interface Run {
  readonly attrs: HostAttrs;
  readonly data: DataStore;
  /** Folder on the host for memory and debts. */
  readonly state: string;
  /** Whether a person may be asked for data. */
  readonly mayAsk: boolean;
  readonly signal: AbortSignal | undefined;
  readonly onProgress: (progress: DeployProgress) => void;
  /** What was asked for by `atEnd`, by its key. */
  readonly ends: Map<string, PropertyApplication>;
  /** Deploys another host at another place; given by deploy.ts, which knows how. */
  readonly deployInner?: (host: HostDefinition, at: Connection) => Promise<readonly PropertyResult[]>;
  /** Plans another host at another place; given by plan.ts. */
  readonly planInner?: (host: HostDefinition, at: Connection) => Promise<readonly PlannedProperty[]>;
}

type AnyDefinition = PropertyDefinition<readonly Json[]> | CombinatorDefinition<readonly Json[]>;

/** A run at one place. */
export class Work {
  /** What is still to come: facts for all of it are gathered together. */
  pending: readonly PropertyApplication[] = [];
  readonly facts: FactStore;
  readonly debts: DebtBook;
  readonly #run: Run;
  readonly #connection: Connection;
  #live: Promise<boolean> | undefined;
  #contained: Promise<boolean> | undefined;

  /** @param debts - of the host, when this is another place of a host that has them */
  constructor(run: Run, connection: Connection, debts?: DebtBook) {
    this.#run = run;
    this.#connection = connection;
    const signal = run.signal === undefined ? {} : { signal: run.signal };
    const command: Connection['run'] = (argv, options) => connection.run(argv, { ...signal, ...options });
    this.facts = new FactStore(command);
    this.debts = debts ?? new DebtBook(run.state, command);
  }

  /** Whether anything of what is to come writes debts; without, nothing has to be looked up for them. */
  needsDebts(): boolean {
    return this.pending.some(hasDebts);
  }

  /** Looks up what earlier runs owe, with the facts of what is to come and `also`; what they owe at the end is taken over. */
  async loadDebts(also: readonly FactRequest[]): Promise<void> {
    await this.facts.ensure([...this.debts.wants, ...also], this.pending.flatMap(factsOf));
    const ends = await this.debts.load(this.facts);
    await learn([...ends.values()]);
    for (const [key, application] of ends) {
      if (isKnown(application)) this.#run.ends.set(key, application);
    }
  }

  /** Applies (or takes back) a property of the top level: what it throws is in the result. */
  async top(application: PropertyApplication, place: Place, action: 'apply' | 'unapply'): Promise<PropertyResult> {
    const attempt = new Attempt(application, this.#run.data.mask, action);
    this.#run.onProgress({ kind: 'started', description: attempt.description, depth: 0, ...place });
    let result: PropertyResult;
    if (this.aborted) result = attempt.end('skipped');
    else {
      try {
        const outcome =
          action === 'apply'
            ? await this.#apply(application, attempt, 0)
            : await this.#unapply(application, attempt, 0);
        result = attempt.end(outcome === 'changed' ? 'changed' : 'ok');
      } catch (error) {
        result = attempt.fail(error, this.aborted);
      }
    }
    this.#run.onProgress({ kind: 'ended', result, depth: 0, ...place });
    return result;
  }

  /** Says what applying would do. */
  async plan(application: PropertyApplication): Promise<readonly PlannedProperty[]> {
    const { type, definition } = readRegistered(application.p);
    await this.#ensureFacts(definition, application);
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
      const host = this.#reader(application);
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
    await this.#ensureFacts(definition, application);
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
      const gone = await definition.checkUnapplied?.(this.#reader(application), ...application.a);
      return [{ ...planned, state: gone === undefined ? 'unknown' : gone ? 'ok' : 'change', lines: [] }];
    });
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
    await this.#ensureFacts(definition, application);
    return await definition.check(this.#reader(application), ...application.a);
  }

  get aborted(): boolean {
    return this.#run.signal?.aborted === true;
  }

  /** A line of a plan; what cannot be looked at yet (a program not installed, a password to ask for) is unknown. */
  async #tryPlan(
    planned: Omit<PlannedProperty, 'state' | 'lines'>,
    look: () => Promise<readonly PlannedProperty[]>,
  ): Promise<readonly PlannedProperty[]> {
    const { mask } = this.#run.data;
    try {
      return (await look()).map((one) => ({ ...one, lines: one.lines.map((line) => mask.hide(line)) }));
    } catch (error) {
      if (!(error instanceof Error) || !UNKNOWN_YET.some((kind) => error instanceof kind) || this.aborted) {
        throw hideSecrets(error, mask);
      }
      const [reason = ''] = mask.hide(error.message).split('\n');
      return [{ ...planned, state: 'unknown', lines: [reason] }];
    }
  }

  async #apply(application: PropertyApplication, attempt: Attempt, depth: number): Promise<Outcome> {
    const { type, definition } = readRegistered(application.p);
    await this.#ensureFacts(definition, application);
    if (type === 'combinator')
      return await definition.apply(this.#walk(application, attempt, depth + 1), ...application.a);
    if (definition.apply === undefined) return 'no-change';
    if ((await definition.check?.(this.#reader(application), ...application.a)) === true) return 'no-change';
    const host = this.#writer(application);
    return await this.#change(definition, application, async () => await definition.apply?.(host, ...application.a));
  }

  async #unapply(application: PropertyApplication, attempt: Attempt, depth: number): Promise<Outcome> {
    const { type, definition } = readRegistered(application.p);
    const irreversible = findIrreversible(application);
    if (irreversible !== undefined) throw new NotReversibleError(irreversible);
    await this.#ensureFacts(definition, application);
    if (type === 'combinator') {
      return (await definition.unapply?.(this.#walk(application, attempt, depth + 1), ...application.a)) ?? 'no-change';
    }
    if (definition.unapply === undefined) return 'no-change';
    if ((await definition.checkUnapplied?.(this.#reader(application), ...application.a)) === true) return 'no-change';
    const host = this.#writer(application);
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
        this.facts.forgetFiles(own.flatMap((request) => (request.fact === 'packages' ? [] : [request.path])));
      } else {
        this.facts.forgetAll();
      }
    }
  }

  #walk(owner: PropertyApplication, parent: Attempt, depth: number): Walk {
    const { mask } = this.#run.data;
    const step = async (child: PropertyApplication, action: 'apply' | 'unapply'): Promise<Outcome> => {
      const attempt = new Attempt(child, mask, action);
      if (this.aborted) {
        parent.children.push(attempt.end('skipped'));
        throw new AbortedChangeError('The work was aborted', { cause: this.#run.signal?.reason });
      }
      const place = { index: parent.children.length, count: 0 };
      // Held open, so that children that run at the same time keep their order.
      const slot = parent.children.push(attempt.end('skipped')) - 1;
      this.#run.onProgress({ kind: 'started', description: attempt.description, depth, ...place });
      let result: PropertyResult | undefined;
      try {
        const outcome =
          action === 'apply' ? await this.#apply(child, attempt, depth) : await this.#unapply(child, attempt, depth);
        result = attempt.end(outcome === 'changed' ? 'changed' : 'ok');
        return outcome;
      } catch (error) {
        result = attempt.fail(error, this.aborted);
        throw error;
      } finally {
        if (result !== undefined) {
          parent.children[slot] = result;
          this.#run.onProgress({ kind: 'ended', result, depth, ...place });
        }
      }
    };
    const aborted = (): boolean => this.aborted;
    return {
      apply: (child) => step(child, 'apply'),
      unapply: (child) => step(child, 'unapply'),
      holds: (child) => this.holds(child),
      skip: (child) => void parent.children.push(new Attempt(child, mask, 'apply').end('skipped')),
      atEnd: async (key, child) => {
        await this.debts.oweEnd(key, child);
        this.#run.ends.set(key, child);
      },
      debts: this.debts,
      through: async (hops) => {
        const opened = await openHops(this.#connection, hops);
        const inner = new Work(this.#run, opened, this.debts);
        // What is done over there may be anything here.
        const leave = async (): Promise<void> => {
          this.facts.forgetAll();
          await opened[Symbol.asyncDispose]();
        };
        return { ...inner.#walk(owner, parent, depth), [Symbol.asyncDispose]: leave };
      },
      deploy: async (hops, host) => {
        await using opened = await openHops(this.#connection, hops);
        const results = (await this.#run.deployInner?.(host, opened)) ?? [];
        parent.children.push(...results);
        this.facts.forgetAll();
        const bad = results.find(({ outcome }) => outcome === 'failed' || outcome === 'aborted');
        if (bad !== undefined) throw bad.error ?? new FailedChangeError(`Cannot deploy "${host.name}"`);
        return results.some(({ outcome }) => outcome === 'changed') ? 'changed' : 'no-change';
      },
      get aborted() {
        return aborted();
      },
      host: this.#writer(owner),
    };
  }

  #planWalk(): PlanWalk {
    return {
      host: this.#reader(undefined),
      debts: this.debts,
      plan: (child) => this.plan(child),
      planUnapplied: (child) => this.planUnapplied(child),
      atEnd: (key, child) => void this.#run.ends.set(key, child),
      through: async (hops) => {
        const opened = await openHops(this.#connection, hops);
        const inner = new Work(this.#run, opened, this.debts).#planWalk();
        return { ...inner, [Symbol.asyncDispose]: () => opened[Symbol.asyncDispose]() };
      },
      planHost: async (hops, host) => {
        await using opened = await openHops(this.#connection, hops);
        return (await this.#run.planInner?.(host, opened)) ?? [];
      },
    };
  }

  /** What a check of this application gets: nothing in it can change the host. */
  #reader(application: PropertyApplication | undefined): HostReader {
    const signal = this.#run.signal === undefined ? {} : { signal: this.#run.signal };
    return {
      facts: this.facts,
      attrs: this.#run.attrs,
      run: async (argv, options) => {
        checkReadOnly(argv);
        return await this.#connection.run(argv, { ...signal, ...options });
      },
      readFile: (path) => this.#connection.readFile(path),
      isLive: () => (this.#live ??= this.#looks('test -d /run/systemd/system')),
      isContained: () => (this.#contained ??= this.#looks(CONTAINED_SCRIPT)),
      data: (ref) => this.#data(application, ref),
    };
  }

  #writer(application: PropertyApplication): HostWriter {
    const { mask } = this.#run.data;
    const signal = this.#run.signal === undefined ? {} : { signal: this.#run.signal };
    const run = async (argv: readonly string[], options: RunOptions = {}): ReturnType<HostWriter['run']> => {
      const open = [...argv, ...Object.values(options.env ?? {}), options.cwd ?? ''];
      if (open.some((word) => mask.isIn(word))) {
        throw new TypeError(
          `${application.p} would show a secret in the arguments of a program; it goes to its stdin only`,
        );
      }
      return await this.#connection.run(argv, { ...signal, ...options });
    };
    return {
      ...this.#reader(application),
      run,
      writeFile: (path, content, options) => this.#connection.writeFile(path, content, options),
      readSource,
      call: (native, ...args) => callNative(this.#connection, native, ...args),
      progress: (line) => this.#run.onProgress({ kind: 'line', line: mask.hide(line) }),
    };
  }

  async #data(application: PropertyApplication | undefined, ref: DataRef): ReturnType<HostReader['data']> {
    const registered = application === undefined ? undefined : readRegistered(application.p);
    const asked =
      application !== undefined && registered?.type === 'property'
        ? (registered.definition.data?.(...application.a) ?? [])
        : [];
    if (!asked.some((one) => describeRef(one) === describeRef(ref))) {
      throw new TypeError(`${application?.p ?? 'A combinator'} did not ask for the data ${describeRef(ref)}`);
    }
    return await this.#run.data.read(ref, this.#run.mayAsk);
  }

  async #ensureFacts(definition: AnyDefinition, application: PropertyApplication): Promise<void> {
    const wanted = definition.facts?.(...application.a) ?? [];
    if (wanted.length > 0) await this.facts.ensure(wanted, this.pending.flatMap(factsOf));
  }

  async #looks(script: string): Promise<boolean> {
    return (await this.#connection.run(['sh', '-c', script], { okStatus: 'any' })).status === 0;
  }
}

/**
 * Status 0 inside of something: a container says so in /run or is known by a file; in a chroot the root is another one
 * than that of process 1.
 */
const CONTAINED_SCRIPT = `
for sign in /run/systemd/container /run/host/container-manager /run/.containerenv /.dockerenv /run/buildos-chroot; do
  [ -e $sign ] && exit 0
done
[ -d /run/systemd/system ] && exit 1
[ -e /proc/1/root/. ] && ! [ /proc/1/root/. -ef /. ]
`;

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

function factsOf(application: PropertyApplication): readonly FactRequest[] {
  const { type, definition } = readRegistered(application.p);
  const own = definition.facts?.(...application.a) ?? [];
  return type === 'property' ? own : [...own, ...definition.children(...application.a).flatMap(factsOf)];
}

function hasDebts({ p, a }: PropertyApplication): boolean {
  const { type, definition } = readRegistered(p);
  return type === 'combinator' && (definition.owes === true || definition.children(...a).some(hasDebts));
}

/** Whether an application that was read can be applied by this version. */
function isKnown(application: PropertyApplication): boolean {
  try {
    checkApplication(application);
    return true;
  } catch (error) {
    if (error instanceof TypeError) return false;
    throw error;
  }
}

/**
 * Refuses what needs our JavaScript where there is only a shell.
 *
 * @throws {InapplicablePropertyError}
 */
export function checkKind(application: PropertyApplication, kind: Connection['kind']): void {
  const { type, definition } = readRegistered(application.p);
  if (type === 'combinator') {
    for (const child of definition.children(...application.a)) checkKind(child, kind);
  } else if (definition.kind === 'native' && kind !== 'native') {
    throw new InapplicablePropertyError(
      `Cannot apply "${application.p}": it needs our JavaScript at the far end, and there is a shell only`,
    );
  }
}
