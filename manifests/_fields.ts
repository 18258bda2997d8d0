/** Reading the fields of one manifest: required, optional, repeated, with the place of what is wrong. */
import { ManifestError } from './manifest.ts';
import type { Field, Manifest, Pair } from './manifest.ts';

/** The error for a pair whose value is not what it should be. */
export function wrongValue(manifest: Manifest, pair: Pair, reason: string, hint?: string): ManifestError {
  return new ManifestError(
    `${reason}, found ${shorten(pair.value)} for "${pair.name}"`,
    { source: manifest.source, line: pair.line, column: pair.column },
    hint === undefined ? {} : { hint },
  );
}

/** The only pair with that name; more than one is an error. */
export function findOne(manifest: Manifest, name: string): Pair | undefined {
  const [pair, second] = manifest.pairs.filter((candidate) => candidate.name === name);
  if (second !== undefined) {
    throw new ManifestError(`"${name}" was given before, on line ${pair?.line ?? 0}`, {
      source: manifest.source,
      line: second.line,
      column: second.column,
    });
  }
  return pair;
}

/** The value of a field that must be there, not empty, on one line. */
export function readWord(manifest: Manifest, name: string): string {
  const value = findWord(manifest, name);
  if (value === undefined) throw missing(manifest, name);
  return value;
}

/** The value of a field that may be absent; when there, it is not empty and on one line. */
export function findWord(manifest: Manifest, name: string): string | undefined {
  const pair = findOne(manifest, name);
  if (pair === undefined) return undefined;
  if (pair.value === '') throw wrongValue(manifest, pair, 'a value is expected');
  checkOneLine(manifest, pair);
  return pair.value;
}

/** The value of a field that may be absent or empty and may have several lines. */
export function findText(manifest: Manifest, name: string): string | undefined {
  return findOne(manifest, name)?.value;
}

/** All values of a repeated field. */
export function readWords(manifest: Manifest, name: string): readonly string[] {
  return manifest.pairs
    .filter((pair) => pair.name === name)
    .map((pair) => {
      checkOneLine(manifest, pair);
      return pair.value;
    });
}

/** A field that holds one word of a table. */
export function findChoice<T extends string>(manifest: Manifest, name: string, choices: readonly T[]): T | undefined {
  const pair = findOne(manifest, name);
  if (pair === undefined) return undefined;
  const choice = choices.find((candidate) => candidate === pair.value);
  if (choice === undefined) throw wrongValue(manifest, pair, `one of ${choices.join(', ')} is expected`);
  return choice;
}

/** A field that holds a whole number, 0 to 2^53 - 1. */
export function findInteger(manifest: Manifest, name: string): number | undefined {
  const pair = findOne(manifest, name);
  if (pair === undefined) return undefined;
  const value = Number(pair.value);
  if (!/^\d+$/.test(pair.value) || !Number.isSafeInteger(value)) {
    throw wrongValue(manifest, pair, 'a whole number is expected');
  }
  return value;
}

/** A field that must have a form. */
export function findMatch(
  manifest: Manifest,
  name: string,
  form: { readonly pattern: RegExp; readonly expected: string },
): string | undefined {
  const pair = findOne(manifest, name);
  if (pair === undefined) return undefined;
  if (!form.pattern.test(pair.value)) throw wrongValue(manifest, pair, `${form.expected} is expected`);
  return pair.value;
}

/** The error for a field that is not there. */
export function missing(manifest: Manifest, name: string): ManifestError {
  return new ManifestError(`"${name}" is missing in the manifest that begins here`, {
    source: manifest.source,
    line: manifest.line,
    column: 1,
  });
}

/** The same fields, where one that may be undefined may be absent instead. */
export type Present<T> = { [K in keyof T as undefined extends T[K] ? never : K]: T[K] } & {
  [K in keyof T as undefined extends T[K] ? K : never]?: Exclude<T[K], undefined>;
};

/** Drops the keys whose value is undefined, so that an optional field is either there or not. */
export function present<T extends Readonly<Record<string, unknown>>>(fields: T): Present<T> {
  const kept: unknown = Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- exactly the undefined ones are gone, as the type says
  return kept as Present<T>;
}

/** A list, or nothing when it is empty. */
export function orNothing<T>(list: readonly T[]): readonly T[] | undefined {
  return list.length === 0 ? undefined : list;
}

/** A field to write, or none. */
export function field(name: string, value: string | number | boolean | undefined): readonly Field[] {
  return value === undefined ? [] : [[name, String(value)]];
}

/** A repeated field to write. */
export function fieldEach(name: string, values: readonly string[] | undefined): readonly Field[] {
  return (values ?? []).map((value) => [name, value] as const);
}

function checkOneLine(manifest: Manifest, pair: Pair): void {
  if (pair.value.includes('\n')) throw wrongValue(manifest, pair, 'one line is expected');
}

function shorten(value: string): string {
  return JSON.stringify(value.length > 60 ? `${value.slice(0, 60)}…` : value);
}
