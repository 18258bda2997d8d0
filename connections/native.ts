/**
 * Functions of ours that run at the far end of a native connection.
 *
 * A module defines them when it is loaded. The agent's bundle loads the modules that its entry imports, so a function is
 * known there exactly when the bundle holds its module; both sides run the same bytes, which the digest proves.
 */
import { readFile } from 'node:fs/promises';
import { basename } from 'node:path';
import {
  type AgentSource,
  type Connection,
  type Json,
  type NativeSide,
  type NodeRuntime,
  HopError,
} from './connection.ts';

/** A function that can be called at the far end. */
export interface NativeFunction<A extends readonly Json[], R extends Json> {
  readonly name: string;
  /** Runs it in this process. */
  run(here: Connection, ...args: A): R | Promise<R>;
}

/** A native function threw. */
export class NativeCallError extends Error {
  override readonly name = 'NativeCallError';
  /** The function. */
  readonly call: string;
  /** Name of the error's class there. */
  readonly thrown: string;
  readonly hint: string | undefined;

  constructor(fields: {
    readonly call: string;
    readonly thrown: string;
    readonly message: string;
    readonly hint?: string;
  }) {
    super(fields.message);
    this.call = fields.call;
    this.thrown = fields.thrown;
    this.hint = fields.hint;
  }
}

const registry = new Map<string, (here: Connection, ...args: readonly Json[]) => Json | Promise<Json>>();

/**
 * Defines a native function. For properties of kind `native`, which call it with `host.call()`; none of ours does, so far:
 * a shell does for all of them.
 *
 * @param name - `subject.verb`; the same on both sides
 * @param run - `here` is the host that it runs on
 * @throws {TypeError} when the name is taken
 */
export function defineNative<A extends readonly Json[], R extends Json>(
  name: string,
  run: (here: Connection, ...args: A) => R | Promise<R>,
): NativeFunction<A, R> {
  if (registry.has(name)) throw new TypeError(`Cannot define the native function "${name}" twice`);
  // The registry forgets the types; callNative(), the only way to it, takes an A.
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion
  registry.set(name, run as unknown as (here: Connection, ...args: readonly Json[]) => Json | Promise<Json>);
  return { name, run };
}

/**
 * Calls a native function at the far end of a connection.
 *
 * @throws {HopError} when no JavaScript of ours runs there
 * @throws {NativeCallError} with what the function threw
 */
export async function callNative<A extends readonly Json[], R extends Json>(
  on: Connection,
  native: NativeFunction<A, R>,
  ...args: A
): Promise<R> {
  if (on.native === undefined) {
    throw new HopError(
      on.chain.at(-1) ?? ['local'],
      `"${native.name}" needs our JavaScript there, and there is a shell only`,
      {
        hint: 'Put the hop "agent" after it.',
      },
    );
  }
  // The far end runs the very function of this name (the bundle's digest says so), which returns an R.
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion
  return (await on.native.call(native.name, args)) as R;
}

/** The native side of this process. */
export function localNative(here: () => Connection, agent: AgentSource | undefined): NativeSide {
  return {
    agent,
    runtime: () => (runtime ??= findRuntime()),
    call: async (name, args) => {
      const found = registry.get(name);
      if (found === undefined) {
        throw new NativeCallError({
          call: name,
          thrown: 'TypeError',
          message: `There is no native function "${name}" here`,
        });
      }
      try {
        return await found(here(), ...args);
      } catch (error) {
        throw nativeError(name, error);
      }
    },
  };
}

/** What a function threw, as it goes over the border. */
export function nativeError(call: string, error: unknown): NativeCallError {
  if (error instanceof NativeCallError) return error;
  const hint = error instanceof Error && 'hint' in error && typeof error.hint === 'string' ? { hint: error.hint } : {};
  const thrown = error instanceof Error ? error.name : typeof error;
  return new NativeCallError({
    call,
    thrown,
    message: error instanceof Error ? error.message : String(error),
    ...hint,
  });
}

let runtime: Promise<NodeRuntime> | undefined;

/** What this process has mapped: the binary, the loader and the libraries, whichever way it was started. */
async function findRuntime(): Promise<NodeRuntime> {
  const maps = await readFile('/proc/self/maps', 'utf8');
  const paths = new Set(maps.split('\n').flatMap((line) => / (\/.*)$/.exec(line)?.[1] ?? []));
  const libraries = [...paths].filter((path) => /\.so(\.[0-9.]+)?$/.test(path));
  const loader = libraries.find((path) => basename(path).startsWith('ld-linux'));
  const node = [...paths].find((path) => basename(path) === 'node') ?? process.execPath;
  const folder = node.slice(0, -'/node'.length);
  return {
    // Started by its loader, the binary needs it again.
    argv: process.execPath === node || loader === undefined ? [node] : [loader, '--library-path', folder, node],
    files: [
      { name: 'node', path: node },
      ...libraries.map((path) => ({ name: path === loader ? LOADER : soname(basename(path)), path })),
    ],
    arch: process.arch,
  };
}

/** The name of the loader in a folder of a runtime. */
export const LOADER = 'ld.so';

/** `libstdc++.so.6.0.30` is asked for as `libstdc++.so.6`. */
const soname = (name: string): string => /^(.+\.so\.\d+)[.\d]*$/.exec(name)?.[1] ?? name;
