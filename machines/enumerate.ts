/**
 * The machines of this host: directories of the volumes, each with a manifest and a root.
 *
 * ```
 * /build/machines/<volume>/<name>/manifest
 *                                 root/
 * ```
 *
 * A machine that cannot be used is reported and left out; it does not hold back the others.
 */
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { parseMachineManifest } from '../manifests/machine.ts';
import type { MachineManifest } from '../manifests/machine.ts';

/** A machine that builds can run in. */
export interface Machine {
  readonly volume: string;
  readonly manifest: MachineManifest;
}

/** A directory that looks like a machine and is none. */
export interface MachineProblem {
  readonly volume: string;
  readonly name: string;
  readonly message: string;
  readonly hint?: string;
}

/** What was found, in the order of volumes and names. */
export interface Machines {
  readonly machines: readonly Machine[];
  readonly problems: readonly MachineProblem[];
}

/** The volume that wins when two have a machine of one name. */
const DEFAULT_VOLUME = 'default';

/** A machine manifest is small; a larger file is none. */
const MANIFEST_MAX_BYTES = 100_000;

/**
 * Looks at all volumes.
 *
 * @param folder - the folder of the volumes, `/build/machines`; absent: no machines
 */
export async function enumerateMachines(folder: string): Promise<Machines> {
  const volumes = await folders(folder);
  const found: { machines: Machine[]; problems: MachineProblem[] } = { machines: [], problems: [] };
  for (const volume of volumes.toSorted(byDefaultFirst)) {
    const { machines, problems } = await enumerateVolume(join(folder, volume), volume);
    found.problems.push(...problems);
    for (const machine of machines) {
      const { name } = machine.manifest;
      const other = found.machines.find((known) => known.manifest.name === name);
      if (other === undefined) found.machines.push(machine);
      else
        found.problems.push(problem(volume, name, `volume ${other.volume} has a machine of this name`, 'rename one'));
    }
  }
  return found;
}

/**
 * Looks at one volume.
 *
 * @param folder - where it is mounted
 */
export async function enumerateVolume(folder: string, volume: string): Promise<Machines> {
  const machines: Machine[] = [];
  const problems: MachineProblem[] = [];
  for (const name of (await folders(folder)).toSorted()) {
    try {
      machines.push({ volume, manifest: await readMachine(join(folder, name), name) });
    } catch (error) {
      const hint: unknown = error instanceof Error && 'hint' in error ? error.hint : undefined;
      const message = error instanceof Error ? error.message : String(error);
      problems.push(problem(volume, name, message, typeof hint === 'string' ? hint : undefined));
    }
  }
  return { machines, problems };
}

async function readMachine(folder: string, name: string): Promise<MachineManifest> {
  const file = join(folder, 'manifest');
  const { size } = await stat(file);
  if (size > MANIFEST_MAX_BYTES) throw new RangeError(`Cannot read ${file}: ${size} bytes are too many for a manifest`);
  const manifest = parseMachineManifest(await readFile(file, 'utf8'), { name: file });
  if (manifest.name !== name) {
    throw new RangeError(`Cannot use machine ${name}: its manifest says that it is ${manifest.name}`);
  }
  if (!(await stat(join(folder, 'root'))).isDirectory()) {
    throw new RangeError(`Cannot use machine ${name}: ${folder}/root is no folder`);
  }
  return manifest;
}

/** The folders in a folder, but hidden ones (`.builds`) and the one that mkfs makes; none when it is absent. */
async function folders(folder: string): Promise<readonly string[]> {
  try {
    const entries = await readdir(folder, { withFileTypes: true });
    return entries
      .filter((entry) => entry.isDirectory() && !entry.name.startsWith('.') && entry.name !== 'lost+found')
      .map((entry) => entry.name);
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return [];
    throw error;
  }
}

const problem = (volume: string, name: string, message: string, hint?: string): MachineProblem => ({
  volume,
  name,
  message,
  ...(hint === undefined ? {} : { hint }),
});

const byDefaultFirst = (a: string, b: string): number => {
  if (a === b) return 0;
  if (a === DEFAULT_VOLUME) return -1;
  if (b === DEFAULT_VOLUME) return 1;
  return a < b ? -1 : 1;
};
