/** Lines as `sha256sum` writes them, and which file names we let in. */
import { ManifestError } from './manifest.ts';

/** One file and its digest. */
export interface Sum {
  /** Lower case hexadecimal. */
  readonly sha256: string;
  /** Relative, `/` between components, nothing that leads elsewhere. */
  readonly path: string;
}

/**
 * Reads one line `<sha256> *<path>` or `<sha256>  <path>`.
 *
 * @throws {ManifestError} for a line of another form and for a path that is not safe
 */
export function parseSum(text: string, place: { readonly source: string; readonly line: number }): Sum {
  const match = /^([0-9a-fA-F]{64}) [ *](.+)$/.exec(text);
  if (match?.[1] === undefined || match[2] === undefined) {
    throw new ManifestError(
      `"<sha256> *<path>" is expected, found ${JSON.stringify(text.slice(0, 80))}`,
      { ...place, column: 1 },
      { hint: 'Each line is what "sha256sum --binary" prints.' },
    );
  }
  const problem = findPathProblem(match[2]);
  if (problem !== undefined) {
    throw new ManifestError(`the file name ${JSON.stringify(match[2])} ${problem}`, { ...place, column: 67 });
  }
  return { sha256: match[1].toLowerCase(), path: match[2] };
}

/** Refuses a path that is given twice, or that is a file here and a directory there. */
export function checkDistinct(sums: readonly (Sum & { readonly line: number })[], source: string): void {
  const lines = new Map(sums.map(({ path, line }) => [path, line]));
  const seen = new Set<string>();
  for (const { path, line } of sums) {
    if (seen.has(path)) throw new ManifestError(`the file "${path}" is listed twice`, { source, line, column: 67 });
    seen.add(path);
    for (let slash = path.indexOf('/'); slash !== -1; slash = path.indexOf('/', slash + 1)) {
      const other = lines.get(path.slice(0, slash));
      if (other !== undefined) {
        throw new ManifestError(`"${path.slice(0, slash)}" is a file on line ${other} and a directory here`, {
          source,
          line,
          column: 67,
        });
      }
    }
  }
}

/** Why a path from outside must not be used; nothing when it may. */
export function findPathProblem(path: string): string | undefined {
  if (path.startsWith('/')) return 'is absolute';
  // oxlint-disable-next-line no-control-regex -- control characters are exactly what is refused
  if (/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/.test(path)) return 'holds a control character';
  if (path.includes('\\')) return 'holds a backslash';
  if (path.length > 1000) return 'is longer than 1000 characters';
  for (const component of path.split('/')) {
    if (component === '') return 'has an empty component';
    if (component === '.' || component === '..') return `leads elsewhere ("${component}")`;
    if (new TextEncoder().encode(component).length > 255) return 'has a component longer than 255 bytes';
  }
  return undefined;
}
