/** `SHA256SUMS`: the digests of published files, in the form of coreutils' `sha256sum`. */
import { checkDistinct, parseSum } from './_sums.ts';
import type { Sum } from './_sums.ts';
import type { ParseOptions } from './manifest.ts';

/** Reads the lines of a sums file; empty lines and lines that begin with `#` are skipped. @throws {ManifestError} */
export function parseSha256Sums(text: string, options: ParseOptions = {}): readonly Sum[] {
  const source = options.name ?? 'SHA256SUMS';
  const sums = text
    .split(/\r?\n/)
    .map((line, index) => ({ text: line, line: index + 1 }))
    .filter((line) => line.text !== '' && !line.text.startsWith('#'))
    .map((line) => ({ ...parseSum(line.text, { source, line: line.line }), line: line.line }));
  checkDistinct(sums, source);
  return sums.map(({ sha256, path }) => ({ sha256, path }));
}

/** Writes a sums file; `sha256sum --check` reads it. */
export function formatSha256Sums(sums: readonly Sum[]): string {
  return sums.map(({ sha256, path }) => `${sha256} *${path}\n`).join('');
}
