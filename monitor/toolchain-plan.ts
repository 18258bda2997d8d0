/**
 * Decides what has to be done for a toolchain, from its list and from what is already here. Pure.
 */
import type { ToolchainList } from '../manifests/toolchain-list.ts';
import { TOOLCHAIN_RESERVED } from '../manifests/toolchain-list.ts';
import { TOOLCHAIN_JSON, type ToolchainJson } from '../manifests/toolchain.ts';
import type { BootstrapState } from '../helper/verb.ts';

/** A file to fetch, with the URL it is fetched from. */
export interface WantedFile {
  readonly path: string;
  readonly sha256: string;
  readonly url: string;
}

/** What to do to the folder of a toolchain's files. */
export interface FilesPlan {
  /** relative paths of files that the list does not have, or whose content is wrong */
  readonly remove: readonly string[];
  readonly fetch: readonly WantedFile[];
}

/** What has been done for a toolchain since boot; written before and after each long step. */
export interface ToolchainRecord {
  /** the list's id */
  readonly id: string;
  readonly version: string;
  readonly bootstrap: 'started' | 'done';
  /** what the bootstrap must leave in the prefix */
  readonly leaves: readonly string[];
  /** SHA-256 of toolchain.tar, once packed */
  readonly tarSha256?: string;
  /** what /build/agents/<tc> leads to, once all is done; empty when the toolchain has no agent */
  readonly agent?: string;
}

/** More files than this in a list is a mistake. */
export const MAX_FILES = 1000;

/** What build2's own list holds, see {@link planBootstrap}. */
const BUILD2_ARCHIVE = /(?:^|\/)build2-toolchain-[^/]+\.tar\.[a-z0-9]+$/;

/**
 * Compares the list with what is here.
 *
 * @param listUrl - the files are relative to it
 * @param found - relative path → SHA-256 of every file in the folder
 */
export function planFiles(list: ToolchainList, listUrl: string, found: Readonly<Record<string, string>>): FilesPlan {
  const wanted = new Map(list.files.map((file) => [file.path, file.sha256]));
  const remove = Object.keys(found)
    .filter((path) => !TOOLCHAIN_RESERVED.includes(path) && wanted.get(path) !== found[path])
    .sort();
  const fetch = list.files
    .filter((file) => found[file.path] !== file.sha256)
    .map((file) => ({ ...file, url: new URL(file.path.split('/').map(encodeURIComponent).join('/'), listUrl).href }));
  return { remove, fetch };
}

/**
 * What to do about the bootstrap.
 *
 * - `done`: it is here and right; nothing is done again.
 * - `follow`: an earlier monitor started it for this very list, and it runs or has just ended.
 * - `start`: with an empty prefix, after stopping whatever runs.
 *
 * @param record - undefined when nothing was done since boot, or the record cannot be read
 * @param isWhole - everything it must leave behind is there, and toolchain.tar is as recorded
 */
export function planBootstrap(
  id: string,
  record: ToolchainRecord | undefined,
  unit: BootstrapState['state'],
  isWhole: boolean,
): 'done' | 'follow' | 'start' {
  if (record?.id !== id) return 'start';
  if (record.bootstrap === 'done') return isWhole ? 'done' : 'start';
  return unit === 'running' || unit === 'success' ? 'follow' : 'start';
}

/** Where `toolchain.json` is among the files; undefined when there is none. */
export function findToolchainJson(list: ToolchainList): string | undefined {
  const paths = list.files.map((file) => file.path);
  if (paths.includes(TOOLCHAIN_JSON)) return TOOLCHAIN_JSON;
  const nested = paths.filter((path) => path.endsWith(`/${TOOLCHAIN_JSON}`));
  return nested.length === 1 ? nested[0] : undefined;
}

/** How a toolchain is bootstrapped, and its agent package if it has one. */
export interface Recipe extends Pick<ToolchainJson, 'bootstrap'> {
  /** relative to the files */
  readonly agent?: string;
}

/**
 * The recipe of a toolchain without `toolchain.json`: build2's own, built the way its build.sh is called, from the
 * archive alone (`--local`). Undefined when the list is not one of build2's.
 */
export function build2Recipe(list: ToolchainList): Recipe | undefined {
  const archives = list.files.map((file) => file.path).filter((path) => BUILD2_ARCHIVE.test(path));
  const archive = archives.find((path) => path.endsWith('.tar.gz')) ?? archives[0];
  if (archive === undefined) return undefined;
  const script = 'tar -xf "$1" --strip-components=1 && exec sh ./build.sh --local --trust yes --install-dir "$2" g++';
  return {
    bootstrap: {
      command: ['sh', '-ec', script, 'bootstrap', `{files}/${archive}`, '{prefix}'],
      timeLimitSeconds: 3 * 3600,
      leaves: ['bin/b'],
      environment: {},
    },
  };
}
