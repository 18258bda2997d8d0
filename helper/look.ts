/** Finds what there is on the host. Nothing here changes anything. */
import { type Connection, CommandError, FileError, text } from '../connections/connection.ts';
import { findSubvolume } from '../host/btrfs.ts';
import { listLinks, listNetns } from '../host/ip.ts';
import { listPortSet } from '../host/nft.ts';
import { listUnits, readJournalTail, showUnit } from '../host/systemd.ts';
import { PORT_SET, TABLE } from './firewall.ts';
import {
  type Layout,
  BUILDS_FOLDER,
  MACHINE_UNITS,
  buildOfNetns,
  buildOfUnit,
  buildsPath,
  linkName,
  machinePath,
  machineUnit,
  netnsName,
  snapshotPath,
} from './names.ts';
import { type FoundBuild, RefusedError } from './plan.ts';
import type { AgentState, BootstrapState, BuildRemains, MachineEnd } from './verb.ts';

const TIMEOUT_MS = 30_000;

/** How much of a machine's last words an answer tells. */
const TAIL_LINES = 20;

/** Where systemd-resolved keeps the name servers that are reachable from another network namespace. */
const RESOLVED_UPLINK = '/run/systemd/resolve/resolv.conf';

/** One file's type and rights, as `stat` has them. */
interface Rights {
  readonly isFolder: boolean;
  readonly uid: number;
  /** permission bits with set-id and sticky */
  readonly mode: number;
}

/** A unit's state as {@link FoundBuild} has it. */
export async function findUnit(on: Connection, unit: string): Promise<string> {
  const found = await showUnit(on, unit, ['LoadState', 'ActiveState', 'SubState']);
  return found.LoadState === 'not-found' ? 'absent' : stateOf(found.ActiveState ?? 'absent', found.SubState ?? '');
}

/** `active` would mean both "it runs" and, of a unit that remains after its end, "it has ended well". */
function stateOf(active: string, sub: string): string {
  return active === 'active' && sub === 'exited' ? 'exited' : active;
}

/** All that belongs to one build; the snapshot is looked for in one volume. */
export async function findBuild(on: Connection, volume: string, build: string, layout: Layout): Promise<FoundBuild> {
  const [unit, namespaces, links, ports, snapshot] = await Promise.all([
    findUnit(on, machineUnit(build)),
    listNetns(on),
    listLinks(on),
    listPortSet(on, TABLE, PORT_SET),
    findRights(on, snapshotPath(layout, volume, build)),
  ]);
  return {
    unit,
    netns: namespaces.includes(netnsName(build)),
    link: links.some((link) => link.name === linkName(build)),
    snapshot: snapshot !== undefined,
    ports,
  };
}

/** What `machine.snapshot` needs to know beside {@link findBuild}. */
export async function findMachine(
  on: Connection,
  volume: string,
  machine: string,
  layout: Layout,
): Promise<{ machine: { readonly readOnly: boolean } | undefined; buildsFolder: boolean }> {
  const folder = await findRights(on, buildsPath(layout, volume));
  return { machine: await findSubvolume(on, machinePath(layout, volume, machine)), buildsFolder: folder !== undefined };
}

/** Which of these folders are not there. */
export async function findMissing(on: Connection, folders: readonly string[]): Promise<readonly string[]> {
  const found = await Promise.all(folders.map((folder) => findRights(on, folder)));
  return folders.filter((_, index) => found[index]?.isFolder !== true);
}

/** Whether systemd-resolved runs here. */
export async function findResolved(on: Connection): Promise<boolean> {
  try {
    await on.readFile(RESOLVED_UPLINK);
    return true;
  } catch (error) {
    if (error instanceof FileError) return false;
    throw error;
  }
}

/**
 * Makes sure that nobody but root can have put another folder in the place of a volume: every folder on the way
 * belongs to root, and who else may write to it is bound by the sticky bit.
 *
 * @throws {RefusedError}
 */
export async function checkVolume(on: Connection, volume: string, layout: Layout): Promise<void> {
  const path = `${layout.machines}/${volume}`;
  const parts = path.split('/').slice(1);
  const folders = parts.map((_, index) => `/${parts.slice(0, index + 1).join('/')}`);
  for (const folder of [...folders, buildsPath(layout, volume)]) {
    const rights = await findRights(on, folder);
    if (rights === undefined && folder.endsWith(`/${BUILDS_FOLDER}`)) return; // made by the first snapshot
    if (rights === undefined || !rights.isFolder) {
      throw new RefusedError(`Cannot use volume ${volume}: ${folder} is not a folder`, `mount a btrfs at ${path}`);
    }
    const others = (rights.mode & 0o022) !== 0 && (rights.mode & 0o1000) === 0;
    if (rights.uid !== 0 || others) {
      throw new RefusedError(
        `Cannot use volume ${volume}: others than root may replace what is in ${folder} ` +
          `(owner ${rights.uid}, mode ${rights.mode.toString(8)})`,
        `chown root ${folder}; chmod go-w ${folder} (or chmod +t, when others must write there)`,
      );
    }
  }
}

/** What every build has left on this host: units, snapshots, namespaces and links, in the order of the names. */
export async function findAllRemains(on: Connection, layout: Layout): Promise<readonly BuildRemains[]> {
  const [units, namespaces, links, snapshots] = await Promise.all([
    listUnits(on, MACHINE_UNITS),
    listNetns(on),
    listLinks(on),
    listSnapshots(on, layout),
  ]);
  const unitOf = new Map(units.map(({ unit, active, sub }) => [buildOfUnit(unit), stateOf(active, sub)] as const));
  const netnsOf = new Set(namespaces.map(buildOfNetns));
  const linkOf = new Set(links.map(({ alias }) => (alias === undefined ? undefined : buildOfNetns(alias))));
  const volumesOf = Map.groupBy(snapshots, ({ build }) => build);
  const builds = new Set([...unitOf.keys(), ...netnsOf, ...linkOf, ...volumesOf.keys()]);
  return [...builds]
    .filter((build) => build !== undefined)
    .sort()
    .flatMap((build) => {
      const unit = unitOf.get(build);
      const volumes = volumesOf.get(build) ?? [undefined];
      return volumes.map((found) => ({
        build,
        ...(found && { volume: found.volume }),
        ...(unit !== undefined && { unit }),
        snapshot: found !== undefined,
        netns: netnsOf.has(build),
        link: linkOf.has(build),
      }));
    });
}

/** How a machine ended, or that it has not. */
export async function findMachineEnd(on: Connection, build: string): Promise<MachineEnd> {
  const found = await showUnit(on, machineUnit(build), [
    'LoadState',
    'ActiveState',
    'SubState',
    'Result',
    'ExecMainStatus',
  ]);
  if (found.LoadState === 'not-found') return { result: 'absent', status: 0 };
  const ended = found.ActiveState === 'failed' || found.ActiveState === 'inactive' || found.SubState === 'exited';
  if (!ended) return { result: 'running', status: 0 };
  const end = { result: found.Result ?? 'unknown', status: Number(found.ExecMainStatus ?? 0) };
  if (end.result === 'success') return end;
  const detail = await readJournalTail(on, machineUnit(build), TAIL_LINES);
  return detail === '' ? end : { ...end, detail };
}

/** Where a bootstrap stands. */
export async function findBootstrap(on: Connection, unit: string): Promise<BootstrapState> {
  const found = await showUnit(on, unit, ['LoadState', 'ActiveState', 'SubState', 'Result', 'ExecMainStatus']);
  const { LoadState, ActiveState, SubState, Result = 'unknown', ExecMainStatus = '0' } = found;
  if (LoadState === 'not-found') return { state: 'absent', detail: 'not started' };
  if (ActiveState === 'failed') return describeFailure(Result, ExecMainStatus);
  if (SubState === 'exited') return { state: 'success', detail: 'exit status 0' };
  if (ActiveState === 'inactive') return { state: 'absent', detail: `stopped (${Result})` };
  return { state: 'running', detail: `${ActiveState ?? 'unknown'} (${SubState ?? 'unknown'})` };
}

/** systemd's view of a service. */
export async function findAgent(on: Connection, unit: string): Promise<AgentState> {
  const found = await showUnit(on, unit, ['LoadState', 'ActiveState', 'SubState', 'Result', 'StatusText']);
  if (found.LoadState === 'not-found') return { state: 'absent', detail: `there is no unit ${unit}` };
  const detail = [found.SubState, found.Result === 'success' ? '' : found.Result, found.StatusText];
  return { state: found.ActiveState ?? 'unknown', detail: detail.filter(Boolean).join(', ') };
}

function describeFailure(result: string, status: string): BootstrapState {
  switch (result) {
    case 'timeout':
      return { state: 'timeout', detail: 'ended after its time limit' };
    case 'exit-code':
      return { state: 'failed', detail: `exit status ${status}` };
    case 'signal':
    case 'core-dump':
      return { state: 'failed', detail: `killed by signal ${status}` };
    case 'oom-kill':
      return { state: 'failed', detail: 'killed because it used more memory than it may' };
    default:
      return { state: 'failed', detail: `${result}, status ${status}` };
  }
}

/** The folders in every volume's folder of snapshots; other volumes' absence is no error. */
async function listSnapshots(on: Connection, layout: Layout): Promise<{ volume: string; build: string }[]> {
  const depth = ['-mindepth', '3', '-maxdepth', '3'];
  const argv = ['find', layout.machines, ...depth, '-type', 'd', '-path', `*/${BUILDS_FOLDER}/*`, '-printf', '%P\\0'];
  const found = text(await on.run(argv, { timeoutMs: TIMEOUT_MS, okStatus: [0, 1] }));
  return found.split('\0').flatMap((path) => {
    const [volume, folder, build] = path.split('/');
    if (volume === undefined || build === undefined || folder !== BUILDS_FOLDER) return [];
    return [{ volume, build }];
  });
}

/** Type and rights of one path, not following a link; undefined when there is nothing. */
async function findRights(on: Connection, path: string): Promise<Rights | undefined> {
  try {
    const [mode, uid] = text(await on.run(['stat', '--format=%f %u', '--', path], { timeoutMs: TIMEOUT_MS })).split(
      ' ',
    );
    const bits = Number.parseInt(mode ?? '', 16);
    return { isFolder: (bits & 0o170000) === 0o040000, uid: Number(uid), mode: bits & 0o7777 };
  } catch (error) {
    if (error instanceof CommandError && error.failure === 'status') return undefined;
    throw error;
  }
}
