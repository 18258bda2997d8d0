/**
 * What a property is: something that should hold on a host, and how to look, make and take back.
 *
 * A definition is code and has an id; an application of it is plain data (`{ p: 'file.hasContent', a: [...] }`), so it
 * can be stored, digested, compared and shown. The registry finds the code for the data.
 *
 * Left out: arguments (args.ts), running (work.ts, deploy.ts, plan.ts), combinators (walk.ts says what they are,
 * combinators.ts and conditions.ts have them), the property set (one file per subject).
 */
import { createHash } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { getCallSites } from 'node:util';
import { z } from 'zod';
import type { Json, RunOptions, RunResult } from '../connections/connection.ts';
import type { NativeFunction } from '../connections/native.ts';
import { type ArgsOf, PropertyArgumentError, checkArgs, describeValue, textThat, usageOf } from './args.ts';
import { canonicalJson } from './canonical-json.ts';
import type { DataRef } from './data.ts';
import type { FactRequest, Facts } from './facts.ts';
import type { AttrsToAdd, HostAttrs } from './host-attrs.ts';
import type { ReadOnlyArgv } from './read-only.ts';
import type { Secret } from './secret.ts';
import type { CombinatorDefinition } from './walk.ts';

/**
 * Parts of a property that is over when it was applied, such as a restart: when it leaves the definition, nothing is to be
 * taken back.
 */
export const NOTHING_TO_TAKE_BACK: Readonly<Pick<Required<PropertyDefinition<[]>>, 'checkUnapplied' | 'unapply'>> = {
  checkUnapplied: () => true,
  unapply: () => 'no-change',
};

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

/** The schema of a {@link Source}, for arguments. */
export const SOURCE: z.ZodType<Source> = z
  .strictObject({
    source: textThat((path) => path.startsWith('/'), 'an absolute path on the controller'),
    sha256: textThat((digest) => /^[0-9a-f]{64}$/.test(digest), 'a SHA-256: 64 hex digits'),
  })
  .meta({ title: '{ source: string; sha256: string }' });

/** The schema of an application, for the arguments of combinators. */
export const APPLICATION: z.ZodType<PropertyApplication> = z
  .strictObject({ p: z.string(), a: z.array(z.json()) })
  .meta({ title: 'Property' });

/** What a check or a plan may use. By its type it changes nothing: it can look at facts, run what only looks, read. */
export interface HostReader {
  /** What was asked for by `facts` of the definition; looked up for many properties at once. */
  readonly facts: Facts;
  /** Static facts of the host definition. */
  readonly attrs: HostAttrs;
  /**
   * Runs a program that only looks.
   *
   * @throws {TypeError} when the command may change something
   */
  run(argv: ReadOnlyArgv, options?: Omit<RunOptions, 'input'>): Promise<RunResult>;
  readFile(path: string): Promise<Uint8Array>;
  /** Whether systemd runs there as the system manager: services can be started. */
  isLive(): Promise<boolean>;
  /** Whether this is a root in a chroot, an image being built, or a container: the kernel, its clock, EFI and boot are another's. */
  isContained(): Promise<boolean>;
  /**
   * Prerequisite data that `data` of the definition asked for. While planning nobody is asked for a password.
   *
   * @throws {MissingDataError}
   */
  data(ref: DataRef): Promise<Secret>;
}

/** What apply and unapply may use: any program, writing, files of the controller, and a line for who watches. */
export interface HostWriter extends HostReader {
  /** Runs any program. A secret may be in `input` only: others see arguments and variables. */
  run(argv: readonly string[], options?: RunOptions): Promise<RunResult>;
  writeFile(path: string, content: string | Uint8Array, options: { readonly mode: number }): Promise<void>;
  /** Reads a file of the controller; an error when its digest is another one. */
  readSource(source: Source): Promise<Uint8Array>;
  /** For properties of kind `native`: calls a function of ours at the far end. */
  call<A extends readonly Json[], R extends Json>(native: NativeFunction<A, R>, ...args: A): Promise<R>;
  progress(line: string): void;
}

/** The parts of a property; A are the types of its arguments, all plain data. */
export interface PropertyDefinition<A extends readonly unknown[]> {
  /** `subject.holds`, such as `file.hasContent`. */
  readonly id: string;
  /** `native`: needs our JavaScript at the far end; all that can be is `posix`. */
  readonly kind: 'posix' | 'native';
  /** What it does, for `buildos prop show`: one sentence or a few. The first is its line in `buildos prop list`. */
  readonly about?: string;
  /** Arguments as somebody may really want them, for `buildos prop show`. */
  readonly example?: A;
  /** Names and schemas of the arguments; wrong ones are refused when the host is defined. */
  readonly args?: ArgsOf<A>;
  /** One line for logs and plans. */
  describe(...args: A): string;
  /** Refuses arguments that do not go together, by throwing, when the host is defined. */
  refuse?(...args: A): void;
  /**
   * Pure, before connecting: the static facts that this adds.
   *
   * @param known - facts of the properties before this one
   * @throws {InapplicablePropertyError} when it makes no sense on this host
   */
  hostattrs?(known: HostAttrs, ...args: A): AttrsToAdd;
  /** Prerequisite data that it needs; nobody else gets it. */
  data?(...args: A): readonly DataRef[];
  /** What check wants to know; gathered for all properties of a host in one command. */
  facts?(...args: A): readonly FactRequest[];
  /** True: it holds already. */
  check?(host: HostReader, ...args: A): boolean | Promise<boolean>;
  /** Lines that tell what apply would change: a unified diff for files. Without it the description has to do. */
  plan?(host: HostReader, ...args: A): readonly string[] | Promise<readonly string[]>;
  /** Makes it hold. Called only when check did not say true. */
  apply?(host: HostWriter, ...args: A): Outcome | void | Promise<Outcome | void>;
  /** True: it is taken back already, so unapply is not called. */
  checkUnapplied?(host: HostReader, ...args: A): boolean | Promise<boolean>;
  /** Takes it back. */
  unapply?(host: HostWriter, ...args: A): Outcome | void | Promise<Outcome | void>;
  /** `own-files`: apply and unapply change only files named in `facts`, so that other facts stay true. Default `anything`. */
  readonly touches?: 'own-files' | 'anything';
  /** The same said in smaller applications, so that one name of a list can leave the definition by itself. */
  parts?(...args: A): readonly A[];
  /**
   * What it makes its own, such as `file /etc/motd`: when it leaves the definition while another property manages the
   * same, it is not unapplied. Default: its id and its first argument.
   */
  manages?(...args: A): readonly string[];
}

/** Something in the registry. Arguments are what the application holds, checked by `args` when it was made. */
export type Registered = (
  | { readonly type: 'property'; readonly definition: PropertyDefinition<readonly Json[]> }
  | { readonly type: 'combinator'; readonly definition: CombinatorDefinition<readonly Json[]> }
) & {
  /** What its module exports. */
  readonly make: (...args: never) => PropertyApplication;
  /** Files of the modules that were defining it: its code is in these and in what they import. */
  readonly modules: readonly string[];
};

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
 * @throws {TypeError} when the definition has none of hostattrs, apply, unapply, or its id is taken
 */
export function defineProperty<A extends readonly unknown[] | []>(
  definition: PropertyDefinition<A>,
): (...args: A) => PropertyApplication {
  const { id } = definition;
  if (definition.hostattrs === undefined && definition.apply === undefined && definition.unapply === undefined) {
    throw new TypeError(`Cannot define "${id}": it needs hostattrs, apply or unapply`);
  }
  if (definition.check !== undefined && definition.apply === undefined) {
    throw new TypeError(`Cannot define "${id}": it can check but not apply`);
  }
  // The registry forgets the types of the arguments; only what `args` and `refuse` let pass comes back to it.
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion
  const erased = definition as unknown as PropertyDefinition<readonly Json[]>;
  const make = (...args: A): PropertyApplication => makeApplication(erased, args);
  register(id, { type: 'property', definition: erased, make, modules: definingModules() });
  return make;
}

/**
 * Defines a combinator: a property whose arguments are, among others, properties.
 *
 * @throws {TypeError} when its id is taken
 */
export function defineCombinator<A extends readonly unknown[] | []>(
  definition: CombinatorDefinition<A>,
): (...args: A) => PropertyApplication {
  // As above.
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion
  const erased = definition as unknown as CombinatorDefinition<readonly Json[]>;
  const make = (...args: A): PropertyApplication => makeApplication(erased, args);
  register(definition.id, { type: 'combinator', definition: erased, make, modules: definingModules() });
  return make;
}

/** Who calls, this file aside: a module that defines a property as it is loaded, and between it and us a helper of its own. */
function definingModules(): readonly string[] {
  const names = getCallSites(MOST_FRAMES).map(({ scriptName }) => scriptName);
  const files = names.flatMap((name) =>
    name.startsWith('file:') ? [fileURLToPath(name)] : name.startsWith('/') ? [name] : [],
  );
  return [...new Set(files)].filter((file) => file !== import.meta.filename).sort();
}

/** More than util.getCallSites() gives it does not take. */
const MOST_FRAMES = 200;

function makeApplication(definition: Registered['definition'], given: readonly unknown[]): PropertyApplication {
  // An argument left out at the end is no argument.
  const last = given.findLastIndex((value) => value !== undefined);
  const a = given.slice(0, last + 1).map((value) => toJson(value, definition.id));
  const application = { p: definition.id, a };
  checkOwnArgs(application);
  return application;
}

/**
 * Checks an application that was read rather than made: a known id, right arguments, and the same for its children.
 *
 * @throws {PropertyArgumentError | TypeError}
 */
export function checkApplication(application: PropertyApplication): void {
  checkOwnArgs(application);
  const { type, definition } = readRegistered(application.p);
  if (type === 'combinator') for (const child of definition.children(...application.a)) checkApplication(child);
}

function checkOwnArgs({ p, a }: PropertyApplication): void {
  const { definition } = readRegistered(p);
  checkArgs(p, definition.args, a);
  try {
    definition.refuse?.(...a);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new PropertyArgumentError({ property: p, reason, usage: usageOf(p, definition.args), cause });
  }
}

/**
 * Finds the code for an application.
 *
 * @throws {TypeError} when nothing with that id was defined
 */
export function readRegistered(id: string): Registered {
  const found = registry.get(id);
  if (found === undefined)
    throw new TypeError(
      `Cannot find the property "${id}": is its module imported, and does "buildos prop list" have it?`,
    );
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

/**
 * What keeps an application from being taken back: the id of the first property or combinator that does not say how.
 *
 * @returns undefined when it can be taken back; what only adds static facts always can
 */
export function findIrreversible(application: PropertyApplication): string | undefined {
  const { type, definition } = readRegistered(application.p);
  if (type === 'property') {
    return definition.unapply === undefined && definition.apply !== undefined ? application.p : undefined;
  }
  if (definition.unapply === undefined) return application.p;
  const children = definition.unapplies?.(...application.a) ?? definition.children(...application.a);
  for (const child of children) {
    const found = findIrreversible(child);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** SHA-256 over the application's canonical JSON: the order of keys does not count. 64 hex digits. */
export function applicationDigest(application: PropertyApplication): string {
  return createHash('sha256')
    .update(canonicalJson({ p: application.p, a: application.a }))
    .digest('hex');
}

function register(id: string, entry: Registered): void {
  if (!/^[a-z][A-Za-z0-9]*(\.[a-z][A-Za-z0-9]*)*$/.test(id))
    throw new TypeError(`"${id}" cannot be the id of a property`);
  if (registry.has(id)) throw new TypeError(`Cannot define "${id}" twice`);
  registry.set(id, entry);
}

/** Arguments as plain data; absent members are left out, anything that JSON would change is refused. */
function toJson(value: unknown, id: string, within: readonly unknown[] = []): Json {
  if (value === null || typeof value === 'boolean' || typeof value === 'string') return value;
  if (typeof value === 'number' && Number.isFinite(value)) return value;
  const isCircular = within.includes(value);
  const inside = [...within, value];
  if (Array.isArray(value) && !isCircular) return value.map((item: unknown) => toJson(item, id, inside));
  if (typeof value === 'object' && Object.getPrototypeOf(value) === Object.prototype && !isCircular) {
    const members = Object.entries(value).filter(([, member]) => member !== undefined);
    return Object.fromEntries(members.map(([key, member]): [string, Json] => [key, toJson(member, id, inside)]));
  }
  const { definition } = readRegistered(id);
  throw new PropertyArgumentError({
    property: id,
    reason: `its arguments must be plain data, and one ${isCircular ? 'contains itself' : `is ${describeValue(value)}`}`,
    usage: usageOf(id, definition.args),
  });
}
