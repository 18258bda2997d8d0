/**
 * Chains of hops as texts: the JSON form and the Lisp-like form, their simplifications, and the normal form.
 *
 *   [["ssh", {"host": "h"}], ["sudo", {"user": "build"}]]      JSON, normal form but for the first hop
 *   ["ssh", ["sudo", {"user": "build"}]]                       a hop without arguments may be its bare name
 *   "ssh"                                                      a chain of one such hop may be just the name
 *   ((:ssh :host "h") (:sudo :user "build"))                   the same in the Lisp-like form
 *
 * In normal form every hop is a pair or a single-element array, and the first is `local`. Which hops exist, and what
 * arguments they take, is known by hops.ts only.
 */
import type { Chain, Hop } from './connection.ts';

/** A chain cannot be read. Nothing was contacted. */
export class ChainError extends Error {
  override readonly name = 'ChainError';
  readonly hint: string | undefined;

  constructor(reason: string, hint?: string) {
    super(`Cannot read the chain: ${reason}`);
    this.hint = hint;
  }
}

/**
 * Reads a chain in either text form and normalises it.
 *
 * @param source - JSON (`[["chroot",{"into":"/x"}]]`, `"local"`), Lisp-like (`((:chroot :into "/x"))`), or a bare hop name
 * @throws {ChainError}
 */
export function parseChain(source: string): Chain {
  const trimmed = source.trim();
  if (trimmed === '') throw new ChainError('it is empty', 'The shortest chain is "local".');
  if (trimmed.startsWith('(') || trimmed.startsWith(':')) return normaliseChain(parseLisp(trimmed));
  if (/^[a-z][a-z0-9.-]*$/.test(trimmed)) return normaliseChain(trimmed);
  let value: unknown;
  try {
    value = JSON.parse(trimmed);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new ChainError(`${reason} in ${trimmed}`, 'Write [["chroot",{"into":"/x"}]] or ((:chroot :into "/x")).');
  }
  return normaliseChain(value);
}

/**
 * Brings a chain to normal form; a chain in normal form comes back equal.
 *
 * @param value - a chain in any of its JSON shapes, not trusted
 * @throws {ChainError}
 */
export function normaliseChain(value: unknown): Chain {
  const hops = typeof value === 'string' ? [hopFrom(value)] : hopsFrom(value);
  return hops[0]?.[0] === 'local' ? hops : [['local'], ...hops];
}

/** The JSON form of a chain, on one line. */
export function formatChain(chain: Chain): string {
  return JSON.stringify(chain);
}

/** The Lisp-like form of a chain; parseChain reads it back. */
export function formatChainText(chain: Chain): string {
  return `(${chain.map(formatHopText).join(' ')})`;
}

function hopsFrom(value: unknown): Hop[] {
  if (!Array.isArray(value)) {
    throw new ChainError(`${JSON.stringify(value)} is not a list of hops`, 'A chain is [["name",{…}], …].');
  }
  const items: readonly unknown[] = value;
  if (items.length === 2 && typeof items[0] === 'string' && isArgs(items[1])) {
    throw new ChainError(
      `${JSON.stringify(value)} is one hop, not a list of hops`,
      `Put it into a list: ${JSON.stringify([value])}`,
    );
  }
  const hops = items.map(hopFrom);
  const late = hops.findIndex(([name], index) => index > 0 && name === 'local');
  if (late > 0) throw new ChainError(`hop ${late + 1} is "local"`, '"local" can only be the first hop.');
  return hops;
}

function hopFrom(value: unknown): Hop {
  if (typeof value === 'string') return [checkName(value)];
  if (!Array.isArray(value) || typeof value[0] !== 'string' || value.length > 2) {
    throw new ChainError(
      `${JSON.stringify(value)} is not a hop`,
      'A hop is "name" or ["name", {"argument": "value"}]; arguments belong to a hop inside its own brackets.',
    );
  }
  const items: readonly unknown[] = value;
  const name = checkName(value[0]);
  const args = items[1];
  if (args === undefined) return [name];
  if (!isArgs(args)) {
    throw new ChainError(
      `the arguments of hop "${name}" are ${JSON.stringify(args)}`,
      `Write ["${name}", {"argument": "value"}].`,
    );
  }
  const entries = Object.entries(args).map(([key, given]): [string, string | number | boolean] => {
    if (typeof given === 'string' || typeof given === 'boolean') return [key, given];
    if (typeof given === 'number' && Number.isFinite(given)) return [key, given];
    throw new ChainError(
      `argument "${key}" of hop "${name}" is ${JSON.stringify(given)}`,
      'Arguments are strings, numbers or booleans.',
    );
  });
  return entries.length === 0 ? [name] : [name, Object.fromEntries(entries)];
}

function checkName(name: string): string {
  if (/^[a-z][a-z0-9.-]*$/.test(name)) return name;
  throw new ChainError(`${JSON.stringify(name)} is not the name of a hop`, 'Names are like "sudo" or "chroot.shell".');
}

const isArgs = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

function formatHopText([name, args]: Hop): string {
  const words = Object.entries(args ?? {}).map(([key, value]) => `${keyword(key)} ${formatValue(value)}`);
  return words.length === 0 ? `:${name}` : `(:${name} ${words.join(' ')})`;
}

const keyword = (key: string): string => `:${key.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;

function formatValue(value: string | number | boolean): string {
  if (typeof value === 'boolean') return value ? 't' : 'nil';
  if (typeof value === 'number') return String(value);
  return `"${value.replaceAll(/["\\]/g, (character) => `\\${character}`)}"`;
}

// ---- the Lisp-like form ------------------------------------------------------------------------------------------

type Token = { readonly kind: '(' | ')' | 'keyword' | 'value'; readonly at: number; readonly value: unknown };

/** Longest chain that is read, so that a wrong file given as a chain is refused at once. */
const MAX_CHAIN_CHARACTERS = 65_536;

/** Reads the Lisp-like form into the JSON shape; all meaning is left to normaliseChain. */
function parseLisp(source: string): unknown {
  if (source.length > MAX_CHAIN_CHARACTERS) throw new ChainError(`it has ${source.length} characters`);
  const tokens = tokenise(source);
  let next = 0;
  const fail = (token: Token | undefined, wanted: string): never => {
    const at = token === undefined ? 'at its end' : `at character ${token.at + 1}`;
    throw new ChainError(`${wanted} expected ${at} of ${source}`, 'Write ((:ssh :host "h") (:sudo :user "build")).');
  };
  const readHop = (): unknown => {
    const token = tokens[next++];
    if (token?.kind === 'keyword') return token.value;
    if (token?.kind !== '(') return fail(token, 'a hop such as :sudo or (:sudo :user "build")');
    const name = tokens[next++];
    if (name?.kind !== 'keyword') return fail(name, 'the name of a hop such as :sudo');
    const args: [string, unknown][] = [];
    for (;;) {
      const key = tokens[next++];
      if (key?.kind === ')') return args.length === 0 ? [name.value] : [name.value, Object.fromEntries(args)];
      if (key?.kind !== 'keyword') return fail(key, 'an argument such as :user "build", or a closing parenthesis,');
      const value = tokens[next++];
      if (value?.kind !== 'value') return fail(value, `a value for ${String(key.value)}`);
      args.push([camelCase(String(key.value)), value.value]);
    }
  };
  if (tokens[0]?.kind === 'keyword') {
    if (tokens.length > 1) fail(tokens[1], 'nothing more');
    return tokens[0].value;
  }
  next = 1; // the parenthesis that opens the list
  const hops: unknown[] = [];
  while (tokens[next]?.kind !== ')') {
    const token = tokens[next];
    if (token?.kind === 'value') {
      throw new ChainError(
        `the value at character ${token.at + 1} of ${source} stands where a hop should be`,
        `One hop with arguments needs two pairs of parentheses: (${source})`,
      );
    }
    hops.push(readHop());
  }
  if (next + 1 < tokens.length) fail(tokens[next + 1], 'nothing more');
  return hops;
}

function tokenise(source: string): Token[] {
  const pattern =
    /\s*(?:([()])|:([A-Za-z][A-Za-z0-9.-]*)|"((?:[^"\\]|\\.)*)"|(-?\d+(?:\.\d+)?)(?=[\s()]|$)|(t|nil)(?=[\s()]|$))\s*/sy;
  const tokens: Token[] = [];
  while (pattern.lastIndex < source.length) {
    const at = pattern.lastIndex;
    const match = pattern.exec(source);
    if (match === null)
      throw new ChainError(`character ${at + 1} of ${source} makes no sense`, 'Strings need double quotes.');
    const [, parenthesis, name, string, number, bool] = match;
    if (parenthesis === '(' || parenthesis === ')') tokens.push({ kind: parenthesis, at, value: undefined });
    else if (name !== undefined) tokens.push({ kind: 'keyword', at, value: name.toLowerCase() });
    else if (string !== undefined) tokens.push({ kind: 'value', at, value: string.replaceAll(/\\(.)/gs, '$1') });
    else if (number !== undefined) tokens.push({ kind: 'value', at, value: Number(number) });
    else tokens.push({ kind: 'value', at, value: bool === 't' });
  }
  return tokens;
}

const camelCase = (name: string): string => name.replaceAll(/-([a-z])/g, (_, letter: string) => letter.toUpperCase());
