/**
 * systemctl and systemd-run: units looked at, started, stopped, made for one run.
 *
 * Both talk to systemd over its private socket when there is no D-Bus daemon, so nothing here needs one. Leaves out
 * `systemd-run --wait`, which does.
 */
import { type Connection, type RunOptions, text } from '../connections/connection.ts';

/** `systemctl` waits for the job; a unit's own start and stop limits are shorter than this. */
const JOB_TIMEOUT_MS = 120_000;
const LOOK_TIMEOUT_MS = 20_000;

/** systemctl(1), exit status: LSB's 5, program is not installed. */
const NOT_LOADED = 5;

/** A line of `systemctl list-units`. */
export interface UnitLine {
  readonly unit: string;
  /** LoadState: `loaded`, `not-found`, … */
  readonly load: string;
  /** ActiveState: `active`, `inactive`, `failed`, `activating`, `deactivating`, … */
  readonly active: string;
  /** SubState: `running`, `exited`, `dead`, … */
  readonly sub: string;
}

/** A unit made for one run, `systemd-run --unit=`. */
export interface TransientUnit {
  /** with its suffix, such as `buildos-machine-default-7.service` */
  readonly unit: string;
  readonly description: string;
  /** unit settings, in order; a list setting may be given more than once */
  readonly properties: readonly (readonly [name: string, value: string])[];
  readonly environment: Readonly<Record<string, string>>;
  /** absolute path of the program, and its arguments, passed on as they are */
  readonly command: readonly string[];
}

/**
 * Reads properties of a unit. A unit that systemd does not know has `LoadState=not-found` and `ActiveState=inactive`.
 *
 * @returns one entry per property that systemd knows; an unset one is empty
 */
export async function showUnit<P extends string>(
  on: Connection,
  unit: string,
  properties: readonly P[],
): Promise<Readonly<Partial<Record<P, string>>>> {
  const argv = ['systemctl', 'show', `--property=${properties.join(',')}`, '--', unit];
  const values = parseProperties(text(await on.run(argv, { timeoutMs: LOOK_TIMEOUT_MS })));
  const found: Partial<Record<P, string>> = {};
  for (const property of properties) {
    const value = values[property];
    if (value !== undefined) found[property] = value;
  }
  return found;
}

/** Parses `NAME=value` lines; a value may hold `=`. */
export function parseProperties(answer: string): Readonly<Record<string, string>> {
  const values: Record<string, string> = Object.create(null);
  for (const line of answer.split('\n')) {
    const at = line.indexOf('=');
    if (at > 0) values[line.slice(0, at)] = line.slice(at + 1);
  }
  return values;
}

/**
 * Lists units in memory that match a glob, such as `buildos-machine-*.service`, failed and exited ones too.
 */
export async function listUnits(on: Connection, pattern: string): Promise<readonly UnitLine[]> {
  const argv = ['systemctl', 'list-units', '--all', '--full', '--plain', '--no-legend', '--no-pager', '--', pattern];
  return parseUnitLines(text(await on.run(argv, { timeoutMs: LOOK_TIMEOUT_MS })));
}

/** Parses `systemctl list-units --plain --no-legend`; unit names hold no blanks (systemd escapes them). */
export function parseUnitLines(answer: string): readonly UnitLine[] {
  return answer.split('\n').flatMap((line) => {
    const [unit, load, active, sub] = line
      .replace(/^[●○↻×*]/u, ' ')
      .trim()
      .split(/\s+/);
    if (unit === undefined || load === undefined || active === undefined || sub === undefined) return [];
    return [{ unit, load, active, sub }];
  });
}

/** Starts a unit and waits until it is up (for `Type=notify`: ready). */
export async function startUnit(on: Connection, unit: string): Promise<void> {
  await systemctl(on, ['start', '--', unit]);
}

/** Stops a unit and waits until it is down; one that systemd does not know is down. */
export async function stopUnit(on: Connection, unit: string): Promise<void> {
  await systemctl(on, ['stop', '--', unit], [0, NOT_LOADED]);
}

/** Stops a unit if it runs, and starts it. */
export async function restartUnit(on: Connection, unit: string): Promise<void> {
  await systemctl(on, ['restart', '--', unit]);
}

/** Sends SIGKILL to every process of a unit; one that has none is no error. */
export async function killUnit(on: Connection, unit: string): Promise<void> {
  await systemctl(on, ['kill', '--kill-whom=all', '--signal=SIGKILL', '--', unit], 'any');
}

/** Lets systemd forget a failed unit; one that is not failed, or not known, is no error. */
export async function resetFailed(on: Connection, unit: string): Promise<void> {
  await systemctl(on, ['reset-failed', '--', unit], 'any');
}

/**
 * The end of what a unit, and systemd about it, wrote to the journal since the boot.
 *
 * @returns at most `lines` lines of at most 200 characters, control codes replaced; empty when it cannot be read
 */
export async function readJournalTail(on: Connection, unit: string, lines: number): Promise<string> {
  const argv = ['journalctl', '--boot', `--unit=${unit}`, `--lines=${lines}`, '--output=cat', '--no-pager', '--quiet'];
  const result = await on.run(argv, { timeoutMs: LOOK_TIMEOUT_MS, okStatus: 'any' }).catch(() => undefined);
  if (result?.status !== 0) return '';
  return text(result)
    .trimEnd()
    .split('\n')
    .slice(-lines)
    .map((line) => {
      // oxlint-disable-next-line no-control-regex -- control codes of a terminal are what it takes away
      const clean = line.replaceAll(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, '?');
      return clean.length > 200 ? `${clean.slice(0, 199)}…` : clean;
    })
    .join('\n');
}

/** The manager's state: `running`, `degraded`, `starting`, `stopping`, … */
export async function systemState(on: Connection): Promise<string> {
  const result = await on.run(['systemctl', 'is-system-running'], { timeoutMs: LOOK_TIMEOUT_MS, okStatus: 'any' });
  return text(result).trim();
}

/**
 * Begins an orderly reboot and returns once it is queued.
 *
 * Not `systemctl reboot`: that asks logind first, and where there is none it waits, until the reboot it did begin in
 * the end kills it.
 */
export async function reboot(on: Connection): Promise<void> {
  await systemctl(on, ['--no-block', '--job-mode=replace-irreversibly', 'start', 'reboot.target']);
}

/** Starts a transient unit and waits as {@link startUnit} does. */
export async function startTransient(on: Connection, unit: TransientUnit): Promise<void> {
  await on.run(transientArgv(unit), { timeoutMs: JOB_TIMEOUT_MS });
}

/** The command line of {@link startTransient}. */
export function transientArgv(unit: TransientUnit): readonly string[] {
  return [
    'systemd-run',
    '--quiet',
    `--unit=${unit.unit}`,
    `--description=${unit.description}`,
    '--expand-environment=no',
    ...unit.properties.map(([name, value]) => `--property=${name}=${value}`),
    ...Object.entries(unit.environment).map(([name, value]) => `--setenv=${name}=${value}`),
    '--',
    ...unit.command,
  ];
}

async function systemctl(on: Connection, words: readonly string[], okStatus?: RunOptions['okStatus']): Promise<void> {
  await on.run(['systemctl', '--no-ask-password', ...words], {
    timeoutMs: JOB_TIMEOUT_MS,
    ...(okStatus && { okStatus }),
  });
}
