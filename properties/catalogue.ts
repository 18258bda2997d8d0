/**
 * All properties and combinators that there are, with what documents them: where a definition imports them from, what
 * their arguments are, an example as it stands in a definition.
 */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { Json } from '../connections/connection.ts';
import { type Arg, isOptionalArg, typeOf, usageOf } from './args.ts';
import {
  type PropertyApplication,
  type Registered,
  findIrreversible,
  readRegistered,
  registeredIds,
} from './property.ts';

/** What is known of a property, as data. */
export interface CatalogueEntry {
  readonly id: string;
  readonly type: 'property' | 'combinator';
  /** `posix` or `native`; a combinator is what its children are. */
  readonly kind?: 'posix' | 'native';
  /** How it is called, with types. */
  readonly usage: string;
  /** One line. */
  readonly summary: string;
  readonly about: string;
  readonly args: readonly {
    readonly name: string;
    readonly type: string;
    readonly optional: boolean;
    readonly about: string;
  }[];
  /** Whether it can look without applying. */
  readonly checks: boolean;
  /** `by its children`: a combinator can be taken back when they can. */
  readonly reversible: 'yes' | 'no' | 'by its children' | 'nothing to take back';
  /** The import and the call, as in a host definition. */
  readonly example?: { readonly imports: readonly string[]; readonly code: string };
}

/** The name that a definition imports from, wherever it is (load-host.ts). */
export const PACKAGE = 'buildos';

/**
 * Loads every module of properties.
 *
 * @returns by id, sorted
 */
export async function loadCatalogue(): Promise<ReadonlyMap<string, CatalogueEntry>> {
  const modules = new Map<string, string>();
  const names = readdirSync(import.meta.dirname).filter((name) => /^[a-z][a-z-]*\.ts$/.test(name));
  for (const name of names.sort()) {
    const loaded: unknown = await import(pathToFileURL(join(import.meta.dirname, name)).href);
    const exported = new Set<unknown>(Object.values(Object(loaded)));
    for (const id of registeredIds()) if (exported.has(readRegistered(id).make)) modules.set(id, name);
  }
  return new Map([...modules.keys()].sort().map((id) => [id, entryOf(id, modules)]));
}

/**
 * Sees to it that the code of applications that were read is there. A definition imports what it uses: what it no longer
 * uses it no longer imports, and that is what has to be taken back.
 */
export async function learn(applications: readonly PropertyApplication[]): Promise<void> {
  const known = new Set(registeredIds());
  const ids = applications.flatMap(({ p, a }) => [p, ...idsIn(a)]);
  if (!ids.every((id) => known.has(id))) await loadCatalogue();
}

function entryOf(id: string, modules: ReadonlyMap<string, string>): CatalogueEntry {
  const registered = readRegistered(id);
  const { definition } = registered;
  const args: readonly Arg<unknown>[] = definition.args ?? [];
  const about = definition.about ?? '';
  const example = definition.example === undefined ? undefined : { p: id, a: definition.example };
  return {
    id,
    type: registered.type,
    ...(registered.type === 'property' ? { kind: registered.definition.kind } : {}),
    usage: usageOf(id, args),
    summary: summaryOf(about),
    about,
    args: args.map((one) => ({
      name: one.name,
      type: `${typeOf(one)}${one.rest === true ? '…' : ''}`,
      optional: isOptionalArg(one),
      about: one.about,
    })),
    checks: registered.type === 'combinator' || registered.definition.check !== undefined,
    reversible: reversibleOf(registered, example),
    ...(example === undefined ? {} : { example: { imports: importsOf(example, modules), code: formatCall(example) } }),
  };
}

function reversibleOf(registered: Registered, example: PropertyApplication | undefined): CatalogueEntry['reversible'] {
  if (registered.type === 'property') {
    if (registered.definition.unapply !== undefined) return 'yes';
    return registered.definition.apply === undefined ? 'nothing to take back' : 'no';
  }
  if (registered.definition.unapply === undefined) return 'no';
  // A list of properties has always the same; a combinator those that it is given.
  if (!registered.definition.id.includes('.') || example === undefined) return 'by its children';
  return findIrreversible(example) === undefined ? 'yes' : 'no';
}

/** The first sentence, or what is before its first colon or semicolon. */
const summaryOf = (text: string): string => /^(.*?)[.;:](?=\s|$)/s.exec(text)?.[1] ?? text;

/** An application as it stands in a host definition: `file.hasContent('/etc/motd', 'Welcome\n')`. */
export function formatCall({ p, a }: PropertyApplication): string {
  return `${p}(${a.map((value) => formatValue(value)).join(', ')})`;
}

function formatValue(value: Json, key = ''): string {
  if (typeof value === 'string')
    return `'${JSON.stringify(value)
      .slice(1, -1)
      .replaceAll(`\\"`, '"')
      .replaceAll("'", String.raw`\'`)}'`;
  if (typeof value === 'number' && key === 'mode') return `0o${value.toString(8)}`;
  if (value === null || typeof value !== 'object') return JSON.stringify(value);
  if (isList(value)) return `[${value.map((item) => formatValue(item)).join(', ')}]`;
  const application = applicationIn(value);
  if (application !== undefined) return formatCall(application);
  const members = Object.entries(value).map(([name, member]) => {
    const word = /^[A-Za-z_]\w*$/.test(name) ? name : formatValue(name);
    return `${word}: ${formatValue(member, name)}`;
  });
  return members.length === 0 ? '{}' : `{ ${members.join(', ')} }`;
}

function importsOf(example: PropertyApplication, modules: ReadonlyMap<string, string>): readonly string[] {
  const lines = [example.p, ...idsIn(example.a)].map((id) => {
    const [namespace] = id.split('.');
    const what = id.includes('.') ? `* as ${namespace}` : `{ ${id} }`;
    return `import ${what} from '${PACKAGE}/properties/${modules.get(id)}';`;
  });
  return [...new Set(lines)].sort();
}

/** Ids of the applications in arguments. */
function idsIn(values: readonly Json[]): readonly string[] {
  return values.flatMap((value) => {
    if (value === null || typeof value !== 'object') return [];
    if (isList(value)) return idsIn(value);
    const inner = idsIn(Object.values(value));
    const application = applicationIn(value);
    return application === undefined ? inner : [application.p, ...inner];
  });
}

/** The application that this is: of what is in arguments, only applications have `p` and `a`. */
function applicationIn(value: { readonly [name: string]: Json }): PropertyApplication | undefined {
  const { p, a } = value;
  return typeof p === 'string' && isList(a) ? { p, a } : undefined;
}

const isList = (value: Json | undefined): value is readonly Json[] => Array.isArray(value);
