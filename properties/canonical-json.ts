/** Data as text that can be compared and digested. */
import type { Json } from '../connections/connection.ts';

/** JSON with sorted keys and no spaces: equal data gives equal text. */
export function canonicalJson(value: Json): string {
  if (value === null || typeof value !== 'object') return JSON.stringify(value);
  if (isJsonArray(value)) return `[${value.map(canonicalJson).join(',')}]`;
  const members = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${members.map(([key, member]) => `${JSON.stringify(key)}:${canonicalJson(member)}`).join(',')}}`;
}

const isJsonArray = (value: Json): value is readonly Json[] => Array.isArray(value);
