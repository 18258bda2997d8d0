/**
 * Makes a machine: a Debian root to which the properties of its definition are applied, put on a disk image.
 *
 * Its id is a digest of the definition and of the versions of all packages: the same input gives the same id, and another
 * id means that builds may come out differently.
 */
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, rm, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { lines } from '../connections/connection.ts';
import type { Connection } from '../connections/connection.ts';
import { openChain } from '../connections/open.ts';
import { bootstrap, debianSources } from '../host/mmdebstrap.ts';
import type { MachineManifest } from '../manifests/machine.ts';
import { checkReport, deploy } from '../properties/deploy.ts';
import type { DeployReport } from '../properties/deploy.ts';
import { definitionDigest, hostAttrs } from '../properties/host-definition.ts';
import type { HostDefinition } from '../properties/host-definition.ts';
import { readMachineDefinition } from './definition.ts';
import { listMachines, putMachine } from './disk.ts';

/** What to make. Needs root. */
export interface CreateOptions {
  /** Of the definition, and of the machine. */
  readonly name: string;
  /** The definition; default: the one of that name that we ship. */
  readonly definition?: HostDefinition;
  /** Folder for caches and scratch files. */
  readonly work: string;
  /** The disk image; default `<work>/machines.btrfs`. Made when it is absent. */
  readonly disk?: string;
  /** The least size of the disk image; default 4 GiB. The file is sparse. */
  readonly sizeBytes?: number;
  /** Debian mirror to make it from; the machine itself keeps Debian's own in its apt sources. */
  readonly mirror?: string;
  readonly signal?: AbortSignal;
  readonly onProgress?: (line: string) => void;
}

/** What came of it. */
export interface CreatedMachine {
  readonly disk: string;
  readonly manifest: MachineManifest;
  /** False: the disk image had this very machine already. */
  readonly changed: boolean;
  readonly report: DeployReport;
}

export const DEFAULT_DISK_BYTES: number = 4 * 1024 ** 3;

/**
 * Makes a machine and puts it on a disk image.
 *
 * @throws {UnknownMachineError} when there is no definition of that name
 * @throws {DeployError} when properties fail; the disk image is as before then
 * @throws {CommandError} when a tool fails; the disk image is as before then
 */
export async function createMachine(options: CreateOptions): Promise<CreatedMachine> {
  const definition = options.definition ?? readMachineDefinition(options.name);
  const work = resolve(options.work);
  const disk = resolve(options.disk ?? join(work, 'machines.btrfs'));
  const say = options.onProgress ?? (() => undefined);
  const signal = options.signal === undefined ? {} : { signal: options.signal };
  await using local = await openChain([['local']]);
  await using scratch = await makeScratch(join(work, 'tmp'));
  const root = join(scratch.folder, 'root');

  const { packages } = hostAttrs(definition);
  say(`Debian ${definition.base.suite}: ${packages.length} packages and what they need`);
  await bootstrap(local, {
    suite: definition.base.suite,
    sources: debianSources({
      suite: definition.base.suite,
      ...(options.mirror === undefined ? {} : { mirror: options.mirror }),
    }),
    variant: 'minbase',
    // All at once is quicker than one property after the other; the properties then find them installed.
    include: packages,
    into: root,
    cache: join(work, 'cache', 'debs'),
    ...signal,
  });

  say(`Applying ${definition.properties.length} properties`);
  const report = await applyProperties(definition, root, options.signal);
  // Those of whoever makes the machine; the container gets its host's name servers. No property: a chroot binds its own over it.
  await local.run(['rm', '-f', join(root, 'etc/resolv.conf')]);
  const manifest = await manifestOf(local, definition, root);
  const changed = !(await isOnDisk(disk, manifest));
  if (changed) {
    say(`Putting ${manifest.name} (${manifest.id}) on ${disk}`);
    await putMachine({ file: disk, sizeBytes: options.sizeBytes ?? DEFAULT_DISK_BYTES, manifest, root, ...signal });
  } else {
    say(`${disk} has ${manifest.name} (${manifest.id}) already`);
  }
  return { disk, manifest, changed, report };
}

async function applyProperties(
  definition: HostDefinition,
  root: string,
  signal: AbortSignal | undefined,
): Promise<DeployReport> {
  await using connection = await openChain([['local'], ['chroot', { into: root }]]);
  const report = await deploy(definition, connection, signal === undefined ? {} : { signal });
  checkReport(report);
  return report;
}

async function manifestOf(local: Connection, definition: HostDefinition, root: string): Promise<MachineManifest> {
  const format = '${Package} ${Version} ${Architecture}\n';
  const versions = lines(
    await local.run(['dpkg-query', `--admindir=${root}/var/lib/dpkg`, '--show', `--showformat=${format}`]),
  );
  return {
    id: machineId(definition, versions),
    name: definition.name,
    summary: definition.summary,
    role: 'build',
    type: 'nspawn',
  };
}

/**
 * The id of a machine.
 *
 * @param versions - `<package> <version> <architecture>`, in any order
 * @returns the suite and 16 hex digits: `trixie-0123456789abcdef`
 */
export function machineId(definition: HostDefinition, versions: readonly string[]): string {
  const hash = createHash('sha256').update(`machine 1\n${definitionDigest(definition)}\n`);
  for (const version of versions.toSorted()) hash.update(`${version}\n`);
  return `${definition.base.suite}-${hash.digest('hex').slice(0, 16)}`;
}

async function isOnDisk(disk: string, manifest: MachineManifest): Promise<boolean> {
  const found = await stat(disk).catch(() => undefined);
  if (found === undefined) return false;
  const { machines } = await listMachines(disk);
  return machines.some((machine) => machine.manifest.name === manifest.name && machine.manifest.id === manifest.id);
}

async function makeScratch(parent: string): Promise<AsyncDisposable & { readonly folder: string }> {
  await mkdir(parent, { recursive: true });
  const folder = await mkdtemp(join(parent, 'machine-'));
  return { folder, [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }) };
}
