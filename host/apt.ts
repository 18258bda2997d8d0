/**
 * apt and dpkg on the developer's machine: which packages are missing, how to get them, which mirror this machine uses,
 * and the source archives of another Debian release with an apt configuration of our own, so that the machine's stays untouched.
 *
 * A source archive is named by its source package and upstream version; where it is and what its SHA-256 must be comes from the
 * release's signed `Sources` index. Only the `.orig.tar.gz` is fetched: a mirror may lack the `.debian.tar.xz` beside it.
 */
import { createHash } from 'node:crypto';
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { CommandError, text } from '../connections/connection.ts';
import type { Connection, RunOptions } from '../connections/connection.ts';

/** Used when this machine's apt names no Debian mirror. */
export const DEFAULT_MIRROR = 'http://deb.debian.org/debian';

/** Debian's own keys, from the package debian-archive-keyring. */
const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg';

/** An upstream source archive in a Debian release. */
export interface SourceArchive {
  /** `pool/main/h/hello`, below the mirror. */
  readonly directory: string;
  /** `hello_2.10.orig.tar.gz`. */
  readonly file: string;
  readonly sha256: string;
  readonly sizeBytes: number;
}

/** Which of the packages are not installed, in the order given. */
export async function findMissingPackages(on: Connection, names: readonly string[]): Promise<string[]> {
  if (names.length === 0) return [];
  // Status 1: some name is unknown to dpkg, which is an answer too.
  const argv = ['dpkg-query', '--show', '--showformat', '${Package} ${db:Status-Status}\\n', ...names];
  const installed = new Set(
    text(await on.run(argv, { okStatus: [0, 1] }))
      .split('\n')
      .filter((line) => line.endsWith(' installed'))
      .map((line) => line.split(' ')[0]),
  );
  return names.filter((name) => !installed.has(name));
}

/** The command that installs packages, for the error message and for the log. */
export function installArgv(names: readonly string[]): string[] {
  return ['apt-get', 'install', '--yes', '--no-install-recommends', ...names];
}

/**
 * Installs packages; needs root. When it fails with the package lists as they are, they are updated and it is tried once more.
 *
 * @throws {CommandError} of the second try
 */
export async function installPackages(
  on: Connection,
  names: readonly string[],
  options: Pick<RunOptions, 'onOutput' | 'signal'> = {},
): Promise<void> {
  const run: RunOptions = {
    ...options,
    env: { DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C.UTF-8' },
    timeoutMs: 900_000,
  };
  try {
    await on.run(installArgv(names), run);
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    await on.run(['apt-get', 'update'], run);
    await on.run(installArgv(names), run);
  }
}

/** The Debian mirror that this machine's apt uses, without a final slash, or `DEFAULT_MIRROR`. */
export async function findMirror(on: Connection): Promise<string> {
  const argv = ['apt-get', 'indextargets', '--format', '$(REPO_URI)', 'Created-By: Packages'];
  const result = await on.run(argv, { okStatus: 'any' });
  const uris = text(result)
    .split('\n')
    .map((line) => line.trim().replace(/\/$/, ''));
  return uris.find((uri) => /^https?:.*\/debian$/.test(uri)) ?? DEFAULT_MIRROR;
}

/** What `fetchSourceArchive` is to find. */
export interface SourceQuery {
  /** Source package. */
  readonly name: string;
  /** Upstream version: the archive is `<name>_<version>.orig.tar.gz`. */
  readonly version: string;
  readonly suite: string;
  readonly mirror: string;
  /** Downloads and apt's own state are kept here from run to run. */
  readonly cache: string;
  readonly signal?: AbortSignal;
}

/**
 * Fetches a source archive into the cache, unless it is there already and still has the digest the signed index gave.
 *
 * @returns the path of the archive, and its SHA-256
 * @throws {CommandError} when apt cannot update, find or download
 * @throws {SourceNotFoundError} when the release has no such archive
 */
export async function fetchSourceArchive(
  on: Connection,
  query: SourceQuery,
): Promise<{ readonly path: string; readonly sha256: string }> {
  const file = `${query.name}_${query.version}.orig.tar.gz`;
  const path = join(query.cache, file);
  // Written after a download only, from the signed index: what lets a second run do without a network.
  const record = `${path}.sha256`;
  const known = await readIfThere(record);
  if (known !== undefined && (await sha256Of(path)) === known.toString('utf8').trim()) {
    return { path, sha256: known.toString('utf8').trim() };
  }
  const config = await writeAptConfig(query);
  const run: RunOptions = { timeoutMs: 300_000, ...(query.signal === undefined ? {} : { signal: query.signal }) };
  await on.run(['apt-get', `-c=${config}`, '-q', 'update'], run);
  const stanzas = text(await on.run(['apt-cache', `-c=${config}`, 'showsrc', '--only-source', query.name], run));
  const source = findSourceArchive(stanzas, file);
  if (source === undefined) throw new SourceNotFoundError(file, query.suite, query.mirror);
  const uri = `${query.mirror}/${source.directory}/${source.file}`;
  const part = `${path}.part`;
  await on.run(['/usr/lib/apt/apt-helper', `-c=${config}`, 'download-file', uri, part, `SHA256:${source.sha256}`], run);
  await rename(part, path);
  await writeFile(record, `${source.sha256}\n`);
  return { path, sha256: source.sha256 };
}

/** A release does not hold the archive asked for. */
export class SourceNotFoundError extends Error {
  readonly file: string;
  readonly suite: string;
  readonly hint: string;

  constructor(file: string, suite: string, mirror: string) {
    super(`Cannot find the source archive ${file} in Debian ${suite} (${mirror})`);
    this.name = 'SourceNotFoundError';
    this.file = file;
    this.suite = suite;
    this.hint = `see what there is: apt-cache showsrc ${file.split('_')[0] ?? file}, with "deb-src ${mirror} ${suite} main"`;
  }
}

/**
 * Finds an archive in the output of `apt-cache showsrc`.
 *
 * @param stanzas - deb822 stanzas of `Sources`, separated by empty lines
 * @param file - name of the archive
 */
export function findSourceArchive(stanzas: string, file: string): SourceArchive | undefined {
  for (const stanza of stanzas.split(/\n\s*\n/)) {
    const directory = /^Directory: *(\S+)/m.exec(stanza)?.[1];
    const sums = /^Checksums-Sha256:.*\n((?: .*\n?)*)/m.exec(stanza)?.[1] ?? '';
    for (const line of sums.split('\n')) {
      const [sha256, size, name] = line.trim().split(/\s+/);
      if (directory === undefined || sha256 === undefined || name !== file) continue;
      if (!/^[0-9a-f]{64}$/.test(sha256)) continue;
      return { directory, file, sha256, sizeBytes: Number(size) };
    }
  }
  return undefined;
}

/** An apt that knows one release's sources and nothing of this machine's packages. Proxy settings of the machine still hold. */
async function writeAptConfig(query: SourceQuery): Promise<string> {
  const state = join(query.cache, `apt-${query.suite}`);
  await mkdir(join(state, 'lists/partial'), { recursive: true });
  await mkdir(join(state, 'cache/archives/partial'), { recursive: true });
  const list = join(state, 'sources.list');
  const config = join(state, 'apt.conf');
  await writeFile(list, `deb-src [signed-by=${KEYRING}] ${query.mirror} ${query.suite} main\n`);
  const settings = {
    'Dir::State': state,
    'Dir::State::lists': join(state, 'lists'),
    'Dir::State::status': '/dev/null',
    'Dir::Cache': join(state, 'cache'),
    'Dir::Etc::sourcelist': list,
    'Dir::Etc::sourceparts': '/dev/null',
    'Dir::Etc::preferences': '/dev/null',
    'Dir::Etc::preferencesparts': '/dev/null',
    'APT::Sandbox::User': 'root',
    'Acquire::Languages': 'none',
    'Acquire::Retries': '3',
  };
  await writeFile(
    config,
    Object.entries(settings)
      .map(([name, value]) => `${name} "${value}";\n`)
      .join(''),
  );
  return config;
}

async function sha256Of(path: string): Promise<string | undefined> {
  const content = await readIfThere(path);
  return content === undefined ? undefined : createHash('sha256').update(content).digest('hex');
}

async function readIfThere(path: string): Promise<Buffer | undefined> {
  try {
    return await readFile(path);
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  }
}
