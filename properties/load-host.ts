/**
 * Reads a host definition from a module of the user: `./my-host.ts`, wherever it is. What it imports as `buildos/…` are
 * our own files: `import * as apt from 'buildos/properties/apt.ts'` needs neither a package.json nor node_modules.
 */
import { access } from 'node:fs/promises';
import { registerHooks } from 'node:module';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { PACKAGE } from './catalogue.ts';
import { type HostDefinition, HostDefinitionError, checkHostDefinition } from './host-definition.ts';

/** A module that defines a host. */
export interface LoadedHost {
  /** Absolute path of the module. */
  readonly path: string;
  /** Name of the export that is the definition. */
  readonly exportName: string;
  /** Whether `define` hands its argument on. */
  readonly wantsInputs: boolean;
  /**
   * The definition.
   *
   * @param inputs - for a module that exports a function: what it gets. `image build` gives our programs, so does `host`
   * @throws {HostDefinitionError} when what the function returns is none
   */
  define(inputs: unknown): HostDefinition;
}

const HINT =
  'Export it by the name "host": export const host: HostDefinition = { name, summary, base: { distribution: "debian", ' +
  'suite: "trixie" }, properties: […] }; or a function that returns one.';

/**
 * Loads a module that exports a host definition, or a function that returns one. It is the export named `host`, or
 * `default`, or the only one that can be.
 *
 * @param path - of a .ts, .mts, .js or .mjs file; relative to the working directory
 * @throws {HostDefinitionError} when there is no such file, it cannot be loaded, or it exports no definition
 */
export async function loadHostDefinition(path: string): Promise<LoadedHost> {
  const full = resolve(path);
  try {
    await access(full);
  } catch (cause) {
    throw new HostDefinitionError(`Cannot read the host definition "${path}": there is no such file`, { cause });
  }
  resolveOwnPackage();
  let module: unknown;
  try {
    module = await import(pathToFileURL(full).href);
  } catch (cause) {
    throw failed(`Cannot load the host definition "${path}"`, cause, full);
  }
  const exports = typeof module === 'object' && module !== null ? Object.entries(module) : [];
  const [exportName, value] = chooseExport(path, exports);
  const from = `"${exportName}" of ${path}`;
  if (typeof value !== 'function') {
    const definition = checkHostDefinition(value, from);
    return { path: full, exportName, wantsInputs: false, define: () => definition };
  }
  const define = (inputs: unknown): HostDefinition => {
    let made: unknown;
    try {
      made = Reflect.apply(value, undefined, [inputs]);
    } catch (cause) {
      throw failed(`Cannot make a host definition by ${from}`, cause, full);
    }
    if (made instanceof Promise) {
      made.catch(() => undefined);
      throw new HostDefinitionError(`Cannot use what ${from} returns as a host definition: it is a Promise`, {
        hint: 'The function must not be async; what has to be waited for, await at the top of the module.',
      });
    }
    return checkHostDefinition(made, `what ${from} returns`);
  };
  return { path: full, exportName, wantsInputs: value.length > 0, define };
}

function chooseExport(path: string, exports: readonly (readonly [string, unknown])[]): readonly [string, unknown] {
  const named = exports.find(([name]) => name === 'host') ?? exports.find(([name]) => name === 'default');
  if (named !== undefined) return named;
  const fits = exports.filter(
    ([, value]) =>
      typeof value === 'function' || (typeof value === 'object' && value !== null && 'properties' in value),
  );
  const [only] = fits;
  if (only !== undefined && fits.length === 1) return only;
  const names = exports.map(([name]) => name).join(', ');
  throw new HostDefinitionError(
    `Cannot find a host definition in "${path}": it exports ${names === '' ? 'nothing' : names}` +
      (fits.length > 1 ? ', and more than one could be it' : ''),
    { hint: HINT },
  );
}

/** Says what went wrong in code of the user, and where. @param full - the module */
function failed(what: string, cause: unknown, full: string): HostDefinitionError {
  // A wrong argument of a property tells its place itself, and its usage.
  const told = cause instanceof Error && 'hint' in cause;
  const place = told ? undefined : placeOf(cause, full);
  const hint = told && typeof cause.hint === 'string' ? cause.hint : hintFor(cause);
  return new HostDefinitionError(place === undefined ? what : `${what} at ${place}`, {
    cause,
    ...(hint !== undefined && { hint }),
  });
}

const TOP = join(import.meta.dirname, '..');

/** Where a module is wrong: Node's first line for what cannot be parsed, or the innermost frame of a file that is not ours. */
function placeOf(cause: unknown, full: string): string | undefined {
  const stack = cause instanceof Error ? (cause.stack ?? '') : '';
  const parsed = /^(?:file:\/\/)?(\/[^\n]*:\d+)\n/.exec(stack)?.[1];
  if (parsed !== undefined) return parsed;
  for (const [, file, line] of stack.matchAll(/\bat (?:[^\n]*\()?file:\/\/(\/[^\n]*?):(\d+):\d+/g)) {
    if (file !== undefined && (file === full || !file.startsWith(`${TOP}/`))) return `${file}:${line}`;
  }
  return undefined;
}

/** What may be tried about the mistakes that are made most. */
function hintFor(cause: unknown): string | undefined {
  const message = cause instanceof Error ? cause.message : '';
  const missing = /^Cannot find package '([^']+)'/.exec(message)?.[1];
  if (missing !== undefined) return `Install it beside the definition: npm install ${missing}`;
  if (message.startsWith(`Cannot find module '${TOP}/`)) {
    return 'Build OS has no such file; "buildos prop show NAME" prints the import that a property needs.';
  }
  if (/\b\w+\.\w+ is not a function$/.test(message)) {
    return 'Of a property: "buildos prop list" has all, "buildos prop show NAME" the import that one needs.';
  }
  return undefined;
}

let resolved = false;

/** Imports of `buildos/…` lead here, also where another copy of Build OS is in node_modules: there is one registry. */
function resolveOwnPackage(): void {
  if (resolved) return;
  resolved = true;
  registerHooks({
    resolve: (specifier, context, next) => {
      if (specifier.startsWith(`${PACKAGE}/`)) {
        return next(pathToFileURL(join(TOP, specifier.slice(PACKAGE.length + 1))).href, context);
      }
      // For the arguments of properties of one's own.
      return next(specifier, specifier === 'zod' ? { ...context, parentURL: import.meta.url } : context);
    },
  });
}
