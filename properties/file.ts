/** Files, directories and links. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import {
  OWN,
  attributesChange,
  describeTextChange,
  digestOf,
  isContent,
  isFile,
  isLink,
  isOwned,
  keepAttributes,
  makeDirectory,
  removeFile,
  rewrite,
  setAttributes,
  writeWhole,
} from './_file-change.ts';
import { type Arg, arg, textThat } from './args.ts';
import { DATA_REF, type DataRef, describeRef } from './data.ts';
import { type FactRequest, type FileFact } from './facts.ts';
import { type PropertyApplication, type Source, FailedChangeError, SOURCE, defineProperty } from './property.ts';

/** Permissions and owner of a file or directory. */
export type FileOptions = {
  /** Permission bits; default 0644 for files, 0755 for directories. */
  readonly mode?: number;
  /** `user` or `user:group`; default root:root. */
  readonly owner?: string;
};

/** The schema of a path. */
export const PATH: z.ZodType<string> = textThat(isAbsolutePath, 'an absolute path without "//", "." and ".."');

/** The schema of {@link FileOptions}. */
const FILE_OPTIONS: z.ZodType<FileOptions> = z.strictObject({
  mode: z.int().min(0).max(0o7777).exactOptional(),
  owner: z
    .string()
    .regex(/^[A-Za-z0-9_][A-Za-z0-9_.-]*(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?$/, 'it is not "user" or "user:group"')
    .exactOptional(),
});

const PATH_ARG: Arg<string> = arg('path', PATH, 'absolute path');
const OPTIONS_ARG: Arg<FileOptions | undefined> = arg(
  'options',
  FILE_OPTIONS.optional(),
  'permission bits (default 0644, directories 0755) and "user" or "user:group" (default root)',
);

/** A file has exactly this text. Its directory must exist or is made with mode 0755. Unapplied: the file goes away. */
export const hasContent: (path: string, text: string, options?: FileOptions) => PropertyApplication = defineProperty<
  [path: string, text: string, options?: FileOptions]
>({
  id: 'file.hasContent',
  kind: 'posix',
  about:
    'A file has exactly this text. Its directory must exist or is made with mode 0755. Unapplied: the file goes away.',
  example: ['/etc/issue', 'Build OS on \\l\n', { mode: 0o644, owner: 'root:root' }],
  args: [PATH_ARG, arg('text', z.string(), 'all of it'), OPTIONS_ARG],
  manages: managesPath,
  touches: 'own-files',
  describe: (path) => `${path} has its content`,
  hostattrs: (_known, path) => ({ files: [path] }),
  facts: (path) => [{ fact: 'file', path, digest: true }],
  check: ({ facts }, path, text, options) => isFile(facts.file(path), digestOf(text), options),
  plan: async (host, path, text, options) => await describeTextChange(host, path, text, options),
  apply: async (host, path, text, options) => {
    if (isContent(host.facts.file(path), digestOf(text))) await setAttributes(host, path, options, 0o644);
    else await writeWhole(host, path, Buffer.from(text), options);
  },
  checkUnapplied: ({ facts }, path) => facts.file(path) === undefined,
  unapply: async (host, path) => await removeFile(host, path),
});

/** A file has the bytes of a file of the controller, named by its SHA-256. Unapplied: the file goes away. */
export const hasFile: (path: string, source: Source, options?: FileOptions) => PropertyApplication = defineProperty<
  [path: string, source: Source, options?: FileOptions]
>({
  id: 'file.hasFile',
  kind: 'posix',
  about:
    'A file has the bytes of a file of the controller, named by its SHA-256; file.sourceOf() reads it. Unapplied: the file goes away.',
  example: [
    '/usr/local/bin/tool',
    { source: '/home/joe/tool', sha256: 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855' },
    { mode: 0o755 },
  ],
  args: [PATH_ARG, arg('source', SOURCE, 'the file where the controller runs, and its digest'), OPTIONS_ARG],
  manages: managesPath,
  touches: 'own-files',
  describe: (path, { sha256 }) => `${path} is the file ${sha256.slice(0, 12)}`,
  hostattrs: (_known, path, { source, sha256 }) => ({ files: [path], sources: [{ source, sha256 }] }),
  facts: (path) => [{ fact: 'file', path, digest: true }],
  check: ({ facts }, path, { sha256 }, options) => isFile(facts.file(path), sha256, options),
  apply: async (host, path, source, options) => {
    if (isContent(host.facts.file(path), source.sha256)) await setAttributes(host, path, options, 0o644);
    else await writeWhole(host, path, await host.readSource(source), options);
  },
  checkUnapplied: ({ facts }, path) => facts.file(path) === undefined,
  unapply: async (host, path) => await removeFile(host, path),
});

/**
 * A file has prerequisite data as its content, such as a private key. Its bytes are in no definition, message, plan or
 * memory. Unapplied: the file goes away.
 */
export const hasData: (path: string, data: DataRef, options?: FileOptions) => PropertyApplication = defineProperty<
  [path: string, data: DataRef, options?: FileOptions]
>({
  id: 'file.hasData',
  kind: 'posix',
  about:
    'A file has prerequisite data as its content, such as a private key; by default only root may read it. Its bytes are ' +
    'in no definition, message, plan or memory, unless they are called public. Unapplied: the file goes away.',
  example: [
    '/etc/ssl/private/my-host.key',
    { context: 'my-host', name: 'tls.key' },
    { mode: 0o640, owner: 'root:ssl-cert' },
  ],
  args: [
    PATH_ARG,
    arg('data', DATA_REF, 'context and name of the data'),
    arg(
      'options',
      FILE_OPTIONS.optional(),
      'permission bits (default 0600, of public data 0644) and owner (default root)',
    ),
  ],
  manages: managesPath,
  touches: 'own-files',
  describe: (path, data) => `${path} has the data ${describeRef(data)}`,
  hostattrs: (_known, path) => ({ files: [path] }),
  data: (_path, data) => [data],
  facts: (path) => [{ fact: 'file', path, digest: true }],
  check: async (host, path, data, options) =>
    isFile(host.facts.file(path), digestOf((await host.data(data)).reveal()), { mode: modeOf(data), ...options }),
  plan: async (host, path, data, options) => {
    if (data.public !== true) return [`${host.facts.file(path) === undefined ? '+++' : '~~~'} ${path}: [secret]`];
    return await describeTextChange(
      host,
      path,
      Buffer.from((await host.data(data)).reveal()).toString('utf8'),
      options,
    );
  },
  apply: async (host, path, data, options) => {
    const content = (await host.data(data)).reveal();
    const wanted = { mode: modeOf(data), ...options };
    if (isContent(host.facts.file(path), digestOf(content))) await setAttributes(host, path, wanted, modeOf(data));
    else await writeWhole(host, path, content, wanted);
  },
  checkUnapplied: ({ facts }, path) => facts.file(path) === undefined,
  unapply: async (host, path) => await removeFile(host, path),
});

const modeOf = (data: DataRef): number => (data.public === true ? 0o644 : 0o600);

/** A file has these lines somewhere; those that lack are put at its end. Unapplied: they are taken out. */
export const hasLines: (path: string, lines: readonly string[]) => PropertyApplication = defineProperty<
  [path: string, lines: readonly string[]]
>({
  id: 'file.hasLines',
  kind: 'posix',
  about: 'A file has these lines somewhere; those that lack are put at its end. Unapplied: they are taken out.',
  example: ['/etc/services', ['buildos 6969/udp']],
  args: [PATH_ARG, arg('lines', z.array(z.string().regex(/^[^\n]*$/, 'it has a newline in it')), 'whole lines')],
  parts: (path, lines) => lines.map((line): [string, readonly string[]] => [path, [line]]),
  manages: (path, lines) => lines.map((line) => `line ${path} ${line}`),
  touches: 'own-files',
  describe: (path, lines) => `${path} has ${lines.length === 1 ? `the line "${lines[0]}"` : `${lines.length} lines`}`,
  hostattrs: (_known, path) => ({ files: [path] }),
  facts: textFacts,
  check: ({ facts }, path, lines) => {
    const has = new Set(facts.text(path)?.split('\n'));
    return lines.every((line) => has.has(line));
  },
  plan: async (host, path, lines) =>
    await describeTextChange(
      host,
      path,
      withLines(host.facts.text(path) ?? '', lines),
      keepAttributes(host.facts.file(path)),
    ),
  apply: async (host, path, lines) => await rewrite(host, path, withLines(host.facts.text(path) ?? '', lines)),
  checkUnapplied: ({ facts }, path, lines) =>
    !facts
      .text(path)
      ?.split('\n')
      .some((line) => lines.includes(line)),
  unapply: async (host, path, lines) => {
    const kept = (host.facts.text(path) ?? '').split('\n').filter((line) => !lines.includes(line));
    await rewrite(host, path, kept.join('\n'));
  },
});

/** A directory is there; missing parents are made with mode 0755. Unapplied: it goes away if it is empty. */
export const directory: (path: string, options?: FileOptions) => PropertyApplication = defineProperty<
  [path: string, options?: FileOptions]
>({
  id: 'file.directory',
  kind: 'posix',
  about: 'A directory is there; missing parents are made with mode 0755. Unapplied: it goes away if it is empty.',
  example: ['/srv/www', { mode: 0o750, owner: 'www-data' }],
  args: [PATH_ARG, OPTIONS_ARG],
  manages: managesPath,
  touches: 'own-files',
  describe: (path) => `${path} is a directory`,
  facts: fileFacts,
  check: ({ facts }, path, options) => {
    const found = facts.file(path);
    return found?.type === 'directory' && isOwned(found, options, 0o755);
  },
  apply: async (host, path, options) => {
    if (host.facts.file(path)?.type === 'directory') await setAttributes(host, path, options, 0o755);
    else await makeDirectory(host, path, options);
  },
  checkUnapplied: ({ facts }, path) => facts.file(path) === undefined,
  unapply: async (host, path) => {
    await host.run(['rmdir', '--ignore-fail-on-non-empty', '--', path], OWN);
  },
});

/** A file or directory that is there has this mode and owner; its content is left alone. */
export const hasAttributes: (path: string, options: FileOptions) => PropertyApplication = defineProperty<
  [path: string, options: FileOptions]
>({
  id: 'file.hasAttributes',
  kind: 'posix',
  about:
    'A file or directory that is there has this mode and owner, what is not given stays; its content is left alone.',
  example: ['/etc/crontab', { mode: 0o600 }],
  args: [PATH_ARG, arg('options', FILE_OPTIONS, 'permission bits, and "user" or "user:group"')],
  manages: (path) => [`attributes ${path}`],
  touches: 'own-files',
  describe: (path) => `${path} has its mode and owner`,
  facts: fileFacts,
  check: ({ facts }, path, options) => {
    const found = facts.file(path);
    return found !== undefined && isOwned(found, completed(found, options), found.mode);
  },
  plan: ({ facts }, path, options) => {
    const found = facts.file(path);
    return found === undefined
      ? [`${path} is not there yet`]
      : [attributesChange(path, found, completed(found, options))];
  },
  apply: async (host, path, options) => {
    const found = host.facts.file(path);
    if (found === undefined || found.type === 'link') {
      throw new FailedChangeError(
        `Cannot set owner and mode of ${path}: ${found === undefined ? 'nothing is there' : 'it is a link'}`,
      );
    }
    await setAttributes(host, path, completed(found, options), found.mode);
  },
});

/** Nothing is at a path: a file or link is removed, a directory with all that is in it. */
export const absent: (path: string) => PropertyApplication = defineProperty<[path: string]>({
  id: 'file.absent',
  kind: 'posix',
  about: 'Nothing is at a path: a file or link is removed, a directory with all that is in it.',
  example: ['/etc/motd'],
  args: [PATH_ARG],
  manages: managesPath,
  touches: 'own-files',
  describe: (path) => `${path} is absent`,
  facts: fileFacts,
  check: ({ facts }, path) => facts.file(path) === undefined,
  apply: async (host, path) => void (await host.run(['rm', '-rf', '--one-file-system', '--', path], OWN)),
});

/** A path is a symbolic link to a target, which need not exist. A file or link in its place goes away, a directory does not. */
export const symlink: (path: string, target: string) => PropertyApplication = defineProperty<
  [path: string, target: string]
>({
  id: 'file.symlink',
  kind: 'posix',
  about:
    'A path is a symbolic link to a target, which need not exist. A file or link in its place goes away, a directory does ' +
    'not. Unapplied: the link goes away.',
  example: ['/etc/resolv.conf', '../run/systemd/resolve/stub-resolv.conf'],
  args: [
    PATH_ARG,
    arg(
      'target',
      textThat((target) => /^[^\0]+$/.test(target), 'a path'),
      'where it points',
    ),
  ],
  manages: managesPath,
  touches: 'own-files',
  describe: (path, target) => `${path} points to ${target}`,
  hostattrs: (_known, path) => ({ files: [path] }),
  facts: fileFacts,
  check: ({ facts }, path, target) => isLink(facts.file(path), target),
  apply: async (host, path, target) => {
    if (host.facts.file(path)?.type === 'directory')
      throw new FailedChangeError(`Cannot make ${path} a link: it is a directory`);
    await host.run(['sh', '-c', LINK_SCRIPT, 'link', target, path], OWN);
  },
  checkUnapplied: ({ facts }, path, target) => !isLink(facts.file(path), target),
  unapply: async (host, path) => void (await host.run(['rm', '-f', '--', path], OWN)),
});

/** `link TARGET PATH`: where something is, the new link takes its place in one step. */
const LINK_SCRIPT = `
set -e
directory=\${2%/*}/
[ -d "$directory" ] || mkdir -p -- "$directory"
if [ ! -e "$2" ] && [ ! -L "$2" ]; then exec ln -sT -- "$1" "$2"; fi
new=$2.$$.tmp
trap 'rm -f -- "$new"' EXIT
ln -s -- "$1" "$new"
mv -fT -- "$new" "$2"
`;

function fileFacts(path: string): readonly FactRequest[] {
  return [{ fact: 'file', path }];
}

function textFacts(path: string): readonly FactRequest[] {
  return [
    { fact: 'file', path },
    { fact: 'text', path },
  ];
}

/**
 * A file of the controller as {@link hasFile} takes it.
 *
 * @param path - absolute, or a file: URL: new URL('./tool', import.meta.url)
 */
export function sourceOf(path: string | URL): Source {
  const full = path instanceof URL ? fileURLToPath(path) : path;
  return { source: full, sha256: digestOf(readFileSync(full)) };
}

/** Whether this is an absolute path below the root, without `//`, `.` and `..`. */
export function isAbsolutePath(path: string): boolean {
  return /^\/[^\0]*[^\0/]$/.test(path) && !/\/(\.{0,2})(\/|$)/.test(path.slice(1).replace(/^/, '/'));
}

/** What a file manages: its path, whichever property has it. */
function managesPath(path: string): readonly string[] {
  return [`file ${path}`];
}

/** A text with those of the lines at its end that it lacks. */
function withLines(old: string, lines: readonly string[]): string {
  const has = new Set(old.split('\n'));
  const start = old === '' || old.endsWith('\n') ? old : `${old}\n`;
  return (
    start +
    lines
      .filter((line) => !has.has(line))
      .map((line) => `${line}\n`)
      .join('')
  );
}

/** Options in which what is not given is as it is. */
const completed = (found: FileFact, { mode, owner }: FileOptions): FileOptions => ({
  mode: mode ?? found.mode,
  owner: owner ?? `${found.user}:${found.group}`,
});
