/**
 * A toolchain's list of files, as build2 publishes it:
 *
 * ```
 * # 0.17.0
 * <sha256> *<dir>/<file>
 * ```
 *
 * The one word `disabled` instead of files switches the toolchain off.
 */
import { createHash } from 'node:crypto';
import { checkDistinct, parseSum } from './_sums.ts';
import type { Sum } from './_sums.ts';
import { ManifestError } from './manifest.ts';
import type { ParseOptions } from './manifest.ts';

export interface ToolchainList {
  /** SHA-256 of the list's text, lower case hexadecimal: the toolchain's id. */
  readonly id: string;
  /** From the first line; empty when a disabled list has none. */
  readonly version: string;
  readonly disabled: boolean;
  /** At least one, unless disabled; paths are safe, relative to the list, and distinct. */
  readonly files: readonly Sum[];
}

/** What the host writes beside a toolchain's files; a list must not bring files of these names. */
export const TOOLCHAIN_RESERVED: readonly string[] = ['bootstrap.log', 'toolchain.tar'];

/** Reads a list. @throws {ManifestError} */
export function parseToolchainList(text: string, options: ParseOptions = {}): ToolchainList {
  const source = options.name ?? 'toolchain list';
  const id = createHash('sha256').update(text).digest('hex');
  const lines = text.split(/\r?\n/).map((line, index) => ({ text: line.trimEnd(), line: index + 1 }));
  const filled = lines.filter((line) => line.text !== '');
  const version = /^# *([A-Za-z0-9][A-Za-z0-9.+~_-]{0,99})$/.exec(lines[0]?.text ?? '')?.[1];
  const rest = version === undefined ? filled : filled.slice(1);
  if (rest.length === 1 && rest[0]?.text === 'disabled') {
    return { id, version: version ?? '', disabled: true, files: [] };
  }
  if (version === undefined) {
    throw new ManifestError(
      `"# <version>" is expected, found ${JSON.stringify((lines[0]?.text ?? '').slice(0, 80))}`,
      { source, line: 1, column: 1 },
      { hint: 'The first line is "# " and the toolchain\'s version; is this URL the list itself?' },
    );
  }
  const sums = rest
    .filter((line) => !line.text.startsWith('#'))
    .map((line) => ({ ...parseSum(line.text, { source, line: line.line }), line: line.line }));
  if (sums.length === 0) throw new ManifestError('it lists no files', { source, line: lines.length, column: 1 });
  for (const { path, line } of sums) {
    if (TOOLCHAIN_RESERVED.includes(path)) {
      throw new ManifestError(`the file name "${path}" is the host's own`, { source, line, column: 67 });
    }
  }
  checkDistinct(sums, source);
  return { id, version, disabled: false, files: sums.map(({ sha256, path }) => ({ sha256, path })) };
}

/** Writes a list; its id is that of the text written. */
export function formatToolchainList(list: Omit<ToolchainList, 'id'>): string {
  const head = list.version === '' ? '' : `# ${list.version}\n`;
  if (list.disabled) return `${head}disabled\n`;
  return head + list.files.map(({ sha256, path }) => `${sha256} *${path}\n`).join('');
}
