/** Debian packages and where they come from. */
import { z } from 'zod';
import { type Arg, arg } from './args.ts';
import {
  type HostReader,
  type HostWriter,
  type PropertyApplication,
  FailedChangeError,
  InapplicablePropertyError,
  defineProperty,
} from './property.ts';
import { CommandError } from '../connections/connection.ts';
import { definePropertyList } from './combinators.ts';
import { describeTextChange, hasContent } from './file.ts';

/** apt's own words: no questions, keep changed configuration files, wait for another apt, try again on a bad line. */
const APT_GET: readonly string[] = [
  'apt-get',
  '-q',
  '-y',
  '-o',
  'Dpkg::Options::=--force-confdef',
  '-o',
  'Dpkg::Options::=--force-confold',
  '-o',
  'DPkg::Lock::Timeout=120',
  '-o',
  'Acquire::Retries=3',
];

/** apt may have much to download. */
const APT_TIMEOUT_MS = 30 * 60_000;

const NAMES: Arg<readonly string[]> = arg(
  'names',
  z
    .array(z.string().regex(/^[a-z0-9][a-z0-9+.-]+(:[a-z0-9]+)?$/, 'it cannot be the name of a package'))
    .min(1, 'it must not be empty'),
  'names of packages, with or without an architecture',
);

/** Packages are installed, without what they only recommend. Unapplied: they are removed. */
export const installed: (names: readonly string[]) => PropertyApplication = defineProperty<[names: readonly string[]]>({
  id: 'apt.installed',
  kind: 'posix',
  describe: (names) => `packages: ${names.join(' ')}`,
  about: 'Packages are installed, without what they only recommend. Unapplied: they are removed.',
  args: [NAMES],
  parts: eachName,
  manages: managesPackages,
  hostattrs: (known, names) => {
    const clash = names.find((name) => known.packagesRemoved.includes(name));
    if (clash !== undefined)
      throw new InapplicablePropertyError(`"${known.name}" wants package "${clash}" both removed and installed`);
    return { packages: names };
  },
  facts: () => [{ fact: 'packages' }],
  check: (host, names) => missing(host, names).length === 0,
  plan: (host, names) => missing(host, names).map((name) => `install ${name}`),
  apply: async (host, names) => await install(host, missing(host, names)),
  checkUnapplied: (host, names) => !names.some((name) => isInstalled(host, name)),
  unapply: async (host, names) => {
    const there = names.filter((name) => isInstalled(host, name));
    await apt(host, ['remove', '--', ...there]);
  },
});

/** Packages are not installed. Unapplied: they are installed again. */
export const removed: (names: readonly string[]) => PropertyApplication = defineProperty<[names: readonly string[]]>({
  id: 'apt.removed',
  kind: 'posix',
  describe: (names) => `packages absent: ${names.join(' ')}`,
  about: 'Packages are not installed. Unapplied: they are installed again.',
  args: [NAMES],
  parts: eachName,
  manages: managesPackages,
  hostattrs: (known, names) => {
    const clash = names.find((name) => known.packages.includes(name));
    if (clash !== undefined)
      throw new InapplicablePropertyError(`"${known.name}" wants package "${clash}" both installed and removed`);
    return { packagesRemoved: names };
  },
  facts: () => [{ fact: 'packages' }],
  check: (host, names) => names.every((name) => !isInstalled(host, name)),
  apply: async (host, names) => {
    const there = names.filter((name) => isInstalled(host, name));
    await apt(host, ['purge', '--allow-remove-essential', '--auto-remove', '--', ...there]);
  },
  checkUnapplied: (host, names) => missing(host, names).length === 0,
  unapply: async (host, names) => await install(host, missing(host, names)),
});

/** /etc/apt/sources.list has exactly these lines. The package lists are fetched when packages are installed. */
export const sources: (lines: readonly string[]) => PropertyApplication = defineProperty<[lines: readonly string[]]>({
  id: 'apt.sources',
  kind: 'posix',
  describe: (lines) => `apt sources: ${lines.length} lines`,
  about: '/etc/apt/sources.list has exactly these lines. The package lists are fetched when packages are installed.',
  args: [
    arg(
      'lines',
      z.array(
        z
          .string()
          .regex(
            /^deb(-src)?\s+(\[[^\]\n]*\]\s+)?\S+\s+\S+[^\n]*$/,
            'it is not a line like "deb http://deb.debian.org/debian trixie main"',
          ),
      ),
      'one-line sources',
    ),
  ],
  manages: () => [`file ${SOURCES_LIST}`],
  plan: async (host, lines) => await describeTextChange(host, SOURCES_LIST, textOf(lines)),
  hostattrs: (_known, lines) => ({ aptSources: lines, files: [SOURCES_LIST] }),
  facts: () => [
    { fact: 'text', path: SOURCES_LIST },
    { fact: 'file', path: SOURCES_LIST },
  ],
  check: ({ facts }, lines) => facts.text(SOURCES_LIST) === textOf(lines),
  apply: async (host, lines) => await host.writeFile(SOURCES_LIST, textOf(lines), { mode: 0o644 }),
  touches: 'own-files',
});

/** A setting of apt in a file of its own below /etc/apt/apt.conf.d. */
export const configured: (name: string, text: string) => PropertyApplication = definePropertyList<
  [name: string, text: string]
>({
  id: 'apt.configured',
  about: 'A setting of apt in a file of its own below /etc/apt/apt.conf.d.',
  args: [
    arg('name', z.string().regex(/^[A-Za-z0-9_-]+(\.conf)?$/, 'apt would not read a file of that name'), 'of the file'),
    arg('text', z.string(), 'apt.conf(5)'),
  ],
  describe: (name) => `apt setting ${name}`,
  properties: (name, text) => [hasContent(`/etc/apt/apt.conf.d/${name}`, text)],
});

/** No downloaded packages and no package lists are kept: what an image needs not carry. */
export const cleaned: () => PropertyApplication = defineProperty<[]>({
  id: 'apt.cleaned',
  kind: 'posix',
  about: 'No downloaded packages and no package lists are kept: what an image needs not carry.',
  args: [],
  describe: () => 'no apt caches',
  check: async (host) => {
    const words = ['/var/lib/apt/lists', '/var/cache/apt', '-type', 'f', '!', '-name', 'lock', '-print', '-quit'];
    return (await host.run(['find', ...words], { okStatus: 'any' })).stdout.length === 0;
  },
  apply: async (host) => {
    await host.run([
      'sh',
      '-c',
      'apt-get clean && find /var/lib/apt/lists /var/cache/apt -type f ! -name lock -delete',
    ]);
  },
});

const SOURCES_LIST = '/etc/apt/sources.list';

const textOf = (lines: readonly string[]): string => lines.map((line) => `${line}\n`).join('');

const isInstalled = (host: HostReader, name: string): boolean =>
  host.facts.packages().get(name.replace(/:.*/, ''))?.status === 'installed';

const missing = (host: HostReader, names: readonly string[]): string[] =>
  names.filter((name) => !isInstalled(host, name));

function eachName(names: readonly string[]): [names: readonly string[]][] {
  return names.map((name) => [[name]]);
}

function managesPackages(names: readonly string[]): readonly string[] {
  return names.map((name) => `package ${name}`);
}

/** With the lists that are there; when that fails, once more with new ones. */
async function install(host: HostWriter, names: readonly string[]): Promise<void> {
  const words = ['install', '--no-install-recommends', '--', ...names];
  try {
    await apt(host, words);
    return;
  } catch (error) {
    if (!(error instanceof CommandError) || error.failure !== 'status') throw error;
    host.progress('apt: fetching new package lists');
  }
  try {
    await apt(host, ['update', '--error-on=any']);
    await apt(host, words);
  } catch (cause) {
    if (!(cause instanceof CommandError) || cause.failure !== 'status') throw cause;
    throw new FailedChangeError(`Cannot install ${names.join(' ')}\n${cause.message}`, {
      cause,
      hint: 'Are the names right for this suite, and do /etc/apt/sources.list and the network work there?',
    });
  }
}

async function apt(host: HostWriter, words: readonly string[]): Promise<void> {
  // The last is for the package sudo, which refuses to go where root has no password.
  const env = { DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C.UTF-8', SUDO_FORCE_REMOVE: 'yes' };
  await host.run([...APT_GET, ...words], { env, timeoutMs: APT_TIMEOUT_MS });
}
