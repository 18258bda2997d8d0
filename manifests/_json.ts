/** JSON texts checked by a schema; what is wrong is reported with its line and column, as in manifests. */
import type { z } from 'zod';
import { ManifestError } from './manifest.ts';

/** @throws {ManifestError} when the text is not JSON, or not what the schema asks for */
export function parseJson<T>(text: string, schema: z.ZodType<T>, source: string): T {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    const message = cause instanceof Error ? cause.message : String(cause);
    const offset = /at position (\d+)/.exec(message)?.[1];
    // V8 gives no position when the text ends too early.
    const place = placeOf(text, offset === undefined ? text.length : Number(offset));
    throw new ManifestError(`it is not JSON: ${message}`, { source, ...place }, { cause });
  }
  const checked = schema.safeParse(value);
  if (checked.success) return checked.data;
  const [issue] = checked.error.issues;
  const path = [...(issue?.path ?? []), ...(issue?.code === 'unrecognized_keys' ? issue.keys.slice(0, 1) : [])];
  throw new ManifestError(
    `${path.length === 0 ? 'the document' : path.map(String).join('.')}: ${issue?.message ?? 'is wrong'}`,
    { source, ...placeOf(text, findPath(text, path)) },
  );
}

/** Where the last named key of a path stands in the text: found by searching key after key, so good enough to look at. */
function findPath(text: string, path: readonly PropertyKey[]): number {
  let offset = 0;
  for (const key of path) {
    const found = typeof key === 'string' ? text.indexOf(JSON.stringify(key), offset) : -1;
    if (found !== -1) offset = found;
  }
  return offset;
}

function placeOf(text: string, offset: number): { readonly line: number; readonly column: number } {
  const before = text.slice(0, offset).split('\n');
  return { line: before.length, column: (before.at(-1) ?? '').length + 1 };
}
