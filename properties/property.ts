/**
 * What a property is: something that should hold on a host, and how to look, make and take back.
 *
 * A definition is code and has an id; an application of it is plain data (`{ p: 'file.hasContent', a: [...] }`), so it
 * can be stored, digested, compared and shown. The registry finds the code for the data.
 *
 * Left out: running (deploy.ts), combinators (combinators.ts), the property set (one file per subject).
 */
import { createHash } from 'node:crypto';
import type { RunOptions, RunResult } from '../connections/connection.ts';
import type { AttrsToAdd, HostAttrs } from './host-attrs.ts';
import type { FactRequest, Facts } from './facts.ts';

/** Plain data, as JSON holds it. */
export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };

/** A property applied to arguments: data. */
export interface PropertyApplication {
  /** Id of the property. */
  readonly p: string;
  /** Its arguments. */
  readonly a: readonly Json[];
}

/** What apply and unapply did; nothing returned means `changed`. */
export type Outcome = 'changed' | 'no-change';

/** A file of the controller that goes to the host, named by its digest: another content is another property. */
export type Source = {
  /** Absolute path where the controller runs. */
  readonly source: string;
  /** SHA-256, 64 hex digits. */
  readonly sha256: string;
};

/** What a check may use. It must change nothing. */
export interface HostReader {
  /** What was asked for by `facts` of the definition; looked up for many properties at once. */
  readonly facts: Facts;
  /** Static facts of the host definition. */
  readonly attrs: HostAttrs;
  run(argv: readonly string[], options?: RunOptions): Promise<RunResult>;
  readFile(path: string): Promise<Uint8Array>;
}

/** What apply and unapply may use: also writing, prerequisite data, and a line for who watches. */
export interface HostWriter extends HostReader {
  writeFile(path: string, content: string | Uint8Array, options: { readonly mode: number }): Promise<void>;
  /** Reads a file of the controller; an error when its digest is another one. */
  readSource(source: Source): Promise<Uint8Array>;
  /** Whether systemd runs there as the system manager: services can be started. */
  isLive(): Promise<boolean>;
  progress(line: string): void;
}

/** The parts of a property; A are the types of its arguments, all plain data. */
export interface PropertyDefinition<A extends readonly unknown[]> {
  /** `subject.holds`, such as `file.hasContent`. */
  readonly id: string;
  /** `native`: needs our JavaScript at the far end; all that can be is `posix`. */
  readonly kind: 'posix' | 'native';
  /** One line for logs and plans. */
  describe(...args: A): string;
  /** Refuses arguments that cannot be right, with a TypeError or RangeError, when the host is defined. */
  args?(...args: A): void;
  /**
   * Pure, before connecting: the static facts that this adds.
   *
   * @param known - facts of the properties before this one
   * @throws {InapplicablePropertyError} when it makes no sense on this host
   */
  hostattrs?(known: HostAttrs, ...args: A): AttrsToAdd;
  /** What check wants to know; gathered for all properties of a host in one command. */
  facts?(...args: A): readonly FactRequest[];
  /** True: it holds already. It must not change anything. */
  check?(host: HostReader, ...args: A): boolean | Promise<boolean>;
  /** Lines that tell what apply would change, for a plan; without it the description has to do. */
  plan?(host: HostReader, ...args: A): readonly string[] | Promise<readonly string[]>;
  /** Makes it hold. Called only when check did not say true. */
  apply?(host: HostWriter, ...args: A): Outcome | void | Promise<Outcome | void>;
  /** True: it is taken back already, so unapply is not called. */
  checkUnapplied?(host: HostReader, ...args: A): boolean | Promise<boolean>;
  /** Takes it back. */
  unapply?(host: HostWriter, ...args: A): Outcome | void | Promise<Outcome | void>;
  /** `own-files`: apply and unapply change only files named in `facts`, so that other facts stay true. Default `anything`. */
  readonly touches?: 'own-files' | 'anything';
}

/** What a combinator may do with its children; deploy provides it. */
export interface Walk {
  /** Checks and, if need be, applies a child; its report goes below the combinator's. Failures are thrown. */
  apply(child: PropertyApplication): Promise<Outcome>;
  unapply(child: PropertyApplication): Promise<Outcome>;
  /** Whether a child surely holds already: applying it would change nothing. */
  holds(child: PropertyApplication): Promise<boolean>;
  /** Notes that a child was not tried. */
  skip(child: PropertyApplication): void;
  /** Whether the work was aborted: go on with nothing. */
  readonly aborted: boolean;
  readonly host: HostWriter;
}

/** What a plan says of one property. */
export interface PlannedProperty {
  readonly application: PropertyApplication;
  readonly description: string;
  /** `unknown`: it has no check, so only applying tells. */
  readonly state: 'ok' | 'change' | 'unknown';
  /** What would change, for people; may be empty. */
  readonly lines: readonly string[];
}

/** What a combinator may do when it plans. */
export interface PlanWalk {
  readonly facts: Facts;
  plan(child: PropertyApplication): Promise<readonly PlannedProperty[]>;
  /** Plans to take a child back. */
  planUnapplied(child: PropertyApplication): Promise<readonly PlannedProperty[]>;
}

/** A property made of properties. */
export interface CombinatorDefinition<A extends readonly unknown[]> {
  readonly id: string;
  describe(...args: A): string;
  args?(...args: A): void;
  /** All children, in order: for facts and for finding what is native. */
  children(...args: A): readonly PropertyApplication[];
  /** The children whose static facts hold on the host; default all. */
  attrsFrom?(...args: A): readonly PropertyApplication[];
  /** It holds when all its children do. */
  readonly holdsWithChildren?: true;
  /** Children as a plan lists them; default all, one by one. */
  plan?(walk: PlanWalk, ...args: A): Promise<readonly PlannedProperty[]>;
  /** What the combinator itself wants to know. */
  facts?(...args: A): readonly FactRequest[];
  apply(walk: Walk, ...args: A): Promise<Outcome>;
  unapply?(walk: Walk, ...args: A): Promise<Outcome>;
}

/** Something in the registry. Arguments are what the application holds, checked by `args` when it was made. */
export type Registered =
  | { readonly type: 'property'; readonly definition: PropertyDefinition<readonly Json[]> }
  | { readonly type: 'combinator'; readonly definition: CombinatorDefinition<readonly Json[]> };

/** A property that has no place on this host. Found before connecting. */
export class InapplicablePropertyError extends Error {
  override readonly name = 'InapplicablePropertyError';
}

/** A property that has no unapply was to be taken back. Found when planning. */
export class NotReversibleError extends Error {
  override readonly name = 'NotReversibleError';
  readonly id: string;
  readonly hint = 'Take it back by hand, or define another property that makes the opposite hold.';

  constructor(id: string) {
    super(`Cannot unapply "${id}": it does not say how`);
    this.id = id;
  }
}

/** A change that did not work; the host may be changed in part. */
export class FailedChangeError extends Error {
  override readonly name = 'FailedChangeError';
  readonly hint: string | undefined;

  constructor(message: string, options: { readonly hint?: string; readonly cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.hint = options.hint;
  }
}

/** A change that was given up while surely nothing had been changed. */
export class AbortedChangeError extends Error {
  override readonly name = 'AbortedChangeError';
}

const registry = new Map<string, Registered>();

/**
 * Defines a property.
 *
 * @returns a function from arguments to the application
 * @throws {TypeError} when the definition has none of hostattrs, check, apply, unapply, or its id is taken
 */
export function defineProperty<A extends readonly unknown[]>(
  definition: PropertyDefinition<A>,
): (...args: A) => PropertyApplication {
  const { id } = definition;
  if (definition.hostattrs === undefined && definition.apply === undefined && definition.unapply === undefined) {
    throw new TypeError(`Cannot define "${id}": it needs hostattrs, apply or unapply`);
  }
  if (definition.check !== undefined && definition.apply === undefined) {
    throw new TypeError(`Cannot define "${id}": it can check but not apply`);
  }
  // The registry forgets the types of the arguments; only applications made below, from an A, come back to it.
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion
  register(id, { type: 'property', definition: definition as unknown as PropertyDefinition<readonly Json[]> });
  return (...args) => {
    definition.args?.(...args);
    return { p: id, a: args.map((value) => toJson(value, id)) };
  };
}

/**
 * Defines a combinator: a property whose arguments are, among others, properties.
 *
 * @throws {TypeError} when its id is taken
 */
export function defineCombinator<A extends readonly unknown[]>(
  definition: CombinatorDefinition<A>,
): (...args: A) => PropertyApplication {
  // As above.
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion
  const erased = definition as unknown as CombinatorDefinition<readonly Json[]>;
  register(definition.id, { type: 'combinator', definition: erased });
  return (...args) => {
    definition.args?.(...args);
    return { p: definition.id, a: args.map((value) => toJson(value, definition.id)) };
  };
}

/**
 * Finds the code for an application.
 *
 * @throws {TypeError} when nothing with that id was defined
 */
export function readRegistered(id: string): Registered {
  const found = registry.get(id);
  if (found === undefined) throw new TypeError(`Cannot find the property "${id}": is its module imported?`);
  return found;
}

/** Ids of all properties and combinators defined so far, sorted. */
export function registeredIds(): string[] {
  return [...registry.keys()].sort();
}

/** The description of an application, for people. */
export function describeApplication(application: PropertyApplication): string {
  return readRegistered(application.p).definition.describe(...application.a);
}

/** SHA-256 over the application's canonical JSON: the order of keys does not count. 64 hex digits. */
export function applicationDigest(application: PropertyApplication): string {
  return createHash('sha256')
    .update(canonicalJson({ p: application.p, a: application.a }))
    .digest('hex');
}

/** Whether two applications are the same data. */
export function isSameApplication(a: PropertyApplication, b: PropertyApplication): boolean {
  return canonicalJson({ p: a.p, a: a.a }) === canonicalJson({ p: b.p, a: b.a });
}

/** JSON with sorted keys and no spaces: equal data gives equal text. */
export function canonicalJson(value: Json): string {
  if (value === null || typeof value !== 'object') return JSON.stringify(value);
  if (isJsonArray(value)) return `[${value.map(canonicalJson).join(',')}]`;
  const members = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${members.map(([key, member]) => `${JSON.stringify(key)}:${canonicalJson(member)}`).join(',')}}`;
}

const isJsonArray = (value: Json): value is readonly Json[] => Array.isArray(value);

function register(id: string, entry: Registered): void {
  if (!/^[a-z][A-Za-z0-9]*(\.[a-z][A-Za-z0-9]*)*$/.test(id))
    throw new TypeError(`"${id}" cannot be the id of a property`);
  if (registry.has(id)) throw new TypeError(`Cannot define "${id}" twice`);
  registry.set(id, entry);
}

/** Arguments as plain data; absent members are left out, anything that JSON would change is refused. */
function toJson(value: unknown, id: string): Json {
  if (value === null || typeof value === 'boolean' || typeof value === 'string') return value;
  if (typeof value === 'number' && Number.isFinite(value)) return value;
  if (Array.isArray(value)) return value.map((item: unknown) => toJson(item, id));
  if (typeof value === 'object' && Object.getPrototypeOf(value) === Object.prototype) {
    const members = Object.entries(value).filter(([, member]) => member !== undefined);
    return Object.fromEntries(members.map(([key, member]): [string, Json] => [key, toJson(member, id)]));
  }
  throw new TypeError(`Cannot apply "${id}": its arguments must be plain data, and one is ${describeValue(value)}`);
}

const describeValue = (value: unknown): string =>
  typeof value === 'object' && value !== null ? value.constructor.name : `${typeof value} ${String(value)}`;
