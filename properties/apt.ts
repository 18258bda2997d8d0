/** Debian packages and where they come from. */
import { z } from 'zod';
import { type Arg, arg, textThat } from './args.ts';
import {
  type HostReader,
  type HostWriter,
  type PropertyApplication,
  FailedChangeError,
  InapplicablePropertyError,
  defineProperty,
} from './property.ts';
import { CommandError, text } from '../connections/connection.ts';
import { definePropertyList } from './combinators.ts';
import { describeTextChange, digestOf, isFile, writeWhole } from './_file-change.ts';
import { hasContent } from './file.ts';

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

const FILE_NAME: Arg<string> = arg(
  'name',
  textThat((name) => /^[A-Za-z0-9_-]+$/.test(name), 'letters, digits, "_" and "-": apt reads no other file'),
  'of the file',
);

/** Packages are installed, without what they only recommend. Unapplied: they are removed. */
export const installed: (names: readonly string[]) => PropertyApplication = defineProperty<[names: readonly string[]]>({
  id: 'apt.installed',
  kind: 'posix',
  describe: (names) => `packages: ${names.join(' ')}`,
  about: 'Packages are installed, without what they only recommend. Unapplied: they are removed.',
  example: [['openssh-server', 'less']],
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
  about: 'Packages are not installed, nor is what only they needed. Unapplied: they are installed again.',
  example: [['nano']],
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
  example: [
    ['deb http://deb.debian.org/debian trixie main', 'deb http://deb.debian.org/debian-security trixie-security main'],
  ],
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
  about: 'A setting of apt in a file of its own below /etc/apt/apt.conf.d. Unapplied: it goes away.',
  example: ['90-no-recommends', 'APT::Install-Recommends "0";\n'],
  args: [
    arg('name', z.string().regex(/^[A-Za-z0-9_-]+(\.conf)?$/, 'apt would not read a file of that name'), 'of the file'),
    arg('text', z.string(), 'apt.conf(5)'),
  ],
  describe: (name) => `apt setting ${name}`,
  properties: (name, text) => [hasContent(`/etc/apt/apt.conf.d/${name}`, text)],
});

/** Where packages come from: an entry of its own. */
export type AptSource = {
  /** Such as `http://deb.debian.org/debian`. */
  readonly uris: readonly string[];
  /** Such as `trixie`, `trixie-security`; or a path that ends in `/`, without components then. */
  readonly suites: readonly string[];
  /** Default main. */
  readonly components?: readonly string[];
  /** The keys that must have signed it: the path of a keyring, or an armored key. */
  readonly signedBy: string;
};

const WORDS = z.array(textThat((word) => /^[!-~]+$/.test(word), 'one word')).min(1, 'it must not be empty');

const SOURCE: z.ZodType<AptSource> = z.strictObject({
  uris: z.array(textThat((uri) => URL.canParse(uri), 'a URL')).min(1, 'it must not be empty'),
  suites: WORDS,
  components: WORDS.exactOptional(),
  signedBy: textThat(
    (key) =>
      /^\/[^\s,]+$/.test(key) ||
      /^-----BEGIN PGP PUBLIC KEY BLOCK-----\n[^]*-----END PGP PUBLIC KEY BLOCK-----\n?$/.test(key),
    'the absolute path of a keyring, or an armored key',
  ),
});

/** Packages come from there too: /etc/apt/sources.list.d/NAME.sources. Unapplied: no longer. */
export const source: (name: string, source: AptSource) => PropertyApplication = definePropertyList<
  [name: string, source: AptSource]
>({
  id: 'apt.source',
  about:
    'Packages come from there too, when the right keys have signed it: /etc/apt/sources.list.d/NAME.sources. The package lists are ' +
    'fetched when packages are installed. Unapplied: no longer.',
  example: [
    'docker',
    {
      uris: ['https://download.docker.com/linux/debian'],
      suites: ['trixie'],
      components: ['stable'],
      signedBy: '/usr/share/keyrings/docker.asc',
    },
  ],
  args: [FILE_NAME, arg('source', SOURCE, 'addresses, suites, components (default main), and who must have signed')],
  describe: (name, { uris }) => `apt source ${name}: ${uris.join(' ')}`,
  refuse: (_name, { suites, components }) => {
    if (components !== undefined && suites.some((suite) => suite.endsWith('/')))
      throw new TypeError('a suite that ends in "/" has no components');
  },
  properties: (name, entry) => [hasContent(`/etc/apt/sources.list.d/${name}.sources`, sourceText(entry))],
});

/** Which version of packages is preferred (apt_preferences(5)). */
export type AptPin = {
  /** Names, `*` and `?` as in a shell. */
  readonly packages: readonly string[];
  /** Such as `release n=trixie-backports`, `version 1.2*`, `origin example.org`. */
  readonly pin: string;
  /** Below 0 never, 500 as any other, above 1000 even when it is older. */
  readonly priority: number;
};

const PIN: z.ZodType<AptPin> = z.strictObject({
  packages: WORDS,
  pin: textThat((pin) => /^(release|version|origin) [^\n]+$/.test(pin), '"release …", "version …" or "origin …"'),
  priority: z.int().min(-32_768).max(32_767),
});

/** apt prefers versions: /etc/apt/preferences.d/NAME.pref. Unapplied: it has no preference. */
export const pinned: (name: string, pins: readonly AptPin[]) => PropertyApplication = definePropertyList<
  [name: string, pins: readonly AptPin[]]
>({
  id: 'apt.pinned',
  about:
    'apt prefers these versions, when it installs or upgrades: /etc/apt/preferences.d/NAME.pref. Unapplied: it has no preference.',
  example: ['backports', [{ packages: ['linux-image-amd64'], pin: 'release n=trixie-backports', priority: 900 }]],
  args: [FILE_NAME, arg('pins', z.array(PIN).min(1, 'it must not be empty'), 'apt_preferences(5)')],
  describe: (name, pins) => `apt prefers ${name}: ${pins.flatMap(({ packages }) => packages).join(' ')}`,
  properties: (name, pins) => [
    hasContent(
      `/etc/apt/preferences.d/${name}.pref`,
      pins
        .map(
          ({ packages, pin, priority }) => `Package: ${packages.join(' ')}\nPin: ${pin}\nPin-Priority: ${priority}\n`,
        )
        .join('\n'),
    ),
  ],
});

/** Packages stay at the version that they have. Unapplied: they are upgraded with the others. */
export const held: (names: readonly string[]) => PropertyApplication = defineProperty<[names: readonly string[]]>({
  id: 'apt.held',
  kind: 'posix',
  describe: (names) => `packages held: ${names.join(' ')}`,
  about: 'Packages that are installed stay at their version. Unapplied: they are upgraded with the others.',
  example: [['linux-image-amd64']],
  args: [NAMES],
  parts: eachName,
  manages: (names) => names.map((name) => `hold ${name}`),
  hostattrs: (known, names) => {
    const clash = names.find((name) => known.packagesRemoved.includes(name));
    if (clash === undefined) return {};
    throw new InapplicablePropertyError(`"${known.name}" wants package "${clash}" both removed and held`);
  },
  facts: () => [{ fact: 'packages' }],
  check: (host, names) => names.every((name) => isHeld(host, name)),
  plan: (host, names) => names.filter((name) => !isHeld(host, name)).map((name) => `hold ${name}`),
  apply: async (host, names) => {
    const lacks = missing(host, names);
    if (lacks.length > 0) {
      throw new FailedChangeError(`Cannot hold packages that are not installed: ${lacks.join(' ')}`, {
        hint: 'Put apt.installed() before it.',
      });
    }
    await host.run(['apt-mark', '-q', 'hold', '--', ...names]);
  },
  checkUnapplied: (host, names) => !names.some((name) => isHeld(host, name)),
  unapply: async (host, names) => void (await host.run(['apt-mark', '-q', 'unhold', '--', ...names])),
});

/** All packages are the newest that their sources have. */
export const upgraded: () => PropertyApplication = defineProperty<[]>({
  id: 'apt.upgraded',
  kind: 'posix',
  describe: () => 'packages upgraded',
  about:
    'All packages are the newest that their sources have; package lists are fetched each time, so atMost("daily", apt.upgraded()) is ' +
    'the usual way.',
  example: [],
  args: [],
  apply: async (host) => {
    await apt(host, ['update', '--error-on=any']);
    const said = await apt(host, ['dist-upgrade', '--no-install-recommends']);
    return /^0 upgraded, 0 newly installed, 0 to remove/m.test(said) ? 'no-change' : 'changed';
  },
});

const POLICY = '/usr/sbin/policy-rc.d';

/** What Debian's tools ask before they start a service of a package; 101: forbidden. The same as a chroot has. */
const POLICY_TEXT = '#!/bin/sh\nexit 101\n';

/** Packages that are installed do not start their services. Unapplied: they do. */
export const servicesHeldBack: () => PropertyApplication = defineProperty<[]>({
  id: 'apt.servicesHeldBack',
  kind: 'posix',
  touches: 'own-files',
  describe: () => 'services of packages are not started',
  about:
    'Packages that are installed do not start their services: /usr/sbin/policy-rc.d. A chroot, so an image being built, needs no such ' +
    'file: there they never start. Unapplied: they do.',
  example: [],
  args: [],
  manages: () => [`file ${POLICY}`],
  hostattrs: () => ({ files: [POLICY] }),
  facts: () => [{ fact: 'file', path: POLICY, digest: true }],
  check: ({ facts }) => isFile(facts.file(POLICY), digestOf(POLICY_TEXT), { mode: 0o755 }),
  plan: async (host) => await describeTextChange(host, POLICY, POLICY_TEXT, { mode: 0o755 }),
  apply: async (host) => await writeWhole(host, POLICY, Buffer.from(POLICY_TEXT), { mode: 0o755 }),
  checkUnapplied: ({ facts }) => facts.file(POLICY) === undefined,
  unapply: async (host) => {
    // A chroot has its own bound over it, for as long as this command lives.
    const script = 'if mountpoint -q "$1"; then umount -n "$1"; fi; rm -f -- "$1"';
    await host.run(['sh', '-ec', script, 'remove', POLICY]);
  },
});

/** No downloaded packages and no package lists are kept: what an image needs not carry. */
export const cleaned: () => PropertyApplication = defineProperty<[]>({
  id: 'apt.cleaned',
  kind: 'posix',
  about: 'No downloaded packages and no package lists are kept: what an image needs not carry.',
  example: [],
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

/** deb822 (sources.list(5)): a key goes into the field itself, its empty lines as dots. */
function sourceText({ uris, suites, components = ['main'], signedBy }: AptSource): string {
  const isPath = suites.every((suite) => suite.endsWith('/'));
  const key = signedBy.startsWith('/')
    ? ` ${signedBy}`
    : `\n${signedBy
        .trimEnd()
        .split('\n')
        .map((line) => ` ${line === '' ? '.' : line}`)
        .join('\n')}`;
  return [
    'Types: deb',
    `URIs: ${uris.join(' ')}`,
    `Suites: ${suites.join(' ')}`,
    ...(isPath ? [] : [`Components: ${components.join(' ')}`]),
    `Signed-By:${key}`,
    '',
  ].join('\n');
}

const isHeld = (host: HostReader, name: string): boolean =>
  host.facts.packages().get(name.replace(/:.*/, ''))?.wanted === 'hold';

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

/** @returns what it said */
async function apt(host: HostWriter, words: readonly string[]): Promise<string> {
  // The last is for the package sudo, which refuses to go where root has no password.
  const env = { DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C.UTF-8', SUDO_FORCE_REMOVE: 'yes' };
  return text(await host.run([...APT_GET, ...words], { env, timeoutMs: APT_TIMEOUT_MS }));
}
