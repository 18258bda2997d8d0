/**
 * mmdebstrap(1), directory mode: a Debian root file system from a mirror, in one go.
 *
 * Downloaded packages can be kept in a cache folder between runs: that halves the time, and a second run asks the
 * mirror only for its index. Documentation, translations and the distribution's own initrd are left out, also
 * for packages that are installed into the root later, since the options stay in `/etc/apt` and `/etc/dpkg` there.
 *
 * Left out: other output formats (a root becomes an image elsewhere), foreign architectures, unprivileged modes.
 */
import type { Connection, RunResult } from '../connections/connection.ts';
import { APT_OPTIONS, DPKG_OPTIONS } from './root-options.ts';

/** What to bootstrap and where. */
export interface BootstrapOptions {
  /** The release, such as `trixie`. */
  readonly suite: string;
  /** One-line apt sources (sources.list(5)): `deb http://deb.debian.org/debian trixie main`, its security updates, …. */
  readonly sources: readonly string[];
  /** The set to begin with. */
  readonly variant: 'minbase' | 'essential' | 'apt';
  /** Packages to install besides. */
  readonly include: readonly string[];
  /** The directory that becomes the root; absent or empty. */
  readonly into: string;
  /** Folder that keeps the .debs between runs; made when absent. Several runs may use it at once. */
  readonly cache?: string;
  /** Time stamp, in seconds since 1970, that no file may exceed; for reproducible roots. */
  readonly sourceDateEpoch?: number;
  readonly signal?: AbortSignal;
  /** Default 20 minutes. */
  readonly timeoutMs?: number;
  /** mmdebstrap's own report, as it comes. */
  readonly onOutput?: (chunk: Uint8Array, stream: 'stdout' | 'stderr') => void;
}

/** Where Debian's archive is, unless somebody says otherwise. */
export const DEBIAN_MIRROR = 'http://deb.debian.org/debian';

/** Where Debian's security updates are. */
export const DEBIAN_SECURITY_MIRROR = 'http://deb.debian.org/debian-security';

/** The one-line apt sources of a release: what was released, and its security updates. */
export function debianSources(options: {
  readonly suite: string;
  readonly mirror?: string;
  readonly securityMirror?: string;
}): readonly string[] {
  return [
    `deb ${options.mirror ?? DEBIAN_MIRROR} ${options.suite} main`,
    `deb ${options.securityMirror ?? DEBIAN_SECURITY_MIRROR} ${options.suite}-security main`,
  ];
}

/** A root could not be bootstrapped, for a reason known before mmdebstrap was called. */
export class BootstrapError extends Error {
  override readonly name = 'BootstrapError';
  readonly into: string;
  readonly hint: string;

  constructor(message: string, options: { readonly into: string; readonly hint: string }) {
    super(message);
    this.into = options.into;
    this.hint = options.hint;
  }
}

/**
 * Bootstraps a Debian root file system with mmdebstrap in root mode.
 *
 * `/etc/resolv.conf` is the one of the machine that ran it (so that more can be installed); `/etc/hostname` is removed.
 *
 * @param connection - root on a host that has mmdebstrap and the archive's keyring
 * @throws {BootstrapError} when `into` is not empty: nothing was touched
 * @throws {CommandError} when mmdebstrap failed; `into` was emptied again
 */
export async function bootstrap(connection: Connection, options: BootstrapOptions): Promise<void> {
  const { into, cache } = options;
  await checkEmpty(connection, into);
  if (cache !== undefined) await connection.run(['mkdir', '-p', cache]);
  try {
    await connection.run(mmdebstrapCommand(options), {
      env: mmdebstrapEnvironment(options),
      timeoutMs: options.timeoutMs ?? 20 * 60_000,
      ...(options.signal === undefined ? {} : { signal: options.signal }),
      ...(options.onOutput === undefined ? {} : { onOutput: options.onOutput }),
    });
    await connection.run(['rm', '-f', `${into}/etc/hostname`]);
  } catch (error) {
    // What is half there would be refused, as not empty, by the next try.
    await connection.run(['find', into, '-xdev', '-mindepth', '1', '-delete'], { okStatus: 'any' });
    throw error;
  }
}

/**
 * The command line of mmdebstrap for these options.
 *
 * @returns argv, ready to be run as root
 */
export function mmdebstrapCommand(options: BootstrapOptions): readonly string[] {
  return [
    'mmdebstrap',
    '--mode=root',
    '--format=directory',
    `--variant=${options.variant}`,
    ...(options.include.length === 0 ? [] : [`--include=${options.include.join(',')}`]),
    ...APT_OPTIONS.map((option) => `--aptopt=${option}`),
    ...DPKG_OPTIONS.map((option) => `--dpkgopt=${option}`),
    ...(options.cache === undefined ? [] : cacheHooks(options.cache)),
    options.suite,
    options.into,
    ...options.sources,
  ];
}

/**
 * The hooks that take .debs from the cache folder before, and keep them there after.
 *
 * A package goes into the cache by a hard link, or by a copy that is renamed, so that no other run sees a part of one.
 */
function cacheHooks(cache: string): readonly string[] {
  const folder = quote(cache);
  const archives = '"$1"/var/cache/apt/archives';
  const take =
    `mkdir -p ${archives}; for deb in ${folder}/*.deb; do [ -f "$deb" ] || continue; ` +
    `ln "$deb" ${archives}/ 2>/dev/null || cp -p "$deb" ${archives}/; done`;
  const keep =
    `for deb in ${archives}/*.deb; do name=\${deb##*/}; [ -f "$deb" ] && [ ! -e ${folder}/"$name" ] || continue; ` +
    `ln "$deb" ${folder}/"$name" 2>/dev/null || { cp -p "$deb" ${folder}/"$name.$$" && mv ${folder}/"$name.$$" ${folder}/"$name"; }; done`;
  return [
    // Without this a run that finds every package in the cache is taken for a failed download.
    '--skip=download/empty',
    // Without this the essential packages are gone before they can be kept.
    '--skip=essential/unlink',
    `--setup-hook=${take}`,
    `--customize-hook=${keep}`,
  ];
}

const mmdebstrapEnvironment = (options: BootstrapOptions): Readonly<Record<string, string>> => ({
  DEBIAN_FRONTEND: 'noninteractive',
  // Read by initramfs-tools: the distribution's own initrd takes seconds and megabytes, and we never boot it.
  INITRD: 'No',
  LC_ALL: 'C.UTF-8',
  ...(options.sourceDateEpoch === undefined ? {} : { SOURCE_DATE_EPOCH: String(options.sourceDateEpoch) }),
});

async function checkEmpty(connection: Connection, into: string): Promise<void> {
  const found: RunResult = await connection.run(['find', into, '-mindepth', '1', '-maxdepth', '1', '-print', '-quit'], {
    okStatus: 'any',
  });
  if (found.status === 0 && found.stdout.length > 0) {
    throw new BootstrapError(`Cannot bootstrap a root into "${into}": it is not empty`, {
      into,
      hint: 'name a folder that does not exist yet, or remove what an earlier run left there',
    });
  }
}

const quote = (word: string): string => `'${word.replaceAll("'", String.raw`'\''`)}'`;
