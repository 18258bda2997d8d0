/**
 * A host definition: a name, the distribution it stands on, and the properties that should hold. Data through and
 * through, so it has a digest.
 */
import { createHash } from 'node:crypto';
import { type HostAttrs, addAttrs, emptyAttrs } from './host-attrs.ts';
import { type Json, type PropertyApplication, canonicalJson, readRegistered } from './property.ts';

export type { HostAttrs } from './host-attrs.ts';

/** What a root is made from before any property. */
export interface HostBase {
  readonly distribution: 'debian';
  /** Debian suite, such as `trixie`. */
  readonly suite: string;
}

/** A host as it should be. */
export interface HostDefinition {
  readonly name: string;
  /** One line. */
  readonly summary: string;
  readonly base: HostBase;
  readonly properties: readonly PropertyApplication[];
}

/**
 * The static facts of a host. Pure: contacts nothing.
 *
 * @throws {InapplicablePropertyError} when a property makes no sense on this host
 */
export function hostAttrs(definition: HostDefinition): HostAttrs {
  return definition.properties.reduce(attrsOf, emptyAttrs(definition.name));
}

/**
 * SHA-256 of the definition: another digest is another host. Files of the controller count by their digest, not by where
 * they are. 64 hex digits.
 */
export function definitionDigest(definition: HostDefinition): string {
  const data: Json = {
    name: definition.name,
    summary: definition.summary,
    base: { distribution: definition.base.distribution, suite: definition.base.suite },
    properties: definition.properties.map(({ p, a }) => ({ p, a: a.map(withoutPlaces) })),
  };
  return createHash('sha256').update(canonicalJson(data)).digest('hex');
}

/** A {@link Source} without the path that it has where the controller runs. */
function withoutPlaces(value: Json): Json {
  if (value === null || typeof value !== 'object') return value;
  if (Array.isArray(value)) return value.map(withoutPlaces);
  const entries = Object.entries(value).filter(([key]) => !(key === 'source' && 'sha256' in value));
  return Object.fromEntries(entries.map(([key, item]) => [key, withoutPlaces(item)]));
}

function attrsOf(known: HostAttrs, application: PropertyApplication): HostAttrs {
  const { type, definition } = readRegistered(application.p);
  if (type === 'property') return addAttrs(known, definition.hostattrs?.(known, ...application.a) ?? {});
  const children = definition.attrsFrom?.(...application.a) ?? definition.children(...application.a);
  return children.reduce(attrsOf, known);
}
