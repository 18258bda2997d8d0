/**
 * A host definition: a name, the distribution it stands on, and the properties that should hold. Data through and
 * through, so it has a digest.
 */
import { createHash } from 'node:crypto';
import { z } from 'zod';
import type { Json } from '../connections/connection.ts';
import { type HostAttrs, addAttrs, emptyAttrs } from './host-attrs.ts';
import { canonicalJson } from './canonical-json.ts';
import { APPLICATION, type PropertyApplication, checkApplication, readRegistered } from './property.ts';

export type { HostAttrs } from './host-attrs.ts';

/** What a root is made from before any property. */
export interface HostBase {
  readonly distribution: 'debian';
  /** Debian suite, such as `trixie`. */
  readonly suite: string;
}

/**
 * A host as it should be. The same definition makes an image, is deployed to a living host, and makes a machine:
 *
 * ```ts
 * // my-host.ts
 * import * as apt from 'buildos/properties/apt.ts';
 * import type { HostDefinition } from 'buildos/properties/host-definition.ts';
 *
 * export const host: HostDefinition = {
 *   name: 'my-host',
 *   summary: 'what it is for, in a line',
 *   base: { distribution: 'debian', suite: 'trixie' },
 *   properties: [apt.installed(['less'])],
 * };
 * ```
 */
export interface HostDefinition {
  /** What the host calls its memory of this definition, and what reports call it: lower case, digits, `.`, `_`, `-`. */
  readonly name: string;
  /** One line. */
  readonly summary: string;
  readonly base: HostBase;
  /** What holds, in the order in which it is made to hold. A failure does not keep those after it from being tried. */
  readonly properties: readonly PropertyApplication[];
}

/** A value that should be a host definition and is none. */
export class HostDefinitionError extends Error {
  override readonly name = 'HostDefinitionError';
  readonly hint: string | undefined;

  constructor(message: string, options: { readonly hint?: string; readonly cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.hint = options.hint;
  }
}

const DEFINITION = z.strictObject({
  name: z.string().regex(/^[a-z0-9][a-z0-9._-]{0,62}$/, 'must be lower case letters, digits, ".", "_" and "-"'),
  summary: z.string().regex(/^[^\n]*$/, 'must be one line'),
  base: z.strictObject({ distribution: z.literal('debian'), suite: z.string().regex(/^[a-z][a-z0-9-]*$/) }),
  properties: z.array(APPLICATION),
});

/**
 * Checks that a value is a host definition, each property and its arguments included.
 *
 * @param from - where it comes from, for the message
 * @throws {HostDefinitionError} naming the place
 */
export function checkHostDefinition(value: unknown, from: string): HostDefinition {
  const parsed = DEFINITION.safeParse(value);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    const place = issue === undefined || issue.path.length === 0 ? '' : ` at ${issue.path.map(String).join('.')}`;
    const isProperty = issue?.path[0] === 'properties' && issue.path.length > 1;
    throw new HostDefinitionError(
      `Cannot use ${from} as a host definition${place}: ${issue?.message ?? 'unknown reason'}`,
      {
        hint: isProperty
          ? `A property is what its function returns: file.hasContent('/etc/motd', 'Welcome'). Of a list of them: ...list.`
          : 'It is { name, summary, base: { distribution, suite }, properties: […] }; the type is HostDefinition.',
      },
    );
  }
  for (const [index, application] of parsed.data.properties.entries()) {
    try {
      checkApplication(application);
    } catch (cause) {
      const hint =
        cause instanceof Error && 'hint' in cause && typeof cause.hint === 'string' ? { hint: cause.hint } : {};
      throw new HostDefinitionError(`Cannot use ${from} as a host definition: properties.${index} is wrong`, {
        cause,
        ...hint,
      });
    }
  }
  return parsed.data;
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

/** Arguments with `/` for the path that a {@link Source} has where the controller runs. */
export function withoutPlaces(value: Json): Json {
  if (value === null || typeof value !== 'object') return value;
  if (Array.isArray(value)) return value.map(withoutPlaces);
  const entries = Object.entries(value).map(([key, item]): [string, Json] =>
    key === 'source' && 'sha256' in value ? [key, '/'] : [key, withoutPlaces(item)],
  );
  return Object.fromEntries(entries);
}

function attrsOf(known: HostAttrs, application: PropertyApplication): HostAttrs {
  const { type, definition } = readRegistered(application.p);
  if (type === 'property') {
    const data = definition.data?.(...application.a) ?? [];
    return addAttrs(addAttrs(known, definition.hostattrs?.(known, ...application.a) ?? {}), { data });
  }
  const children = definition.attrsFrom?.(...application.a) ?? definition.children(...application.a);
  return children.reduce(attrsOf, known);
}
