/**
 * The far side of one connection during a run, as properties see it: what is known of it (facts, debts), and what a check
 * or a change may do there.
 */
import { HAS_SERVICES, lookUp } from '../connections/attributes.ts';
import type { Connection, Hop, Json, RunOptions } from '../connections/connection.ts';
import { callNative } from '../connections/native.ts';
import { learn } from './catalogue.ts';
import { type DataRef, describeRef } from './data.ts';
import { DebtBook } from './debts.ts';
import { type FactRequest, FactStore } from './facts.ts';
import { openHops, readSource } from './places.ts';
import { checkReadOnly } from './read-only.ts';
import {
  type HostReader,
  type HostWriter,
  type PropertyApplication,
  type PropertyDefinition,
  readRegistered,
} from './property.ts';
import type { CombinatorDefinition } from './walk.ts';
import type { Run } from './run.ts';
import { factsOf, hasDebts, isKnown } from './tree.ts';

type AnyDefinition = PropertyDefinition<readonly Json[]> | CombinatorDefinition<readonly Json[]>;

/** A run at one place. */
export class FarSide {
  /** What is still to come: facts for all of it are gathered together. */
  pending: readonly PropertyApplication[] = [];
  readonly facts: FactStore;
  readonly debts: DebtBook;
  readonly run: Run;
  readonly connection: Connection;
  #contained: Promise<boolean> | undefined;

  /** @param debts - of the host, when this is another place of a host that has them */
  constructor(run: Run, connection: Connection, debts?: DebtBook) {
    this.run = run;
    this.connection = connection;
    const signal = run.signal === undefined ? {} : { signal: run.signal };
    const command: Connection['run'] = (argv, options) => connection.run(argv, { ...signal, ...options });
    this.facts = new FactStore(command);
    this.debts = debts ?? new DebtBook(run.state, command);
  }

  get aborted(): boolean {
    return this.run.signal?.aborted === true;
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
      if (isKnown(application)) this.run.ends.set(key, application);
    }
  }

  /** Sees to it that what a definition wants to know is known. */
  async ensureFacts(definition: AnyDefinition, application: PropertyApplication): Promise<void> {
    const wanted = definition.facts?.(...application.a) ?? [];
    if (wanted.length > 0) await this.facts.ensure(wanted, this.pending.flatMap(factsOf));
  }

  /** The same run behind more hops; disposing lets go of these only. */
  async through(hops: readonly Hop[]): Promise<FarSide & AsyncDisposable> {
    const opened = await openHops(this.connection, hops);
    return Object.assign(new FarSide(this.run, opened, this.debts), {
      [Symbol.asyncDispose]: () => opened[Symbol.asyncDispose](),
    });
  }

  /** What a check of this application gets: nothing in it can change the host. */
  reader(application: PropertyApplication | undefined): HostReader {
    const { run } = this;
    const signal = run.signal === undefined ? {} : { signal: run.signal };
    return {
      ...this.#common(application),
      get attrs() {
        return run.attrs;
      },
      run: async (argv, options) => {
        checkReadOnly(argv);
        return await this.connection.run(argv, { ...signal, ...options });
      },
    };
  }

  /** What a change gets. */
  writer(application: PropertyApplication): HostWriter {
    const { run } = this;
    const { mask } = run.data;
    const signal = run.signal === undefined ? {} : { signal: run.signal };
    return {
      ...this.#common(application),
      get attrs() {
        return run.attrs;
      },
      run: async (argv: readonly string[], options: RunOptions = {}) => {
        const open = [...argv, ...Object.values(options.env ?? {}), options.cwd ?? ''];
        if (open.some((word) => mask.isIn(word))) {
          throw new TypeError(
            `${application.p} would show a secret in the arguments of a program; it goes to its stdin only`,
          );
        }
        return await this.connection.run(argv, { ...signal, ...options });
      },
      writeFile: (path, content, options) => this.connection.writeFile(path, content, options),
      readSource,
      call: (native, ...args) => callNative(this.connection, native, ...args),
      progress: (line) => run.onProgress({ kind: 'line', line: mask.hide(line) }),
    };
  }

  #common(application: PropertyApplication | undefined): Omit<HostReader, 'attrs' | 'run'> {
    return {
      facts: this.facts,
      readFile: (path) => this.connection.readFile(path),
      isLive: () => lookUp(this.connection, HAS_SERVICES),
      isContained: () => (this.#contained ??= this.#isContained()),
      data: (ref) => this.#data(application, ref),
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
    return await this.run.data.read(ref, this.run.mayAsk);
  }

  async #isContained(): Promise<boolean> {
    return (await this.connection.run(['sh', '-c', CONTAINED_SCRIPT], { okStatus: 'any' })).status === 0;
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
