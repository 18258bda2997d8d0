/**
 * Arguments of properties: each has a name, a schema and a line about it. From these come the check when a host is
 * defined, the message that says which property, argument and place is wrong, and what `buildos prop show` prints.
 */
import { dirname } from 'node:path';
import { z } from 'zod';

/** One argument of a property. */
export interface Arg<T> {
  readonly name: string;
  readonly schema: z.ZodType<T>;
  /** A line for people. */
  readonly about: string;
  /** The last argument, given any number of times. */
  readonly rest?: true;
}

/** An argument for each element of a tuple of types. */
export type ArgsOf<A extends readonly unknown[]> = { readonly [K in keyof A]-?: Arg<A[K]> };

/** An argument. */
export function arg<T>(name: string, schema: z.ZodType<T>, about: string): Arg<T> {
  return { name, schema, about };
}

/** The last argument, given any number of times. */
export function restArg<T>(name: string, schema: z.ZodType<T>, about: string): Arg<T> {
  return { name, schema, about, rest: true };
}

/**
 * Text that a test accepts.
 *
 * @param what - ends the sentence `"…" must be`
 */
export function textThat(is: (text: string) => boolean, what: string): z.ZodType<string> {
  return z.string().refine(is, { error: ({ input }) => `${JSON.stringify(input)} must be ${what}` });
}

/** An argument of a property is wrong: found when the host is defined, before anything is contacted. */
export class PropertyArgumentError extends TypeError {
  override readonly name = 'PropertyArgumentError';
  readonly property: string;
  /** Name of the argument; undefined when only all of them together are wrong. */
  readonly argument: string | undefined;
  /** Where in the argument: `.options.mode`, `[2]`; empty when it is the whole. */
  readonly path: string;
  /** How the property is called. */
  readonly hint: string;

  constructor(fields: {
    readonly property: string;
    readonly argument?: string;
    readonly path?: string;
    readonly reason: string;
    readonly usage: string;
    readonly cause?: unknown;
  }) {
    const { argument, path = '' } = fields;
    const place = callerPlace();
    super(
      `Cannot apply ${fields.property}${place === undefined ? '' : ` at ${place}`}: ` +
        `${argument === undefined ? '' : `argument "${argument}"${path === '' ? '' : ` at ${path}`}: `}${fields.reason}`,
      fields.cause === undefined ? undefined : { cause: fields.cause },
    );
    this.property = fields.property;
    this.argument = argument;
    this.path = path;
    this.hint = `It is called as ${fields.usage}`;
  }
}

/**
 * Checks the arguments of an application.
 *
 * @param args - of the definition; without it anything goes
 * @throws {PropertyArgumentError} naming the first that is wrong
 */
export function checkArgs(id: string, args: readonly Arg<unknown>[] | undefined, given: readonly unknown[]): void {
  if (args === undefined) return;
  const usage = usageOf(id, args);
  const last = args.at(-1);
  if (given.length > args.length && last?.rest !== true) {
    const reason = `${given.length} arguments were given, and it takes ${args.length}`;
    throw new PropertyArgumentError({ property: id, reason, usage });
  }
  for (const [index, one] of args.entries()) {
    const values = one.rest === true ? given.slice(index) : [given[index]];
    for (const [at, value] of values.entries()) {
      const issue = one.schema.safeParse(value).error?.issues[0];
      if (issue === undefined) continue;
      const path = [...(one.rest === true ? [at] : []), ...issue.path].map(placeOf).join('');
      throw new PropertyArgumentError({
        property: id,
        argument: one.name,
        path,
        reason: reasonOf(issue, value),
        usage,
      });
    }
  }
}

/** A call as TypeScript would show it: `file.hasContent(path: string, text: string, options?: { mode?: integer })`. */
export function usageOf(id: string, args: readonly Arg<unknown>[] = []): string {
  const words = args.map((one) => {
    const optional = one.schema.safeParse(undefined).success ? '?' : '';
    return one.rest === true ? `...${one.name}: ${typeOf(one)}[]` : `${one.name}${optional}: ${typeOf(one)}`;
  });
  return `${id}(${words.join(', ')})`;
}

/** The type of an argument in TypeScript's words. */
export function typeOf(one: Arg<unknown>): string {
  return typeText(z.toJSONSchema(one.schema, { unrepresentable: 'any', io: 'input' }));
}

/** Whether an argument may be left out. */
export function isOptionalArg(one: Arg<unknown>): boolean {
  return one.rest === true || one.schema.safeParse(undefined).success;
}

function typeText(schema: z.core.JSONSchema.BaseSchema | boolean): string {
  if (typeof schema === 'boolean') return 'unknown';
  if (schema.title !== undefined) return schema.title;
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum !== undefined) return schema.enum.map((value) => JSON.stringify(value)).join(' | ');
  const union = schema.anyOf ?? schema.oneOf;
  if (union !== undefined) return union.map(typeText).join(' | ');
  if (schema.type === 'array') {
    const item = schema.items === undefined || Array.isArray(schema.items) ? 'unknown' : typeText(schema.items);
    return item.includes(' ') ? `(${item})[]` : `${item}[]`;
  }
  if (schema.type === 'object') {
    const members = Object.entries(schema.properties ?? {});
    if (members.length === 0) {
      const value = schema.additionalProperties;
      return `{ [name: string]: ${value === undefined || value === false ? 'unknown' : typeText(value)} }`;
    }
    const needed = new Set(schema.required ?? []);
    return `{ ${members.map(([name, member]) => `${name}${needed.has(name) ? '' : '?'}: ${typeText(member)}`).join('; ')} }`;
  }
  return typeof schema.type === 'string' ? schema.type : 'unknown';
}

const placeOf = (key: PropertyKey): string => (typeof key === 'number' ? `[${key}]` : `.${String(key)}`);

function reasonOf(issue: z.core.$ZodIssue, value: unknown): string {
  if (issue.code === 'invalid_type') {
    let found = value;
    for (const key of issue.path) {
      found = typeof found === 'object' && found !== null ? Reflect.get(found, key) : undefined;
    }
    return `it must be ${issue.expected}, and is ${describeValue(found)}`;
  }
  if (issue.code === 'unrecognized_keys') return `it has no member ${issue.keys.map((key) => `"${key}"`).join(', ')}`;
  if (issue.code === 'invalid_key') return `its name cannot be: ${issue.issues[0]?.message ?? issue.message}`;
  return issue.message;
}

/** A value as a message shows it: its kind, and as much of it as helps. */
export function describeValue(value: unknown): string {
  if (value === undefined) return 'missing';
  if (value === null) return 'null';
  if (Array.isArray(value)) return `a list of ${value.length}`;
  if (typeof value === 'object') return value.constructor === Object ? 'an object' : `a ${value.constructor.name}`;
  if (typeof value === 'number' || typeof value === 'boolean' || typeof value === 'bigint') {
    return `the ${typeof value} ${String(value)}`;
  }
  if (typeof value === 'string') {
    return `the text ${JSON.stringify(value.length > 60 ? `${value.slice(0, 60)}…` : value)}`;
  }
  return `a ${typeof value}`;
}

/** Files that hand arguments on, rather than choose them. */
const OWN_FOLDERS = [`${import.meta.dirname}/`, `${dirname(import.meta.dirname)}/cli/`];

/** Where the host was defined: the innermost frame that is not a file of properties. */
function callerPlace(): string | undefined {
  const frames = (new Error().stack ?? '').split('\n').slice(1);
  for (const frame of frames) {
    // Not node:internal/…, whose path has slashes, too.
    const match = /(?:\(|\bat (?:async )?)((?:file:\/\/|\/)[^()\s]+):(\d+):\d+\)?$/.exec(frame);
    if (match === null) continue;
    const path = (match[1] ?? '').replace(/^file:\/\//, '');
    const own = OWN_FOLDERS.some((folder) => path.startsWith(folder)) && !path.endsWith('.test.ts');
    if (!own && !path.includes('/node_modules/')) return `${path}:${match[2]}`;
  }
  return undefined;
}
