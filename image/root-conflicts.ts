/** What two packages of a root have in common, as dpkg would have it. */
import { lstat } from 'node:fs/promises';
import { join } from 'node:path';
import { type Connection, shellQuote } from '../connections/connection.ts';
import { BootstrapError } from './bootstrap-error.ts';
import type { PackageMember } from './package-content.ts';
import type { RootPackage } from './root-packages.ts';
import { FIRST } from './root-unpack.ts';

const TIMEOUT_MS = 10 * 60_000;

/** Which packages meet. */
export interface MeetingPackages {
  /** In the root, and configured. */
  readonly installed: readonly RootPackage[];
  /** Just unpacked. */
  readonly added: readonly RootPackage[];
}

/**
 * Notes the attributes of the folders that are in a root before packages are added to it: packages or scripts made them.
 *
 * @param root - as this process sees it
 */
export async function readFolders(root: string, added: readonly RootPackage[]): Promise<ReadonlyMap<string, string>> {
  const paths = added.flatMap(({ members }) => members.filter(({ directory }) => directory).map(({ path }) => path));
  const folders = new Map<string, string>();
  for (const path of new Set(paths.map(merged))) {
    const info = await lstat(join(root, path)).catch(() => undefined);
    if (info?.isDirectory()) folders.set(path, `${(info.mode & 0o7777).toString(8)} ${info.uid}:${info.gid}`);
  }
  return folders;
}

/**
 * What two packages have in common is as dpkg has it, whichever tar came first: a directory has the attributes of the
 * first package (by name), or those that it had before; a file is that of the package that replaces the other.
 *
 * @throws {BootstrapError} when two packages have the same file, and none replaces the other
 */
export async function settleConflicts(
  on: Connection,
  root: string,
  packages: MeetingPackages & { readonly folders: ReadonlyMap<string, string> },
): Promise<void> {
  const { installed, added, folders } = packages;
  const owners = new Map<string, { readonly by: RootPackage; readonly member: PackageMember }>();
  for (const by of installed) for (const member of by.members) owners.set(merged(member.path), { by, member });
  const shared = new Map<string, string>();
  const script: string[] = [];
  const first = added.filter(({ id }) => id === FIRST);
  for (const by of [...first, ...added.filter(({ id }) => id !== FIRST)]) {
    for (const member of by.members) {
      const path = merged(member.path);
      const other = owners.get(path);
      if (other === undefined) owners.set(path, { by, member });
      else if (other.member.directory !== member.directory) {
        // A link to a directory, such as /lib, which --keep-directory-symlink kept.
      } else if (member.directory) {
        // Set even if both agree: one tar may have taken the other's provisional 0700 for the mode to restore.
        shared.set(path, folders.get(path) ?? other.member.attributes);
      } else {
        const winner = replaces(by, other.by) ? { by, member } : replaces(other.by, by) ? other : undefined;
        if (winner === undefined) {
          throw new BootstrapError(
            `Cannot unpack ${by.id}: /${path} is in the package ${other.by.id} too`,
            'one of the two packages has a fault: leave one of them out',
          );
        }
        owners.set(path, winner);
        if (winner.member.leftOut) continue;
        script.push(
          `dpkg-deb --fsys-tarfile ${shellQuote([winner.by.deb])} | tar --extract --overwrite --numeric-owner ` +
            `--preserve-permissions --keep-directory-symlink ${shellQuote([`./${winner.member.path}`])}`,
        );
      }
    }
  }
  const present = new Set(
    added.flatMap(({ members }) => members.filter(({ leftOut }) => !leftOut).map(({ path }) => merged(path))),
  );
  const there = [...shared.keys()].filter((path) => present.has(path));
  for (const [attributes, paths] of Map.groupBy(there, (path) => shared.get(path) ?? '')) {
    const [mode = '', owner = ''] = attributes.split(' ');
    const words = shellQuote(paths.map((path) => (path === '' ? '.' : path)));
    // chown first: it clears set-uid bits.
    script.push(`chown ${owner} -- ${words}`, `chmod ${mode} -- ${words}`);
  }
  if (script.length === 0) return;
  await on.run(['sh', '-e'], { input: script.join('\n'), cwd: root, timeoutMs: TIMEOUT_MS });
}

function replaces(a: RootPackage, b: RootPackage): boolean {
  const names = (a.fields['Replaces'] ?? '').split(',').map((each) => each.trim().split(/[ (:]/)[0]);
  return names.includes(b.fields['Package']);
}

/** Of a merged /usr `/lib/x` is `usr/lib/x`. */
const merged = (path: string): string => path.replace(/^(bin|sbin|lib|lib64)\//, 'usr/$1/');
