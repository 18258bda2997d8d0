/**
 * The manifest syntax: lists of `name: value` pairs in UTF-8 (spec: build2's manifest format, version 1).
 *
 * What a manifest means is said by the files beside this one. Left out: value comments (`; …`), which no manifest
 * of ours uses.
 */

/** A text that crosses a border is wrong: where, why, and what may help. */
export class ManifestError extends Error {
  override readonly name = 'ManifestError';
  /** What was read, for instance a file name or "task request". */
  readonly source: string;
  /** From 1. */
  readonly line: number;
  /** From 1, in characters. */
  readonly column: number;
  /** What the reason is, without the place. */
  readonly reason: string;
  readonly hint?: string;

  constructor(
    reason: string,
    place: { readonly source: string; readonly line: number; readonly column: number },
    options: { readonly hint?: string; readonly cause?: unknown } = {},
  ) {
    super(
      `Cannot read ${place.source}, line ${place.line}, column ${place.column}: ${reason}`,
      options.cause === undefined ? undefined : { cause: options.cause },
    );
    this.reason = reason;
    this.source = place.source;
    this.line = place.line;
    this.column = place.column;
    if (options.hint !== undefined) this.hint = options.hint;
  }
}

/** One `name: value`; line and column are those of the name, from 1. */
export interface Pair {
  readonly name: string;
  readonly value: string;
  readonly line: number;
  readonly column: number;
}

/** The pairs between two format versions, in their order; the format version itself is left out. */
export interface Manifest {
  /** What was read, for messages. */
  readonly source: string;
  /** Where the manifest begins: the line of its format version. */
  readonly line: number;
  readonly pairs: readonly Pair[];
}

/** Name and value, to be written. */
export type Field = readonly [name: string, value: string];

export interface ParseOptions {
  /** What the text is, for messages; a file name or words like "task request". */
  readonly name?: string;
}

/** The format version we read and write. */
const FORMAT_VERSION = '1';

/** What may stand in a manifest: graphic characters (Unicode chapter 2.4), tab, CR, LF. */
const NOT_GRAPHIC = /[^\p{L}\p{M}\p{N}\p{P}\p{S}\p{Zs}\t\r\n]/u;
/** The same, for all of them; made once, since these classes take milliseconds to compile. */
const ALL_NOT_GRAPHIC = new RegExp(NOT_GRAPHIC.source, 'gu');

/**
 * Reads a sequence of manifests. CR LF and a lone CR count as a newline.
 *
 * @param text - the whole text; bytes are made text by {@link decodeText}
 * @returns at least one manifest; a manifest may have no pairs
 * @throws {ManifestError} on the first thing that is not manifest syntax
 */
export function parseManifests(text: string, options: ParseOptions = {}): readonly Manifest[] {
  const source = options.name ?? 'manifest';
  checkCharacters(text, source);
  const lines = text.split(/\r\n|\r|\n/);
  const manifests: { source: string; line: number; pairs: Pair[] }[] = [];
  let at = 0;
  while (at < lines.length) {
    const line = lines[at] ?? '';
    const column = line.search(/[^ \t]/) + 1;
    if (column === 0 || line[column - 1] === '#') {
      at += 1;
      continue;
    }
    const head = /^[ \t]*([^: \t]*)[ \t]*(:?)[ \t]*/.exec(line);
    const name = head?.[1] ?? '';
    const headLength = head?.[0].length ?? 0;
    const place = { source, line: at + 1, column };
    if (head?.[2] !== ':') {
      throw new ManifestError(
        `":" expected after the name ${JSON.stringify(name)}`,
        { ...place, column: headLength + 1 },
        { hint: 'A line is "name: value". A value of several lines begins and ends with a line that is "\\" alone.' },
      );
    }
    const { value, next } = readValue(lines, at, headLength);
    const current = manifests.at(-1);
    if (name === '') {
      checkVersion(value, manifests.length === 0, { ...place, column: headLength + 1 });
      manifests.push({ source, line: at + 1, pairs: [] });
    } else if (current === undefined) {
      throw new ManifestError(
        `the format version is expected before the name ${JSON.stringify(name)}`,
        place,
        FIRST_LINE_HINT,
      );
    } else {
      current.pairs.push({ name, value, line: at + 1, column });
    }
    at = next;
  }
  if (manifests.length === 0) {
    throw new ManifestError('it holds no manifest', { source, line: lines.length, column: 1 }, FIRST_LINE_HINT);
  }
  return manifests;
}

/**
 * Reads a text that holds exactly one manifest.
 *
 * @throws {ManifestError} also when there is a second one
 */
export function parseManifest(text: string, options: ParseOptions = {}): Manifest {
  const [first, second] = parseManifests(text, options);
  if (first === undefined) throw new TypeError('parseManifests() returned nothing');
  if (second !== undefined) {
    throw new ManifestError('a second manifest begins here, one is expected', {
      source: second.source,
      line: second.line,
      column: 1,
    });
  }
  return first;
}

/** The value of the first pair with that name. */
export function find(manifest: Manifest, name: string): string | undefined {
  return manifest.pairs.find((pair) => pair.name === name)?.value;
}

/** The values of all pairs with that name, in order. */
export function all(manifest: Manifest, name: string): readonly string[] {
  return manifest.pairs.filter((pair) => pair.name === name).map((pair) => pair.value);
}

/**
 * Writes a sequence of manifests; {@link parseManifests} reads the same names and values back, but for a CR, which
 * becomes a newline.
 *
 * @throws {RangeError} for a name or a value that the syntax cannot hold (see {@link cleanText})
 */
export function formatManifests(list: readonly (readonly Field[])[]): string {
  return list
    .map((fields, index) => {
      const start = index === 0 ? `: ${FORMAT_VERSION}\n` : ':\n';
      return start + fields.map(formatPair).join('');
    })
    .join('');
}

/** Replaces what a manifest cannot hold (control characters, lone surrogates) by `?`; for logs and other foreign text. */
export function cleanText(text: string): string {
  return text.replaceAll(/\r\n?/g, '\n').replaceAll(ALL_NOT_GRAPHIC, '?');
}

/**
 * Turns bytes into text.
 *
 * @throws {ManifestError} when the bytes are not UTF-8; the column then counts bytes
 */
export function decodeText(bytes: Uint8Array, options: ParseOptions = {}): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    const source = options.name ?? 'manifest';
    const bad = findInvalidUtf8(bytes);
    const before = bytes.subarray(0, bad);
    const newline = before.lastIndexOf(0x0a);
    const line = before.reduce((count, byte) => (byte === 0x0a ? count + 1 : count), 1);
    throw new ManifestError(
      'these bytes are not UTF-8',
      { source, line, column: bad - newline },
      { cause, hint: 'Manifests are UTF-8 text. Is the file compressed, or in another encoding?' },
    );
  }
}

const FIRST_LINE_HINT = { hint: 'The first line of a manifest is ": 1".' } as const;

/**
 * Reads the value that begins on `lines[start]` at `from`.
 *
 * ```
 * name: value            name:              name: \
 * name: va\              \                  first line
 * lue                    first line         second line
 *                        second line        \
 *                        \
 * ```
 *
 * @returns the value and the index of the first line after it
 */
function readValue(
  lines: readonly string[],
  start: number,
  from: number,
): { readonly value: string; readonly next: number } {
  const first = (lines[start] ?? '').slice(from);
  if (first === '\\') return readMultiLine(lines, start + 1);
  if (first === '' && lines[start + 1] === '\\') return readMultiLine(lines, start + 2);
  let value = '';
  let at = start;
  let rest: string | undefined = first;
  while (rest !== undefined) {
    const { text, joined } = unescapeEnd(rest);
    value += text;
    at += 1;
    if (!joined) break;
    // A line that is "\" alone after a joined one stands for a newline (the one way to have it in this form).
    if (lines[at] === '\\') {
      value += '\n';
      at += 1;
    }
    rest = lines[at];
  }
  return { value: value.replace(/[ \t]+$/, ''), next: at };
}

/** Reads from `lines[start]`, the first line of text, to the line `\` or the end of the file. */
function readMultiLine(lines: readonly string[], start: number): { readonly value: string; readonly next: number } {
  const parts: string[] = [];
  let at = start;
  let separator = '';
  for (; at < lines.length; at += 1) {
    const line = lines[at] ?? '';
    if (line === '\\') return { value: parts.join(''), next: at + 1 };
    const { text, joined } = unescapeEnd(line);
    parts.push(separator, text);
    separator = joined ? '' : '\n';
  }
  return { value: parts.join(''), next: at };
}

/** One backslash at the end of a line joins it with the next; of more, one is dropped and the line ends. */
function unescapeEnd(line: string): { readonly text: string; readonly joined: boolean } {
  if (!line.endsWith('\\')) return { text: line, joined: false };
  return { text: line.slice(0, -1), joined: !line.endsWith('\\\\') };
}

function checkVersion(
  value: string,
  isFirst: boolean,
  place: { readonly source: string; readonly line: number; readonly column: number },
): void {
  if (value === FORMAT_VERSION || (value === '' && !isFirst)) return;
  throw new ManifestError(
    value === '' ? 'the format version is missing' : `format version ${JSON.stringify(value)} is not known`,
    place,
    FIRST_LINE_HINT,
  );
}

function checkCharacters(text: string, source: string): void {
  const bad = NOT_GRAPHIC.exec(text);
  if (bad === null) return;
  const before = text.slice(0, bad.index).split(/\r\n|\r|\n/);
  const code = (bad[0].codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, '0');
  throw new ManifestError(`the character U+${code} is not allowed`, {
    source,
    line: before.length,
    column: Array.from(before.at(-1) ?? '').length + 1,
  });
}

/** The offset of the first byte that does not continue valid UTF-8. */
function findInvalidUtf8(bytes: Uint8Array): number {
  // Bisection: decoding with `stream` accepts every valid prefix, also one that ends inside a character.
  let good = 0;
  let bad = bytes.length;
  while (bad - good > 1) {
    const middle = good + Math.floor((bad - good) / 2);
    if (isUtf8Prefix(bytes.subarray(0, middle))) good = middle;
    else bad = middle;
  }
  return good;
}

function isUtf8Prefix(bytes: Uint8Array): boolean {
  try {
    new TextDecoder('utf-8', { fatal: true }).decode(bytes, { stream: true });
    return true;
  } catch {
    return false;
  }
}

function formatPair([name, value]: Field): string {
  if (!/^[^:#\s][^:\s]*$/u.test(name) || NOT_GRAPHIC.test(name)) {
    throw new RangeError(`Cannot write a manifest: ${JSON.stringify(name)} is not a name`);
  }
  const bad = NOT_GRAPHIC.exec(value);
  if (bad !== null) {
    throw new RangeError(
      `Cannot write a manifest: the value of "${name}" holds ${JSON.stringify(bad[0])} at ${bad.index}`,
    );
  }
  if (value === '') return `${name}:\n`;
  const lines = value.split(/\r\n|\r|\n/).map((line) => (line.endsWith('\\') ? `${line}\\` : line));
  if (lines.length === 1 && !/^[ \t]|[ \t]$/.test(value)) return `${name}: ${lines[0] ?? ''}\n`;
  return `${name}:\n\\\n${lines.join('\n')}\n\\\n`;
}
