/**
 * Settings in files of sections: `[Section]` and `Key=value`, as systemd, GTK and many others have them. With an empty
 * section: settings before the first one, as in /etc/default. Comments, order and everything else stay.
 */
import { z } from 'zod';
import { type Arg, arg } from './args.ts';
import { describeTextChange, keepAttributes, rewrite } from './_file-change.ts';
import { PATH } from './file.ts';
import { type PropertyApplication, defineProperty } from './property.ts';

/** Settings by their key. */
export type IniSettings = Readonly<Record<string, string | number | boolean>>;

const SECTION: Arg<string> = arg(
  'section',
  z.string().regex(/^[^[\]\n]*$/, 'it has "[", "]" or a newline in it'),
  'its name without brackets; empty: before the first section',
);

const SETTINGS: Arg<IniSettings> = arg(
  'settings',
  z.record(
    z.string().regex(/^[^\s=[\];#][^=\n]*$/, 'it cannot be a key'),
    z.union([z.string().regex(/^[^\n]*$/, 'it has a newline in it'), z.number(), z.boolean()]),
  ),
  'values by their key; true and false are written as these words',
);

/** A file has settings in a section; both are added when they lack. Unapplied: the settings are taken out. */
export const hasSettings: (path: string, section: string, settings: IniSettings) => PropertyApplication =
  defineProperty<[path: string, section: string, settings: IniSettings]>({
    id: 'ini.hasSettings',
    kind: 'posix',
    touches: 'own-files',
    about:
      'A file has settings in a section; file, section and keys are added when they lack, the rest of the file stays. ' +
      'Unapplied: the settings are taken out.',
    example: ['/etc/systemd/journald.conf', 'Journal', { Storage: 'volatile', RuntimeMaxUse: '64M' }],
    args: [arg('path', PATH, 'absolute path'), SECTION, SETTINGS],
    parts: (path, section, settings) =>
      Object.entries(settings).map(([key, value]): [string, string, IniSettings] => [path, section, { [key]: value }]),
    manages: (path, section, settings) => Object.keys(settings).map((key) => `setting ${path} [${section}] ${key}`),
    describe: (path, section, settings) =>
      `${path} has ${section === '' ? '' : `[${section}] `}${Object.keys(settings).join(' ')}`,
    hostattrs: (_known, path) => ({ files: [path] }),
    facts: (path) => [
      { fact: 'file', path },
      { fact: 'text', path },
    ],
    check: ({ facts }, path, section, settings) => {
      const text = facts.text(path);
      return text !== undefined && withSettings(text, section, settings) === text;
    },
    plan: async (host, path, section, settings) =>
      await describeTextChange(
        host,
        path,
        withSettings(host.facts.text(path) ?? '', section, settings),
        keepAttributes(host.facts.file(path)),
      ),
    apply: async (host, path, section, settings) =>
      await rewrite(host, path, withSettings(host.facts.text(path) ?? '', section, settings)),
    checkUnapplied: ({ facts }, path, section, settings) => {
      const text = facts.text(path) ?? '';
      return withoutSettings(text, section, Object.keys(settings)) === text;
    },
    unapply: async (host, path, section, settings) =>
      await rewrite(host, path, withoutSettings(host.facts.text(path) ?? '', section, Object.keys(settings))),
  });

/** The text with the settings: in the place of the last of the same key, else at the end of the section. */
export function withSettings(text: string, section: string, settings: IniSettings): string {
  let lines = linesOf(text);
  for (const [key, value] of Object.entries(settings)) {
    const places = placesOf(lines, section);
    const last = places.filter((index) => keyOf(lines[index]) === key).at(-1);
    if (last === undefined) lines = insert(lines, section, places, `${key}=${String(value)}`);
    else lines[last] = `${/^[^=]*=\s*/.exec(lines[last] ?? '')?.[0]}${String(value)}`;
  }
  return lines.map((line) => `${line}\n`).join('');
}

/** The text without the keys of a section. */
export function withoutSettings(text: string, section: string, keys: readonly string[]): string {
  const lines = linesOf(text);
  const places = new Set(placesOf(lines, section).filter((index) => keys.includes(keyOf(lines[index]) ?? '')));
  if (places.size === 0) return text;
  return lines
    .filter((_, index) => !places.has(index))
    .map((line) => `${line}\n`)
    .join('');
}

function linesOf(text: string): string[] {
  const lines = text.split('\n');
  if (lines.at(-1) === '') lines.pop();
  return lines;
}

/** The lines of a section, in all its places, without its headers. */
function placesOf(lines: readonly string[], section: string): number[] {
  let current = '';
  return lines.flatMap((line, index) => {
    const header = headerOf(line);
    if (header !== undefined) current = header;
    return header === undefined && current === section ? [index] : [];
  });
}

/** A new line after the last one of a section that says something; a section that lacks comes at the end. */
function insert(lines: readonly string[], section: string, places: readonly number[], line: string): string[] {
  const header = section === '' ? -1 : lines.findLastIndex((one) => headerOf(one) === section);
  if (section !== '' && header < 0) {
    return [...lines, ...(lines.length === 0 || lines.at(-1) === '' ? [] : ['']), `[${section}]`, line];
  }
  const said = places.filter((index) => lines[index]?.trim() !== '').at(-1) ?? -1;
  return lines.toSpliced(Math.max(said, header) + 1, 0, line);
}

const headerOf = (line: string): string | undefined => /^\s*\[([^\]]*)\]\s*$/.exec(line)?.[1];

/** The key that a line sets; undefined for comments and empty lines. */
const keyOf = (line: string | undefined): string | undefined => /^\s*([^\s=;#][^=]*?)\s*=/.exec(line ?? '')?.[1];
