/**
 * Applies a host definition over a connection, one property after the other.
 *
 * Before connecting: static facts, and whether every property can run there. Then, for each: look; if it holds already,
 * leave it alone; else apply. The top level goes on after a failure, so that one report tells all that is wrong.
 */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import type { Connection } from '../connections/connection.ts';
import { type FactRequest, FactStore } from './facts.ts';
import { type HostDefinition, hostAttrs } from './host-definition.ts';
import {
  AbortedChangeError,
  FailedChangeError,
  type HostWriter,
  InapplicablePropertyError,
  NotReversibleError,
  type Outcome,
  type PlanWalk,
  type PlannedProperty,
  type PropertyApplication,
  type PropertyDefinition,
  type CombinatorDefinition,
  type Json,
  type Source,
  type Walk,
  describeApplication,
  readRegistered,
} from './property.ts';

/** How it went: `ok` held already; `aborted` gave up without a change; `skipped` was not tried. */
export type ResultOutcome = 'changed' | 'ok' | 'failed' | 'aborted' | 'skipped';

/** What became of one application. */
export interface PropertyResult {
  readonly application: PropertyApplication;
  readonly description: string;
  readonly outcome: ResultOutcome;
  readonly durationMs: number;
  readonly error?: Error;
  /** For a combinator: what became of its children. */
  readonly children: readonly PropertyResult[];
}

/** What became of a host. */
export interface DeployReport {
  readonly host: string;
  /** `failed` or `aborted` if any property was, else `changed` if any was, else `ok`. */
  readonly outcome: 'changed' | 'ok' | 'failed' | 'aborted';
  readonly durationMs: number;
  /** One for each property of the definition, in its order. */
  readonly results: readonly PropertyResult[];
}

/** What deploy tells while it works. */
export type DeployProgress =
  | {
      readonly kind: 'started';
      readonly description: string;
      readonly depth: number;
      readonly index: number;
      readonly count: number;
    }
  | { readonly kind: 'line'; readonly line: string }
  | {
      readonly kind: 'ended';
      readonly result: PropertyResult;
      readonly depth: number;
      readonly index: number;
      readonly count: number;
    };

/** How to deploy. */
export interface DeployOptions {
  /** Aborting ends the running command; what was not tried is reported as skipped. */
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: DeployProgress) => void;
}

/** A report with failures, as an error. */
export class DeployError extends Error {
  override readonly name = 'DeployError';
  readonly report: DeployReport;
  readonly hint: string | undefined;

  constructor(report: DeployReport) {
    const bad = failures(report);
    const list = bad
      .map(({ description, error }) => `\n- ${description}: ${error?.message ?? 'unknown reason'}`)
      .join('');
    super(`Cannot deploy "${report.host}": ${bad.length} properties failed${list}`, { cause: bad[0]?.error });
    this.report = report;
    const first = bad[0]?.error;
    this.hint = first !== undefined && 'hint' in first && typeof first.hint === 'string' ? first.hint : undefined;
  }
}

/**
 * Makes the properties of a host hold.
 *
 * @returns a report; a failed property is in it, not thrown
 * @throws {InapplicablePropertyError} before anything is contacted
 */
export async function deploy(
  definition: HostDefinition,
  connection: Connection,
  options: DeployOptions = {},
): Promise<DeployReport> {
  const work = new Work(definition, connection, options);
  const started = performance.now();
  const results: PropertyResult[] = [];
  for (const [index, application] of definition.properties.entries()) {
    work.pending = definition.properties.slice(index);
    results.push(await work.applyTop(application, { index, count: definition.properties.length }));
  }
  return { host: definition.name, outcome: outcomeOf(results), durationMs: performance.now() - started, results };
}

/**
 * Says what deploy would do, and changes nothing. Children of combinators are listed one by one.
 *
 * @throws {InapplicablePropertyError} before anything is contacted
 * @throws {NotReversibleError} for an `unapplied` that has no way back
 */
export async function planDeploy(
  definition: HostDefinition,
  connection: Connection,
  options: Pick<DeployOptions, 'signal'> = {},
): Promise<readonly PlannedProperty[]> {
  const work = new Work(definition, connection, options);
  work.pending = definition.properties;
  const planned: PlannedProperty[] = [];
  for (const application of definition.properties) planned.push(...(await work.plan(application)));
  return planned;
}

/**
 * Throws when a report tells of failures.
 *
 * @throws {DeployError}
 */
export function checkReport(report: DeployReport): void {
  if (report.outcome === 'failed' || report.outcome === 'aborted') throw new DeployError(report);
}

/** The results that failed or gave up: of a failed combinator, the children that did. */
export function failures(report: Pick<DeployReport, 'results'>): PropertyResult[] {
  const bad = ({ outcome }: PropertyResult): boolean => outcome === 'failed' || outcome === 'aborted';
  const inner = (result: PropertyResult): PropertyResult[] => {
    const below = result.children.filter(bad).flatMap(inner);
    return below.length > 0 ? below : [result];
  };
  return report.results.filter(bad).flatMap(inner);
}

/** One deploy: connection, static facts, facts looked up so far. */
class Work {
  /** What is still to come: facts for all of it are gathered together. */
  pending: readonly PropertyApplication[] = [];
  readonly #options: DeployOptions;
  readonly #facts: FactStore;
  readonly #host: HostWriter;
  #live: Promise<boolean> | undefined;

  constructor(definition: HostDefinition, connection: Connection, options: DeployOptions) {
    const attrs = hostAttrs(definition);
    for (const application of definition.properties) checkKind(application, connection);
    this.#options = options;
    const signal = options.signal === undefined ? {} : { signal: options.signal };
    const run: HostWriter['run'] = (argv, runOptions) => connection.run(argv, { ...signal, ...runOptions });
    this.#facts = new FactStore(run);
    this.#host = {
      facts: this.#facts,
      attrs,
      run,
      readFile: (path) => connection.readFile(path),
      writeFile: (path, content, fileOptions) => connection.writeFile(path, content, fileOptions),
      readSource,
      isLive: () => (this.#live ??= this.#lookLive()),
      progress: (line) => options.onProgress?.({ kind: 'line', line }),
    };
  }

  async applyTop(
    application: PropertyApplication,
    place: { readonly index: number; readonly count: number },
  ): Promise<PropertyResult> {
    const attempt = new Attempt(application);
    this.#tell({ kind: 'started', description: attempt.description, depth: 0, ...place });
    let result: PropertyResult;
    if (this.#aborted) result = attempt.end('skipped');
    else {
      try {
        result = attempt.end((await this.#apply(application, attempt, 0)) === 'changed' ? 'changed' : 'ok');
      } catch (error) {
        result = attempt.fail(error, this.#aborted);
      }
    }
    this.#tell({ kind: 'ended', result, depth: 0, ...place });
    return result;
  }

  async plan(application: PropertyApplication): Promise<readonly PlannedProperty[]> {
    const { type, definition } = readRegistered(application.p);
    await this.#ensureFacts(definition, application);
    if (type === 'combinator') {
      const walk: PlanWalk = {
        facts: this.#facts,
        plan: (child) => this.plan(child),
        planUnapplied: (child) => this.#planUnapplied(child),
      };
      if (definition.plan !== undefined) return await definition.plan(walk, ...application.a);
      return await this.#planEach(definition.children(...application.a), (child) => this.plan(child));
    }
    const description = definition.describe(...application.a);
    if (definition.apply === undefined) return [{ application, description, state: 'ok', lines: [] }];
    if (definition.check === undefined) return [{ application, description, state: 'unknown', lines: [] }];
    const holds = await definition.check(this.#host, ...application.a);
    const lines = holds ? [] : ((await definition.plan?.(this.#host, ...application.a)) ?? []);
    return [{ application, description, state: holds ? 'ok' : 'change', lines }];
  }

  async #planUnapplied(application: PropertyApplication): Promise<readonly PlannedProperty[]> {
    const { type, definition } = readRegistered(application.p);
    if (definition.unapply === undefined) throw new NotReversibleError(application.p);
    if (type === 'combinator') {
      if (application.p === 'unapplied')
        return await this.#planEach(definition.children(...application.a), (child) => this.plan(child));
      const children = definition.children(...application.a).toReversed();
      return await this.#planEach(children, (child) => this.#planUnapplied(child));
    }
    await this.#ensureFacts(definition, application);
    const description = `not: ${definition.describe(...application.a)}`;
    const gone = await definition.checkUnapplied?.(this.#host, ...application.a);
    return [{ application, description, state: gone === undefined ? 'unknown' : gone ? 'ok' : 'change', lines: [] }];
  }

  async #planEach(
    children: readonly PropertyApplication[],
    plan: (child: PropertyApplication) => Promise<readonly PlannedProperty[]>,
  ): Promise<readonly PlannedProperty[]> {
    const planned: PlannedProperty[] = [];
    for (const child of children) planned.push(...(await plan(child)));
    return planned;
  }

  get #aborted(): boolean {
    return this.#options.signal?.aborted === true;
  }

  #tell(progress: DeployProgress): void {
    this.#options.onProgress?.(progress);
  }

  async #apply(application: PropertyApplication, attempt: Attempt, depth: number): Promise<Outcome> {
    const { type, definition } = readRegistered(application.p);
    if (type === 'combinator') {
      await this.#ensureFacts(definition, application);
      return await definition.apply(this.#walk(attempt, depth + 1), ...application.a);
    }
    if (definition.apply === undefined) return 'no-change';
    await this.#ensureFacts(definition, application);
    if (definition.check !== undefined && (await definition.check(this.#host, ...application.a))) return 'no-change';
    return await this.#change(
      definition,
      application,
      async () => await definition.apply?.(this.#host, ...application.a),
    );
  }

  async #unapply(application: PropertyApplication, attempt: Attempt, depth: number): Promise<Outcome> {
    const { type, definition } = readRegistered(application.p);
    if (definition.unapply === undefined) throw new NotReversibleError(application.p);
    await this.#ensureFacts(definition, application);
    if (type === 'combinator') return await definition.unapply(this.#walk(attempt, depth + 1), ...application.a);
    if ((await definition.checkUnapplied?.(this.#host, ...application.a)) === true) return 'no-change';
    return await this.#change(
      definition,
      application,
      async () => await definition.unapply?.(this.#host, ...application.a),
    );
  }

  async #holds(application: PropertyApplication): Promise<boolean> {
    const { type, definition } = readRegistered(application.p);
    if (type === 'combinator') {
      if (definition.holdsWithChildren !== true) return false;
      for (const child of definition.children(...application.a)) if (!(await this.#holds(child))) return false;
      return true;
    }
    if (definition.apply === undefined) return true;
    if (definition.check === undefined) return false;
    await this.#ensureFacts(definition, application);
    return await definition.check(this.#host, ...application.a);
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
        this.#facts.forgetFiles(own.flatMap((request) => (request.fact === 'packages' ? [] : [request.path])));
      } else {
        this.#facts.forgetAll();
      }
    }
  }

  #walk(parent: Attempt, depth: number): Walk {
    const step = async (child: PropertyApplication, how: '#apply' | '#unapply'): Promise<Outcome> => {
      if (this.#aborted) {
        parent.children.push(new Attempt(child).end('skipped'));
        throw new AbortedChangeError('The work was aborted', { cause: this.#options.signal?.reason });
      }
      const attempt = new Attempt(child);
      const place = { index: parent.children.length, count: 0 };
      this.#tell({ kind: 'started', description: attempt.description, depth, ...place });
      let result: PropertyResult | undefined;
      try {
        const outcome =
          how === '#apply' ? await this.#apply(child, attempt, depth) : await this.#unapply(child, attempt, depth);
        result = attempt.end(outcome === 'changed' ? 'changed' : 'ok');
        return outcome;
      } catch (error) {
        result = attempt.fail(error, this.#aborted);
        throw error;
      } finally {
        if (result !== undefined) {
          parent.children.push(result);
          this.#tell({ kind: 'ended', result, depth, ...place });
        }
      }
    };
    const aborted = (): boolean => this.#aborted;
    return {
      apply: (child) => step(child, '#apply'),
      unapply: (child) => step(child, '#unapply'),
      holds: (child) => this.#holds(child),
      skip: (child) => void parent.children.push(new Attempt(child).end('skipped')),
      get aborted() {
        return aborted();
      },
      host: this.#host,
    };
  }

  async #ensureFacts(
    definition: PropertyDefinition<readonly Json[]> | CombinatorDefinition<readonly Json[]>,
    application: PropertyApplication,
  ): Promise<void> {
    const wanted = definition.facts?.(...application.a) ?? [];
    if (wanted.length > 0) await this.#facts.ensure(wanted, this.pending.flatMap(factsOf));
  }

  async #lookLive(): Promise<boolean> {
    const { status } = await this.#host.run(['test', '-d', '/run/systemd/system'], { okStatus: 'any' });
    return status === 0;
  }
}

/** One application being tried. */
class Attempt {
  readonly application: PropertyApplication;
  readonly description: string;
  readonly children: PropertyResult[] = [];
  readonly #started = performance.now();

  constructor(application: PropertyApplication) {
    this.application = application;
    this.description = describeApplication(application);
  }

  end(outcome: ResultOutcome, error?: Error): PropertyResult {
    return {
      application: this.application,
      description: this.description,
      outcome,
      durationMs: performance.now() - this.#started,
      ...(error === undefined ? {} : { error }),
      children: this.children,
    };
  }

  fail(error: unknown, aborted: boolean): PropertyResult {
    const known = error instanceof Error ? error : new FailedChangeError(String(error));
    return this.end(aborted || known instanceof AbortedChangeError ? 'aborted' : 'failed', known);
  }
}

function factsOf(application: PropertyApplication): readonly FactRequest[] {
  const { type, definition } = readRegistered(application.p);
  const own = definition.facts?.(...application.a) ?? [];
  return type === 'property' ? own : [...own, ...definition.children(...application.a).flatMap(factsOf)];
}

function checkKind(application: PropertyApplication, connection: Connection): void {
  const { type, definition } = readRegistered(application.p);
  if (type === 'combinator') {
    for (const child of definition.children(...application.a)) checkKind(child, connection);
  } else if (definition.kind === 'native' && connection.kind !== 'native') {
    throw new InapplicablePropertyError(
      `Cannot apply "${application.p}": it needs our JavaScript at the far end, and there is a shell only`,
    );
  }
}

function outcomeOf(results: readonly PropertyResult[]): DeployReport['outcome'] {
  const has = (outcome: ResultOutcome): boolean => results.some((result) => result.outcome === outcome);
  if (has('failed')) return 'failed';
  if (has('aborted') || has('skipped')) return 'aborted';
  return has('changed') ? 'changed' : 'ok';
}

async function readSource(source: Source): Promise<Uint8Array> {
  let bytes: Uint8Array;
  try {
    bytes = await readFile(source.source);
  } catch (cause) {
    throw new FailedChangeError(`Cannot read the source "${source.source}"`, { cause });
  }
  const sha256 = createHash('sha256').update(bytes).digest('hex');
  if (sha256 !== source.sha256) {
    throw new FailedChangeError(
      `Cannot use the source "${source.source}": its SHA-256 is ${sha256}, and the definition says ${source.sha256}`,
      { hint: 'The file changed after the host was defined; define it again.' },
    );
  }
  return bytes;
}
