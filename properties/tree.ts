/** What can be told of an application and of all below it, without a host. */
import type { Connection } from '../connections/connection.ts';
import type { FactRequest } from './facts.ts';
import { InapplicablePropertyError, type PropertyApplication, checkApplication, readRegistered } from './property.ts';

/** All that it wants to know. */
export function factsOf(application: PropertyApplication): readonly FactRequest[] {
  const { type, definition } = readRegistered(application.p);
  const own = definition.facts?.(...application.a) ?? [];
  return type === 'property' ? own : [...own, ...definition.children(...application.a).flatMap(factsOf)];
}

/** Whether it may write debts. */
export function hasDebts({ p, a }: PropertyApplication): boolean {
  const { type, definition } = readRegistered(p);
  return type === 'combinator' && (definition.owes === true || definition.children(...a).some(hasDebts));
}

/** Whether an application that was read can be applied by this version. */
export function isKnown(application: PropertyApplication): boolean {
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

/** Files of the modules that define it and all below it. */
export function modulesOf({ p, a }: PropertyApplication): readonly string[] {
  const { type, definition, modules } = readRegistered(p);
  return type === 'property' ? modules : [...modules, ...definition.children(...a).flatMap(modulesOf)];
}
