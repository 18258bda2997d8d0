/**
 * Asks apt which packages a new Debian root would get, by version, digest and place, without one being installed.
 *
 * An apt with a configuration, state and lists of its own, and no package installed, is asked to install. So its answer
 * depends on the archives alone; signatures and `Valid-Until` are checked as on this machine. Where the answer is to be
 * the same tomorrow, keep it (manifests/package-lock.ts).
 */
import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { CommandError, type Connection, type RunOptions, text } from '../connections/connection.ts';

/** Debian's own keys, from the package debian-archive-keyring. */
const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg';

/** An archive to choose from. */
export interface AptSource {
  /** Without a final slash: `http://deb.debian.org/debian`. */
  readonly uri: string;
  readonly suite: string;
  readonly components: readonly string[];
}

/** What to ask. */
export interface ResolveOptions {
  readonly sources: readonly AptSource[];
  readonly packages: readonly string[];
  readonly architecture: string;
  /** Folder for apt's lists; made when absent. One process at a time may use it. */
  readonly state: string;
  /** The archives' keys; default those of Debian. `trusted`: signatures are not asked for, as for an archive of one's own. */
  readonly keyring?: string;
  /** Refuse a `Release` past its `Valid-Until`; default: as this machine's apt does, which is to refuse it. */
  readonly checkValidUntil?: boolean;
  /** How long to wait for an archive that does not answer, in whole seconds; default 30 s. */
  readonly stallMs?: number;
  readonly signal?: AbortSignal;
}

/** A package as apt would install it. */
export interface ResolvedPackage {
  readonly name: string;
  readonly version: string;
  readonly architecture: string;
  /** Index in the options' `sources`. */
  readonly source: number;
  /** Below the source's URI. */
  readonly path: string;
  readonly sizeBytes: number;
  readonly sha256: string;
}

/** apt's answer. */
export interface Resolved {
  /** Sorted by name. */
  readonly packages: readonly ResolvedPackage[];
  /** For each source, of the `InRelease` that was used. */
  readonly releases: readonly { readonly sha256: string; readonly date: string }[];
}

/** apt could not say what to install. */
export class ResolveError extends Error {
  override readonly name = 'ResolveError';
  readonly hint: string;

  constructor(message: string, hint: string, options?: { readonly cause: unknown }) {
    super(message, options);
    this.hint = hint;
  }
}

/** A root has these even if nobody asks: essential packages, those of priority `required`, and apt. */
const ALWAYS = ['?essential', '?priority(required)', 'apt'];

/**
 * Resolves the packages that a minimal root with some more packages consists of.
 *
 * @throws {ResolveError} when an archive does not answer, is past its date, has a wrong signature, or lacks a package
 */
export async function resolvePackages(on: Connection, options: ResolveOptions): Promise<Resolved> {
  const config = await writeAptConfig(options);
  const run: RunOptions = {
    timeoutMs: 300_000,
    // Once more on the command lines: what this machine's apt.conf.d says comes after APT_CONFIG.
    env: { APT_CONFIG: config, LC_ALL: 'C.UTF-8' },
    ...(options.signal && { signal: options.signal }),
  };
  const ours = `--config-file=${config}`;
  await update(on, options, { argv: ['apt-get', ours, '-q', 'update', '-o', 'APT::Update::Error-Mode=any'], run });
  const wanted = ['apt-get', ours, '-q', '--print-uris', 'install', ...ALWAYS, ...options.packages];
  const uris = text(await explained(on, wanted, run))
    .split('\n')
    .filter((line) => line.startsWith("'"))
    .map(parseUri);
  if (uris.length === 0) throw new ResolveError('apt would install nothing', 'are the sources empty?');
  const names = uris.map(({ name, version }) => `${name}=${version}`);
  const stanzas = text(await explained(on, ['apt-cache', ours, 'show', '--no-all-versions', ...names], run));
  const byUri = new Map<string, ResolvedPackage>();
  for (const stanza of stanzas.split(/\n\n+/)) {
    for (const [source, { uri }] of options.sources.entries()) {
      const found = parseStanza(stanza, source);
      if (found !== undefined) byUri.set(`${uri}/${found.path}`, found);
    }
  }
  const packages = uris.map(({ uri, name }) => {
    const found = byUri.get(uri);
    if (found === undefined) {
      throw new ResolveError(`apt gives no SHA-256 for ${name} (${uri})`, 'is the archive an apt archive of today?');
    }
    return found;
  });
  return { packages: packages.toSorted((a, b) => (a.name < b.name ? -1 : 1)), releases: await readReleases(options) };
}

/** apt's list files are named after the URL: `http://h/debian` and `trixie` → `h_debian_dists_trixie_InRelease`. */
export function listFileName(source: Pick<AptSource, 'uri' | 'suite'>): string {
  const place = source.suite.endsWith('/') ? `${source.suite}InRelease` : `dists/${source.suite}/InRelease`;
  return `${source.uri.replace(/^[a-z+]+:(\/\/)?/, '')}/${place}`.replaceAll('_', '%5f').replaceAll('/', '_');
}

/** A line of `apt-get --print-uris`: `'URI' NAME_VERSION_ARCH.deb SIZE [DIGEST]`, with `%` escapes in the URI and the file name. */
export function parseUri(line: string): { readonly uri: string; readonly name: string; readonly version: string } {
  const match = /^'([^']+)' ([^ _]+)_([^ _]+)_[^ _]+\.deb \d+/.exec(line);
  const [, uri, name, version] = match ?? [];
  if (uri === undefined || name === undefined || version === undefined) {
    throw new ResolveError(
      `Cannot read what apt says: ${JSON.stringify(line)}`,
      'a line with the URI of a .deb is expected',
    );
  }
  // apt takes the empty host out of file:///srv/debian.
  return {
    uri: decodeURIComponent(uri).replace(/^file:\/(?!\/)/, 'file:///'),
    name,
    version: decodeURIComponent(version),
  };
}

function parseStanza(stanza: string, source: number): ResolvedPackage | undefined {
  const field = (name: string): string | undefined => new RegExp(`^${name}: *(\\S+) *$`, 'm').exec(stanza)?.[1];
  const [name, version, architecture] = [field('Package'), field('Version'), field('Architecture')];
  const [path, size, sha256] = [field('Filename'), field('Size'), field('SHA256')];
  if (!name || !version || !architecture || !path || !size || !sha256 || !/^[0-9a-f]{64}$/.test(sha256))
    return undefined;
  return { name, version, architecture, source, path: path.replace(/^\.\//, ''), sizeBytes: Number(size), sha256 };
}

async function update(
  on: Connection,
  options: ResolveOptions,
  { argv, run }: { readonly argv: readonly string[]; readonly run: RunOptions },
): Promise<void> {
  try {
    await on.run(argv, run);
  } catch (cause) {
    if (!(cause instanceof CommandError) || cause.failure !== 'status') throw cause;
    const said = messagesOf(cause);
    const where = options.sources.map(({ uri, suite }) => `${uri} ${suite}`).join(', ');
    throw new ResolveError(`Cannot read the Debian archive (${where}): ${said}`, hintFor(said), { cause });
  }
}

async function explained(on: Connection, argv: readonly string[], run: RunOptions): ReturnType<Connection['run']> {
  try {
    return await on.run(argv, run);
  } catch (cause) {
    if (!(cause instanceof CommandError) || cause.failure !== 'status') throw cause;
    throw new ResolveError(`Cannot choose the packages: ${messagesOf(cause)}`, hintFor(messagesOf(cause)), { cause });
  }
}

/** What apt complains of, without its prefixes, each complaint once. */
function messagesOf(error: CommandError): string {
  const lines = Buffer.concat([error.stdout, error.stderr]).toString('utf8').split('\n');
  // Of whom it does not trust it only warns, and says why; the error is that there is no signature then.
  const errors = lines.filter((line) => /^(E:|W: GPG error)/.test(line)).map((line) => line.replace(/^[EW]: /, ''));
  const depends = lines.filter((line) => /^ +\S+ ?:? +(Depends|PreDepends|Conflicts|Breaks):/.test(line));
  return [...new Set([...errors.slice(0, 3), ...depends.slice(0, 5)].map((line) => line.trim()))].join('; ');
}

/** The conditions that apt tells apart, and what may be tried. */
const HINTS: readonly (readonly [RegExp, string])[] = [
  [
    /is expired|is not valid (yet|anymore)/i,
    'the mirror is out of date, or the clock of this machine is wrong: compare "date"; try another --mirror; or build with what was chosen last: image build --offline',
  ],
  [
    /Unable to locate package|has no installation candidate|no packages? match/i,
    'is the name right for this suite? "apt-cache policy NAME" on such a host tells',
  ],
  [
    /NO_PUBKEY|signature|not signed|BADSIG/i,
    'the archive is not signed by the keys of debian-archive-keyring: is it a Debian mirror?',
  ],
  [
    /hash sum mismatch|unexpected size|clearsigned file isn't valid/i,
    'the mirror is being updated, or something between changes what it serves: try again, or another --mirror',
  ],
  [/held broken packages|Depends:|Conflicts:|Breaks:/i, 'these packages cannot be together in this suite'],
];

const hintFor = (said: string): string =>
  HINTS.find(([pattern]) => pattern.test(said))?.[1] ??
  'check the address with curl; another mirror can be given with --mirror';

async function readReleases(options: ResolveOptions): Promise<Resolved['releases']> {
  const lists = join(options.state, 'lists');
  const names = await readdir(lists);
  return await Promise.all(
    options.sources.map(async (source) => {
      const wanted = listFileName(source);
      const name = names.find((each) => each === wanted);
      if (name === undefined)
        throw new ResolveError(`apt kept no ${wanted}`, 'the archive needs a signed InRelease file');
      const content = await readFile(join(lists, name));
      const date = /^Date: *(.+)$/m.exec(content.toString('utf8'))?.[1];
      return {
        sha256: createHash('sha256').update(content).digest('hex'),
        date: new Date(date ?? 0).toISOString(),
      };
    }),
  );
}

async function writeAptConfig(options: ResolveOptions): Promise<string> {
  const { state, sources, architecture, keyring = KEYRING, stallMs = 30_000 } = options;
  await mkdir(join(state, 'lists/partial'), { recursive: true });
  await mkdir(join(state, 'cache/archives/partial'), { recursive: true });
  const trust = keyring === 'trusted' ? 'trusted=yes' : `signed-by=${keyring}`;
  const list = sources.map(
    ({ uri, suite, components }) => `deb [arch=${architecture} ${trust}] ${uri} ${suite} ${components.join(' ')}\n`,
  );
  await writeFile(join(state, 'sources.list'), list.join(''));
  await writeFile(join(state, 'status'), '');
  const settings: Readonly<Record<string, string>> = {
    'Dir::State': state,
    'Dir::State::status': join(state, 'status'),
    'Dir::State::lists': join(state, 'lists'),
    'Dir::Cache': join(state, 'cache'),
    'Dir::Etc::sourcelist': join(state, 'sources.list'),
    'Dir::Etc::sourceparts': '/dev/null',
    'Dir::Etc::preferences': '/dev/null',
    'Dir::Etc::preferencesparts': '/dev/null',
    'Dir::Etc::trusted': '/dev/null',
    'Dir::Etc::trustedparts': '/dev/null',
    'APT::Architecture': architecture,
    'APT::Architectures': architecture,
    'APT::Install-Recommends': 'false',
    'APT::Sandbox::User': 'root',
    'Acquire::Languages': 'none',
    'Acquire::Retries': '2',
    'Acquire::http::Timeout': String(Math.ceil(stallMs / 1000)),
    'Acquire::https::Timeout': String(Math.ceil(stallMs / 1000)),
    ...(options.checkValidUntil !== undefined && {
      'Acquire::Check-Valid-Until': String(options.checkValidUntil),
      'Acquire::Check-Date': String(options.checkValidUntil),
    }),
  };
  const config = join(state, 'apt.conf');
  const lines = Object.entries(settings).map(([name, value]) => `${name} ${JSON.stringify(value)};\n`);
  await writeFile(config, lines.join(''));
  return config;
}
