/**
 * Says what deploy would do, and changes nothing: checks can only look (read-only.ts), and this file has no other door.
 *
 * What it cannot know is said too: `unknown` stands where only trying tells, such as a property without a check.
 */
import type { Connection } from '../connections/connection.ts';
import type { HostDefinition } from './host-definition.ts';
import { memoryFacts, planLeaving, readMemory } from './memory.ts';
import { Planner } from './planner.ts';
import type { PlannedProperty } from './walk.ts';
import { type HostOptions, beginRun } from './run.ts';

/** What deploying would do. */
export interface HostPlan {
  readonly host: string;
  /** `pending` when anything would change or may change. */
  readonly outcome: 'ok' | 'pending';
  /** What left the definition and would be taken back. */
  readonly left: readonly PlannedProperty[];
  /** The definition; children of combinators one by one. */
  readonly properties: readonly PlannedProperty[];
  /** What would be done at the end. */
  readonly atEnd: readonly PlannedProperty[];
  readonly warnings: readonly string[];
}

/**
 * Plans a deploy.
 *
 * @throws {InapplicablePropertyError | MissingDataError} before anything is contacted
 * @throws {NotReversibleError} for an `unapplied` that has no way back
 */
export async function planHost(
  definition: HostDefinition,
  connection: Connection,
  options: HostOptions = {},
): Promise<HostPlan> {
  const at = await beginRun(definition, connection, options, {
    mayAsk: false,
    onProgress: () => undefined,
    planInner: async (host, inner) => {
      const { left, properties, atEnd } = await planHost(host, inner, options);
      return [...left, ...properties, ...atEnd];
    },
  });
  const { state, ends } = at.run;
  const planner = new Planner(at);
  const remembers = options.memory !== 'none';
  if (remembers || at.needsDebts()) await at.loadDebts(remembers ? memoryFacts(state, definition.name) : []);
  const memory = remembers ? await readMemory(at.facts, state, definition.name) : undefined;
  const leaving = planLeaving(memory, definition);
  const left: PlannedProperty[] = [];
  for (const application of leaving.unapply) left.push(...(await planner.planUnapplied(application)));
  const properties: PlannedProperty[] = [];
  for (const application of definition.properties) properties.push(...(await planner.plan(application)));
  const atEnd: PlannedProperty[] = [];
  for (const application of ends.values()) atEnd.push(...(await planner.plan(application)));
  const pending = [...left, ...properties, ...atEnd].some(({ state: found }) => found !== 'ok');
  return {
    host: definition.name,
    outcome: pending ? 'pending' : 'ok',
    left,
    properties,
    atEnd,
    warnings: leaving.warnings,
  };
}

/** A plan as lines for people: what would change, with its differences; what holds is left out. */
export function formatPlan(plan: HostPlan): string {
  const lines: string[] = [];
  const show = (title: string, planned: readonly PlannedProperty[]): void => {
    const open = planned.filter(({ state }) => state !== 'ok');
    if (open.length > 0) lines.push(title);
    for (const { state, description, lines: details } of open) {
      lines.push(`  ${state === 'change' ? '~' : '?'} ${description}`, ...details.map((line) => `      ${line}`));
    }
  };
  show('left the definition, would be taken back:', plan.left);
  show('would change (?: only trying tells):', plan.properties);
  show('at the end:', plan.atEnd);
  for (const warning of plan.warnings) lines.push(`warning: ${warning}`);
  const all = [...plan.left, ...plan.properties, ...plan.atEnd];
  const count = (state: PlannedProperty['state']): number => all.filter((one) => one.state === state).length;
  lines.push(
    plan.outcome === 'ok'
      ? `${plan.host}: nothing to do, ${count('ok')} properties hold`
      : `${plan.host}: ${count('change')} to change, ${count('unknown')} to try, ${count('ok')} hold`,
  );
  return lines.join('\n');
}
