/**
 * How files are compared, replaced and edited, and what a plan says of it. Content is written beside and renamed, and
 * nothing is touched that is right already.
 */
import { createHash } from 'node:crypto';
import { CommandError } from '../connections/connection.ts';
import { unifiedDiff } from './diff.ts';
import type { FileFact } from './facts.ts';
import type { FileOptions } from './file.ts';
import { type HostReader, type HostWriter, type Outcome, FailedChangeError } from './property.ts';

/** For commands that look at files of the host, or change them, and do nothing else. */
export const OWN: { readonly ownFiles: true } = { ownFiles: true };

/** Whether this is a link to that target. */
export function isLink(found: FileFact | undefined, target: string): boolean {
  return found?.type === 'link' && found.target === target;
}

/** SHA-256 of a content, as facts have it. */
export function digestOf(text: string | Uint8Array): string {
  return createHash('sha256').update(text).digest('hex');
}

/** Whether this is a regular file with that digest. */
export function isContent(found: FileFact | undefined, sha256: string): boolean {
  return found?.type === 'file' && found.sha256 === sha256;
}

/** Whether this is a regular file with that digest, mode and owner. */
export function isFile(found: FileFact | undefined, sha256: string, options: FileOptions | undefined): boolean {
  return found !== undefined && isContent(found, sha256) && isOwned(found, options, 0o644);
}

/** Whether mode and owner are as wanted. */
export function isOwned(found: FileFact, options: FileOptions | undefined, defaultMode: number): boolean {
  const [user, group = user] = (options?.owner ?? 'root').split(':');
  const isUser = found.user === user || String(found.uid) === user;
  const isGroup = found.group === group || String(found.gid) === group;
  return found.mode === (options?.mode ?? defaultMode) && isUser && isGroup;
}

/** chown first: it clears set-uid bits. */
const ATTRIBUTES = 'chown -h -- "$1" "$3" && chmod -- "$2" "$3"';

/** Sets owner and mode of what is there. */
export async function setAttributes(
  host: HostWriter,
  path: string,
  options: FileOptions | undefined,
  defaultMode: number,
): Promise<void> {
  const words = attributeWords(options, defaultMode);
  await tryTo(`set owner and mode of ${path}`, () => host.run(['sh', '-c', ATTRIBUTES, 'set', ...words, path], OWN));
}

/** Makes a directory and its parents; owner and mode are for the last only. */
export async function makeDirectory(host: HostWriter, path: string, options: FileOptions | undefined): Promise<void> {
  const words = attributeWords(options, 0o755);
  const script = `umask 022; mkdir -p -- "$3" && ${ATTRIBUTES}`;
  await tryTo(`make the directory ${path}`, () => host.run(['sh', '-c', script, 'make', ...words, path], OWN));
}

/** `user:group`, and the mode in digits. */
function attributeWords(options: FileOptions | undefined, defaultMode: number): readonly [string, string] {
  const [user = 'root', group = user] = (options?.owner ?? 'root').split(':');
  return [`${user}:${group}`, (options?.mode ?? defaultMode).toString(8).padStart(4, '0')];
}

/**
 * One command for directory, content, owner, mode and name. The temporary file is not readable by others before it has
 * its owner and mode.
 */
const WRITE_SCRIPT = `
set -e
umask 022
directory=\${1%/*}/
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
  const durability = (await host.isLive()) ? 'live' : 'image';
  const argv = ['sh', '-c', WRITE_SCRIPT, 'write', path, ...attributeWords(options, 0o644), durability];
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

/** Writes a text that was looked at before (facts `file` and `text`), and keeps owner and mode of the file. */
export async function rewrite(host: HostWriter, path: string, text: string): Promise<void> {
  const found = host.facts.file(path);
  if (found !== undefined && found.type !== 'file')
    throw new FailedChangeError(`Cannot edit ${path}: it is no regular file`);
  const old = host.facts.text(path) ?? '';
  if (Buffer.byteLength(old) !== (found?.sizeBytes ?? 0)) {
    throw new FailedChangeError(`Cannot edit ${path}: it is not UTF-8 text`);
  }
  await writeWhole(host, path, Buffer.from(text), keepAttributes(found));
}

/** Removes a file whose facts were asked for. */
export async function removeFile(host: HostWriter, path: string): Promise<Outcome> {
  if (host.facts.file(path) === undefined) return 'no-change';
  await host.run(['rm', '-f', '--', path], OWN);
  return 'changed';
}

/** Owner and mode of a file as they are. */
export function keepAttributes(found: FileFact | undefined): FileOptions {
  return found === undefined ? {} : { mode: found.mode, owner: `${found.uid}:${found.gid}` };
}

/**
 * A unified diff of a file that would change, and its mode and owner: what a plan shows. What not everybody may read, now
 * or then, is not shown.
 */
export async function describeTextChange(
  host: HostReader,
  path: string,
  text: string,
  options: FileOptions = {},
): Promise<readonly string[]> {
  const found = host.facts.file(path);
  const mode = options.mode ?? 0o644;
  const lines: string[] = [];
  const isRegular = found?.type === 'file';
  if (found !== undefined && !isRegular) lines.push(`${path}: a ${found.type} would be replaced`);
  const hidden = [mode, ...(isRegular ? [found.mode] : [])].some((bits) => (bits & 0o004) === 0);
  const old = isRegular ? Buffer.from(await host.readFile(path)).toString('utf8') : undefined;
  if (old !== text) {
    if (hidden)
      lines.push(`${path}: ${old === undefined ? 'new' : 'other'} content, not shown: not everybody may read it`);
    else lines.push(...unifiedDiff(path, old, text));
  }
  if (isRegular && !isOwned(found, options, 0o644)) lines.push(attributesChange(path, found, { mode, ...options }));
  return lines;
}

/** A line of a plan: mode and owner as they are and as they will be. */
export function attributesChange(
  path: string,
  found: FileFact,
  { mode = found.mode, owner = 'root' }: FileOptions,
): string {
  const [user = 'root', group = user] = owner.split(':');
  return `${path}: ${octal(found.mode)} ${found.user}:${found.group} → ${octal(mode)} ${user}:${group}`;
}

const octal = (mode: number): string => mode.toString(8).padStart(4, '0');
