/**
 * Files, directories and links. Content is written beside and renamed, links are replaced in one step, and nothing is
 * touched that is right already.
 */
import { createHash } from 'node:crypto';
import { CommandError } from '../connections/connection.ts';
import { type FactRequest, type FileFact } from './facts.ts';
import {
  type HostReader,
  type HostWriter,
  type Outcome,
  type PropertyApplication,
  type Source,
  FailedChangeError,
  defineProperty,
} from './property.ts';

/** Permissions and owner of a file or directory. */
export type FileOptions = {
  /** Permission bits; default 0644 for files, 0755 for directories. */
  readonly mode?: number;
  /** `user` or `user:group`; default root:root. */
  readonly owner?: string;
};

/** A file has exactly this text. Its directory must exist or is made with mode 0755. Unapplied: the file goes away. */
export const hasContent: (path: string, text: string, options?: FileOptions) => PropertyApplication = defineProperty<
  [path: string, text: string, options?: FileOptions]
>({
  id: 'file.hasContent',
  kind: 'posix',
  touches: 'own-files',
  describe: (path) => `${path} has its content`,
  args: (path, _text, options) => checkFile(path, options),
  hostattrs: (_known, path) => ({ files: [path] }),
  facts: (path) => [{ fact: 'file', path, digest: true }],
  check: ({ facts }, path, text, options) => isFile(facts.file(path), digestOf(text), options),
  plan: async (host, path, text) => await describeTextChange(host, path, text),
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
  touches: 'own-files',
  describe: (path, { sha256 }) => `${path} is the file ${sha256.slice(0, 12)}`,
  args: (path, { source, sha256 }, options) => {
    checkFile(path, options);
    if (!source.startsWith('/')) throw new TypeError(`The source "${source}" must be an absolute path`);
    if (!/^[0-9a-f]{64}$/.test(sha256)) throw new TypeError(`"${sha256}" is not a SHA-256`);
  },
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

/** A file has these lines somewhere; those that lack are put at its end. Unapplied: they are taken out. */
export const hasLines: (path: string, lines: readonly string[]) => PropertyApplication = defineProperty<
  [path: string, lines: readonly string[]]
>({
  id: 'file.hasLines',
  kind: 'posix',
  touches: 'own-files',
  describe: (path, lines) => `${path} has ${lines.length === 1 ? `the line "${lines[0]}"` : `${lines.length} lines`}`,
  args: (path, lines) => {
    checkFile(path);
    const broken = lines.find((line) => line.includes('\n'));
    if (broken !== undefined) throw new TypeError(`A line for ${path} has a newline in it`);
  },
  hostattrs: (_known, path) => ({ files: [path] }),
  facts: textFacts,
  check: ({ facts }, path, lines) => {
    const has = new Set(facts.text(path)?.split('\n'));
    return lines.every((line) => has.has(line));
  },
  apply: async (host, path, lines) => {
    const old = host.facts.text(path) ?? '';
    const has = new Set(old.split('\n'));
    const start = old === '' || old.endsWith('\n') ? old : `${old}\n`;
    await rewrite(
      host,
      path,
      start +
        lines
          .filter((line) => !has.has(line))
          .map((line) => `${line}\n`)
          .join(''),
    );
  },
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
  touches: 'own-files',
  describe: (path) => `${path} is a directory`,
  args: (path, options) => checkFile(path, options),
  facts: fileFacts,
  check: ({ facts }, path, options) => {
    const found = facts.file(path);
    return found?.type === 'directory' && hasAttributes(found, options, 0o755);
  },
  apply: async (host, path, options) => {
    await host.run(['mkdir', '-p', '--', path], OWN);
    await setAttributes(host, path, options, 0o755);
  },
  checkUnapplied: ({ facts }, path) => facts.file(path) === undefined,
  unapply: async (host, path) => void (await host.run(['rmdir', '--', path])),
});

/** Nothing is at a path: a file or link is removed, a directory with all that is in it. */
export const absent: (path: string) => PropertyApplication = defineProperty<[path: string]>({
  id: 'file.absent',
  kind: 'posix',
  touches: 'own-files',
  describe: (path) => `${path} is absent`,
  args: (path) => checkFile(path),
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
  touches: 'own-files',
  describe: (path, target) => `${path} points to ${target}`,
  args: (path, target) => {
    checkFile(path);
    if (target === '' || target.includes('\0'))
      throw new TypeError(`${path} cannot point to ${JSON.stringify(target)}`);
  },
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

/** The host's own files, not what a chroot puts over them. */
const OWN = { ownFiles: true } as const;

/** `link TARGET PATH`: the new link takes the old one's place in one step. */
const LINK_SCRIPT = `
set -e
mkdir -p -- "$(dirname -- "$2")"
new=$2.$$.tmp
trap 'rm -f -- "$new"' EXIT
ln -s -- "$1" "$new"
mv -fT -- "$new" "$2"
`;

/** Whether this is a link to that target. */
export function isLink(found: FileFact | undefined, target: string): boolean {
  return found?.type === 'link' && found.target === target;
}

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
 * Refuses paths and options that cannot be right.
 *
 * @throws {TypeError | RangeError}
 */
export function checkFile(path: string, options: FileOptions = {}): void {
  if (!/^\/[^\0]*[^\0/]$/.test(path) || /\/(\.{0,2})(\/|$)/.test(path.slice(1).replace(/^/, '/'))) {
    throw new TypeError(`"${path}" must be an absolute path without "//", "." and ".."`);
  }
  if (options.mode !== undefined && !(Number.isInteger(options.mode) && options.mode >= 0 && options.mode <= 0o7777)) {
    throw new RangeError(`The mode of ${path} must be between 0 and 0o7777`);
  }
  if (
    options.owner !== undefined &&
    !/^[A-Za-z0-9_][A-Za-z0-9_.-]*(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?$/.test(options.owner)
  ) {
    throw new TypeError(`"${options.owner}" is not "user" or "user:group"`);
  }
}

/** SHA-256 of a text, as facts have it. */
export function digestOf(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

const isContent = (found: FileFact | undefined, sha256: string): boolean =>
  found?.type === 'file' && found.sha256 === sha256;

/** Whether this is a regular file with that digest, mode and owner. */
export function isFile(found: FileFact | undefined, sha256: string, options: FileOptions | undefined): boolean {
  return found !== undefined && isContent(found, sha256) && hasAttributes(found, options, 0o644);
}

function hasAttributes(found: FileFact, options: FileOptions | undefined, defaultMode: number): boolean {
  const [user, group = user] = (options?.owner ?? 'root').split(':');
  const isUser = found.user === user || String(found.uid) === user;
  const isGroup = found.group === group || String(found.gid) === group;
  return found.mode === (options?.mode ?? defaultMode) && isUser && isGroup;
}

/** chown first: it clears set-uid bits. */
async function setAttributes(
  host: HostWriter,
  path: string,
  options: FileOptions | undefined,
  defaultMode: number,
): Promise<void> {
  const [user = 'root', group = user] = (options?.owner ?? 'root').split(':');
  const mode = (options?.mode ?? defaultMode).toString(8).padStart(4, '0');
  const script = 'chown -h -- "$1" "$3" && chmod -- "$2" "$3"';
  await tryTo(`set owner and mode of ${path}`, () =>
    host.run(['sh', '-c', script, 'set', `${user}:${group}`, mode, path], OWN),
  );
}

/**
 * One command for directory, content, owner, mode and name. The temporary file is not readable by others before it has
 * its owner and mode.
 */
const WRITE_SCRIPT = `
set -e
umask 022
directory=$(dirname -- "$1")
[ -d "$directory" ] || mkdir -p -- "$directory"
if [ -d "$1" ] && [ ! -L "$1" ]; then echo "$1: Is a directory" >&2; exit 1; fi
new=$(mktemp -- "$1.XXXXXXXX")
trap 'rm -f -- "$new"' EXIT
trap 'exit 143' TERM
cat > "$new"
chown -- "$2" "$new"
chmod -- "$3" "$new"
if [ "$4" = live ]; then sync -- "$new"; fi
mv -fT -- "$new" "$1"
trap - EXIT
`;

/** Replaces a file in one step, with owner and mode; its directory is made when it is missing. */
export async function writeWhole(
  host: HostWriter,
  path: string,
  content: Uint8Array,
  options: FileOptions | undefined,
): Promise<void> {
  const [user = 'root', group = user] = (options?.owner ?? 'root').split(':');
  const mode = (options?.mode ?? 0o644).toString(8).padStart(4, '0');
  const durability = (await host.isLive()) ? 'live' : 'image';
  const argv = ['sh', '-c', WRITE_SCRIPT, 'write', path, `${user}:${group}`, mode, durability];
  await tryTo(`write ${path}`, () => host.run(argv, { ...OWN, input: content }));
}

/** Names what failed rather than the script that did it; the command is in the cause. */
async function tryTo(what: string, act: () => Promise<unknown>): Promise<void> {
  try {
    await act();
  } catch (cause) {
    if (!(cause instanceof CommandError) || cause.failure !== 'status') throw cause;
    const said = Buffer.from(cause.stderr).toString('utf8').trim();
    throw new FailedChangeError(`Cannot ${what}: ${said === '' ? `status ${cause.status}` : said}`, { cause });
  }
}

/** Writes a text that was looked at before, and keeps owner and mode of the file. */
async function rewrite(host: HostWriter, path: string, text: string): Promise<void> {
  const found = host.facts.file(path);
  if (found !== undefined && found.type !== 'file')
    throw new FailedChangeError(`Cannot edit ${path}: it is no regular file`);
  const old = host.facts.text(path) ?? '';
  if (Buffer.byteLength(old) !== (found?.sizeBytes ?? 0)) {
    throw new FailedChangeError(`Cannot edit ${path}: it is not UTF-8 text`);
  }
  const kept = found === undefined ? {} : { mode: found.mode, owner: `${found.uid}:${found.gid}` };
  await writeWhole(host, path, Buffer.from(text), kept);
}

/** Removes a file whose facts were asked for. */
export async function removeFile(host: HostWriter, path: string): Promise<Outcome> {
  if (host.facts.file(path) === undefined) return 'no-change';
  await host.run(['rm', '-f', '--', path], OWN);
  return 'changed';
}

/** A small unified diff without context: what a plan shows. */
export async function describeTextChange(host: HostReader, path: string, text: string): Promise<readonly string[]> {
  const found = host.facts.file(path);
  if (found?.type !== 'file') return [`+++ ${path} (new)`];
  const old = Buffer.from(await host.readFile(path))
    .toString('utf8')
    .split('\n');
  const wanted = text.split('\n');
  let head = 0;
  while (head < Math.min(old.length, wanted.length) && old[head] === wanted[head]) head++;
  let tail = 0;
  while (tail < Math.min(old.length, wanted.length) - head && old.at(-1 - tail) === wanted.at(-1 - tail)) tail++;
  const removed = old.slice(head, old.length - tail);
  const added = wanted.slice(head, wanted.length - tail);
  if (removed.length === 0 && added.length === 0) return [`${path}: mode or owner`];
  return [
    `--- ${path}`,
    `+++ ${path}`,
    `@@ -${head + 1},${removed.length} +${head + 1},${added.length} @@`,
    ...removed.map((line) => `-${line}`),
    ...added.map((line) => `+${line}`),
  ];
}
