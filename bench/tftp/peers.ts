/**
 * The servers that ours is compared with. dnsmasq is a package like others (`cli/setup.ts`); Debian's tftpd-hpa and atftpd exclude
 * each other and start daemons when they are installed, so they are downloaded and unpacked beside our own files.
 */
import { existsSync } from 'node:fs';
import { mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { type Connection, text } from '../../connections/connection.ts';
import { SetupError } from '../../cli/setup.ts';

/** Where they are, and which they are. */
export interface Peers {
  /** what bench.py wants to know */
  readonly env: Readonly<Record<string, string>>;
  /** `tftpd-hpa 5.2+…`, for the head of the report */
  readonly versions: readonly string[];
}

const PYTHON_MIN = [3, 11] as const;

/** Package → its program, and the variable by which bench.py finds it. */
const UNPACKED = [
  { name: 'tftpd-hpa', program: 'usr/sbin/in.tftpd', variable: 'TFTPD_HPA' },
  { name: 'atftpd', program: 'usr/sbin/atftpd', variable: 'ATFTPD' },
] as const;

/**
 * Finds the servers, and gets those that are not there.
 *
 * @param cache - kept from run to run
 * @throws {SetupError} when a package cannot be had, or Python is too old
 */
export async function findPeers(on: Connection, cache: string, signal: AbortSignal): Promise<Peers> {
  const python = text(await on.run(['python3', '-c', 'import sys; print(*sys.version_info[:3], sep=".")'])).trim();
  const [major = 0, minor = 0] = python.split('.').map(Number);
  if (major < PYTHON_MIN[0] || (major === PYTHON_MIN[0] && minor < PYTHON_MIN[1])) {
    throw new SetupError(
      `Cannot measure with Python ${python}: ${PYTHON_MIN.join('.')} or newer is needed`,
      'Debian 12 and 13 have it as the package python3',
    );
  }
  const env: Record<string, string> = {};
  const versions = [`Python ${python}`];
  for (const { name, program, variable } of UNPACKED) {
    const version = await unpack(on, { name, program, cache, signal });
    env[variable] = join(cache, name, program);
    versions.push(`${name} ${version}`);
  }
  const [, dnsmasq = '?'] = /version (\S+)/.exec(text(await on.run(['dnsmasq', '--version']))) ?? [];
  return { env, versions: [...versions, `dnsmasq ${dnsmasq}`] };
}

/** Downloads a package unless it is there, and unpacks it. Returns its version, from the name of the file. */
async function unpack(
  on: Connection,
  what: { readonly name: string; readonly program: string; readonly cache: string; readonly signal: AbortSignal },
): Promise<string> {
  const { name, program, cache, signal } = what;
  const folder = join(cache, name);
  const found = async (): Promise<string | undefined> =>
    (await readdir(folder)).find((file) => file.startsWith(`${name}_`) && file.endsWith('.deb'));
  await mkdir(folder, { recursive: true });
  if ((await found()) === undefined) {
    const download = ['apt-get', '--quiet', '--option', 'APT::Sandbox::User=root', 'download', name];
    const run = { cwd: folder, timeoutMs: 300_000, signal };
    try {
      if ((await on.run(download, { ...run, okStatus: 'any' })).status !== 0) {
        await on.run(['apt-get', '--quiet', 'update'], run);
        await on.run(download, run);
      }
    } catch (error) {
      signal.throwIfAborted();
      throw new SetupError(
        `Cannot get the Debian package ${name}`,
        `put ${name}_VERSION_ARCHITECTURE.deb into ${folder}`,
        error,
      );
    }
  }
  const file = (await found()) ?? '';
  if (!existsSync(join(folder, program))) {
    await on.run(['dpkg', '--extract', file, folder], { cwd: folder, timeoutMs: 60_000, signal });
  }
  return decodeURIComponent(file.split('_')[1] ?? '?');
}
