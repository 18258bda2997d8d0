/**
 * Words of a manifest value, such as `CFLAGS="-O2 -g" --disable-nls`: cut at blanks, with the shell's two kinds of quotes
 * and the backslash. Nothing is expanded.
 */

/** A value that is no list of words or assignments; `hint` says what was expected. */
export class WordsError extends Error {
  override readonly name = 'WordsError';
  readonly hint: string;

  constructor(message: string, hint: string) {
    super(message);
    this.hint = hint;
  }
}

/**
 * Cuts a value into words.
 *
 * @throws {WordsError} when a quote is not closed
 */
export function parseWords(value: string): readonly string[] {
  const words: string[] = [];
  let word: string | undefined;
  let quote: string | undefined;
  for (let index = 0; index < value.length; index += 1) {
    const char = value.charAt(index);
    if (quote !== undefined) {
      if (char === quote) quote = undefined;
      else if (char === '\\' && quote === '"' && '"\\$`'.includes(value.charAt(index + 1)))
        word += value.charAt(++index);
      else word += char;
    } else if (/\s/.test(char)) {
      if (word !== undefined) words.push(word);
      word = undefined;
    } else {
      word ??= '';
      if (char === '"' || char === "'") quote = char;
      else if (char === '\\') word += value.charAt(++index);
      else word += char;
    }
  }
  if (quote !== undefined) throw new WordsError(`Cannot read "${value}": a ${quote} is not closed`, 'close the quote');
  if (word !== undefined) words.push(word);
  return words;
}

/**
 * Reads `NAME=value` words.
 *
 * @throws {WordsError} when a word is no assignment
 */
export function parseAssignments(value: string): Readonly<Record<string, string>> {
  const found: Record<string, string> = {};
  for (const word of parseWords(value)) {
    const match = /^([A-Za-z_][A-Za-z0-9_]*)=(.*)$/su.exec(word);
    if (match?.[1] === undefined || match[2] === undefined) {
      throw new WordsError(
        `Cannot set "${word}" in the environment: it is no NAME=value`,
        'named environments are not known here: write the variables themselves, as NAME=value words',
      );
    }
    found[match[1]] = match[2];
  }
  return found;
}
