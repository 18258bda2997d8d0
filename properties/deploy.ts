/**
 * Applies a host definition over a connection, one property after the other.
 *
 * Before connecting: static facts, data that is needed, and whether every property can run there ({@link checkHost}).
 * Then what left the definition is taken back, the last first; each property is looked at, left alone if it holds, else
 * applied; and what was asked for at the end is done. The top level goes on after a failure, so that one report tells all
 * that is wrong.
 */
import type { Connection } from '../connections/connection.ts';
import type { PropertyResult } from './attempt.ts';
import type { FarSide } from './far-side.ts';
import type { HostDefinition } from './host-definition.ts';
import {
  type Memory,
  memoryAfter,
  memoryBefore,
  memoryFacts,
  memoryPath,
  planLeaving,
  readMemory,
  writeMemory,
} from './memory.ts';
import type { PropertyApplication } from './property.ts';
import { type DeployProgress, type HostOptions, beginRun } from './run.ts';
import { Work } from './work.ts';

/** What became of a host. */
export interface DeployReport {
  readonly host: string;
  /** `failed` or `aborted` if any property was, else `changed` if any was, else `ok`. */
  readonly outcome: 'changed' | 'ok' | 'failed' | 'aborted';
  readonly durationMs: number;
  /** What left the definition and was taken back. */
  readonly left: readonly PropertyResult[];
  /** One for each property of the definition, in its order; those that were done before are left out. */
  readonly results: readonly PropertyResult[];
  /** What was done at the end. */
  readonly atEnd: readonly PropertyResult[];
  /** What a person should know, such as a property that left the definition and cannot be taken back. */
  readonly warnings: readonly string[];
}

/** A property of the definition was applied, or failed. */
export interface DeployStep {
  /** Its place in the definition. */
  readonly index: number;
  readonly result: PropertyResult;
  /** Whether all that was done so far would be the same whatever comes after it in the definition. */
  readonly independent: boolean;
}

/** How to deploy. */
export interface DeployOptions extends HostOptions {
  readonly onProgress?: (progress: DeployProgress) => void;
  /** How many of the first properties an earlier run applied to this very root, which nobody has changed since: left out. */
  readonly done?: number;
  /** Awaited after each property of the definition. */
  readonly afterEach?: (step: DeployStep) => Promise<void>;
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
 * @throws {InapplicablePropertyError | MissingDataError} before anything is contacted
 * @throws {FailedChangeError} when the host's memory cannot be read or written
 */
export async function deploy(
  definition: HostDefinition,
  connection: Connection,
  options: DeployOptions = {},
): Promise<DeployReport> {
  const started = performance.now();
  const at = await beginRun(definition, connection, options, {
    mayAsk: true,
    onProgress: options.onProgress ?? (() => undefined),
    deployInner: async (host, inner) => {
      const { onProgress: _progress, afterEach: _each, done: _done, ...rest } = options;
      const { left, results, atEnd } = await deploy(host, inner, rest);
      return [...left, ...results, ...atEnd];
    },
  });
  const { ends } = at.run;
  const work = new Work(at);
  const done = options.done ?? 0;
  const mayOwe = at.needsDebts();
  at.pending = definition.properties.slice(done);
  const log = await openLog(definition, connection, at, { ...options, mayOwe });
  const { unapply, warnings } = planLeaving(log.memory, definition);

  const left: PropertyResult[] = [];
  for (const [index, application] of unapply.entries()) {
    left.push(await work.top(application, { index, count: unapply.length }, 'unapply'));
  }
  const results: PropertyResult[] = [];
  for (const [index, application] of definition.properties.entries()) {
    if (index < done) continue;
    at.pending = definition.properties.slice(index);
    const result = await work.top(application, { index, count: definition.properties.length }, 'apply');
    results.push(result);
    await options.afterEach?.({ index, result, independent: ends.size === 0 && !at.run.attrsUsed });
  }
  const atEnd: PropertyResult[] = [];
  for (const [key, application] of at.aborted ? [] : ends) {
    const result = await work.top(application, { index: atEnd.length, count: ends.size }, 'apply');
    atEnd.push(result);
    if (result.outcome === 'changed' || result.outcome === 'ok') await at.debts.payEnd(key);
  }
  const stuck = left
    .filter(({ outcome }) => outcome !== 'changed' && outcome !== 'ok')
    .map(({ application }) => application);
  if (!at.aborted) await log.close(stuck);
  const outcome = outcomeOf([...left, ...results, ...atEnd]);
  return { host: definition.name, outcome, durationMs: performance.now() - started, left, results, atEnd, warnings };
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
export function failures(report: Pick<DeployReport, 'left' | 'results' | 'atEnd'>): PropertyResult[] {
  const bad = ({ outcome }: PropertyResult): boolean => outcome === 'failed' || outcome === 'aborted';
  const inner = (result: PropertyResult): PropertyResult[] => {
    const below = result.children.filter(bad).flatMap(inner);
    return below.length > 0 ? below : [result];
  };
  return [...report.left, ...report.results, ...report.atEnd].filter(bad).flatMap(inner);
}

/** The host's own record of a run: what it remembers, and how to write what it shall remember. */
interface Log {
  readonly memory: Memory | undefined;
  close(stuck: readonly PropertyApplication[]): Promise<void>;
}

/** Looks memory and debts up, together with the facts of all properties, and writes what may be there from now on. */
async function openLog(
  definition: HostDefinition,
  connection: Connection,
  at: FarSide,
  options: DeployOptions & { readonly mayOwe: boolean },
): Promise<Log> {
  if (options.memory === 'none' && !options.mayOwe) return { memory: undefined, close: async () => undefined };
  const where = { state: at.run.state, name: definition.name };
  const wants = options.memory === 'none' ? [] : memoryFacts(where.state, where.name);
  await at.loadDebts(wants);
  if (options.memory === 'none') return { memory: undefined, close: async () => undefined };
  const memory = await readMemory(at.facts, where.state, where.name);
  const known = at.facts.text(memoryPath(where.state, where.name));
  const run: Connection['run'] = (argv, runOptions) => connection.run(argv, runOptions);
  const before = options.memory === 'at-end' ? memory : memoryBefore(memory, definition);
  const text =
    before === undefined || before === memory ? known : await writeMemory(run, at.facts, where, before, known);
  return {
    memory,
    close: async (stuck) => {
      await writeMemory(run, at.facts, where, memoryAfter(definition, stuck), text);
    },
  };
}

function outcomeOf(results: readonly PropertyResult[]): DeployReport['outcome'] {
  const has = (outcome: PropertyResult['outcome']): boolean => results.some((result) => result.outcome === outcome);
  if (has('failed')) return 'failed';
  if (has('aborted') || has('skipped')) return 'aborted';
  return has('changed') ? 'changed' : 'ok';
}
