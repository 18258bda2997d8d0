/**
 * Units of systemd: files, what is enabled, what is masked.
 *
 * In an image no systemd runs: enabling is links, which `systemctl` makes by itself when it finds no manager, and nothing
 * is started. On a live host the manager is told to reload.
 */
import { z } from 'zod';
import { lines } from '../connections/connection.ts';
import { type Arg, arg, textThat } from './args.ts';
import { definePropertyList, onApplyChange } from './combinators.ts';
import { OWN, describeTextChange, digestOf, isFile, isLink, removeFile, writeWhole } from './_file-change.ts';
import type { AttrsToAdd, HostAttrs } from './host-attrs.ts';
import {
  type HostReader,
  type HostWriter,
  type PropertyApplication,
  FailedChangeError,
  InapplicablePropertyError,
  NOTHING_TO_TAKE_BACK,
  type Outcome,
  defineProperty,
} from './property.ts';

/** Units of the administrator, so ours, live here. */
const UNITS = '/etc/systemd/system';

const UNIT_NAME =
  /^[A-Za-z0-9:_.\\@-]{1,240}\.(service|socket|target|mount|automount|path|timer|slice|device|swap|scope)$/;

const UNIT: z.ZodType<string> = textThat(
  (name) => UNIT_NAME.test(name),
  'the full name of a unit, such as "ssh.service"',
);

const NAME: Arg<string> = arg('name', UNIT, 'full name of a unit');
const NAMES: Arg<readonly string[]> = arg('names', z.array(UNIT).min(1, 'it must not be empty'), 'full names of units');

/** A unit file without a section does nothing, and that is always a mistake. */
const TEXT: Arg<string> = arg(
  'text',
  z.string().refine((text) => /^\[[A-Z][A-Za-z]*\]$/m.test(text) && text.endsWith('\n'), {
    error: 'it must have a section such as [Service], and end with a newline',
  }),
  'systemd.syntax(7)',
);

/** A unit file has this text. Unapplied: it goes away. */
export const unit: (name: string, text: string) => PropertyApplication = defineProperty<[name: string, text: string]>({
  id: 'systemd.unit',
  kind: 'posix',
  touches: 'own-files',
  describe: (name) => `unit ${name}`,
  about: 'A unit file has this text; on a live host systemd reads it. Unapplied: it goes away.',
  example: ['hello.service', '[Service]\nExecStart=/usr/bin/echo hello\n[Install]\nWantedBy=multi-user.target\n'],
  args: [NAME, TEXT],
  manages: (name) => [`file ${UNITS}/${name}`],
  hostattrs: (_known, name) => ({ units: [name], files: [`${UNITS}/${name}`] }),
  facts: (name) => [{ fact: 'file', path: `${UNITS}/${name}`, digest: true }],
  check: ({ facts }, name, text) => isFile(facts.file(`${UNITS}/${name}`), digestOf(text), {}),
  plan: async (host, name, text) => await describeTextChange(host, `${UNITS}/${name}`, text),
  apply: async (host, name, text) => {
    await writeWhole(host, `${UNITS}/${name}`, Buffer.from(text), {});
    await reload(host);
  },
  checkUnapplied: ({ facts }, name) => facts.file(`${UNITS}/${name}`) === undefined,
  unapply: async (host, name) => {
    await removeFile(host, `${UNITS}/${name}`);
    await reload(host);
  },
});

/** A drop-in `UNIT.d/NAME` has this text. Unapplied: it goes away. */
export const dropIn: (unitName: string, name: string, text: string) => PropertyApplication = defineProperty<
  [unitName: string, name: string, text: string]
>({
  id: 'systemd.dropIn',
  kind: 'posix',
  touches: 'own-files',
  describe: (unitName, name) => `unit ${unitName} with ${name}`,
  about: 'A drop-in UNIT.d/NAME has this text; on a live host systemd reads it. Unapplied: it goes away.',
  example: ['ssh.service', '10-nice.conf', '[Service]\nNice=5\n'],
  args: [
    arg('unitName', UNIT, 'full name of a unit'),
    arg(
      'name',
      textThat((name) => /^[A-Za-z0-9_.@-]+\.conf$/.test(name), 'like "10-limits.conf"'),
      'of the drop-in',
    ),
    TEXT,
  ],
  manages: (unitName, name) => [`file ${dropInPath(unitName, name)}`],
  hostattrs: (_known, unitName, name) => ({ files: [dropInPath(unitName, name)] }),
  facts: (unitName, name) => [{ fact: 'file', path: dropInPath(unitName, name), digest: true }],
  check: ({ facts }, unitName, name, text) => isFile(facts.file(dropInPath(unitName, name)), digestOf(text), {}),
  plan: async (host, unitName, name, text) => await describeTextChange(host, dropInPath(unitName, name), text),
  apply: async (host, unitName, name, text) => {
    await writeWhole(host, dropInPath(unitName, name), Buffer.from(text), {});
    await reload(host);
  },
  checkUnapplied: ({ facts }, unitName, name) => facts.file(dropInPath(unitName, name)) === undefined,
  unapply: async (host, unitName, name) => {
    await removeFile(host, dropInPath(unitName, name));
    await reload(host);
  },
});

/** Units are enabled: they start at the next boot. Units without [Install] count as enabled. Unapplied: disabled. */
export const enabled: (names: readonly string[]) => PropertyApplication = defineProperty<[names: readonly string[]]>({
  id: 'systemd.enabled',
  kind: 'posix',
  describe: (names) => `enabled: ${names.join(' ')}`,
  about:
    'Units are enabled: they start at the next boot. Units without [Install] count as enabled. Unapplied: disabled.',
  example: [['ssh.service']],
  args: [NAMES],
  parts: eachName,
  manages: (names) => names.map((name) => `enabled ${name}`),
  hostattrs: (known, names) => ({ ...refuseMasked(known, names), unitsEnabled: names }),
  check: async (host, names) => (await unitStates(host, names)).every((state) => ENABLED.has(state)),
  apply: async (host, names) => void (await host.run(['systemctl', 'enable', '--quiet', '--', ...names], OWN)),
  checkUnapplied: async (host, names) => (await unitStates(host, names)).every((state) => state !== 'enabled'),
  unapply: disable,
});

/** Units are not enabled, and not masked either: others may still start them. Unapplied: enabled. */
export const disabled: (names: readonly string[]) => PropertyApplication = defineProperty<[names: readonly string[]]>({
  id: 'systemd.disabled',
  kind: 'posix',
  describe: (names) => `disabled: ${names.join(' ')}`,
  about: 'Units are not enabled, and not masked either: others may still start them. Unapplied: enabled.',
  example: [['apt-daily.timer', 'apt-daily-upgrade.timer']],
  args: [NAMES],
  parts: eachName,
  manages: (names) => names.map((name) => `enabled ${name}`),
  check: async (host, names) => (await unitStates(host, names)).every((state) => state !== 'enabled'),
  apply: disable,
  unapply: async (host, names) => void (await host.run(['systemctl', 'enable', '--quiet', '--', ...names], OWN)),
});

/** Units cannot be started by anything. They need not exist. Unapplied: they can. */
export const masked: (names: readonly string[]) => PropertyApplication = defineProperty<[names: readonly string[]]>({
  id: 'systemd.masked',
  kind: 'posix',
  touches: 'own-files',
  describe: (names) => `masked: ${names.join(' ')}`,
  about: 'Units cannot be started by anything. They need not exist. Unapplied: they can.',
  example: [['systemd-firstboot.service']],
  args: [NAMES],
  parts: eachName,
  manages: (names) => names.map((name) => `file ${UNITS}/${name}`),
  hostattrs: (known, names) => {
    const clash = names.find((name) => known.unitsEnabled.includes(name));
    if (clash === undefined) return { unitsMasked: names };
    throw new InapplicablePropertyError(`"${known.name}" wants unit "${clash}" both enabled and masked`);
  },
  facts: (names) => names.map((name) => ({ fact: 'file', path: `${UNITS}/${name}` })),
  check: (host, names) => names.every((name) => isMasked(host, name)),
  apply: async (host, names) => {
    const open = names.filter((name) => !isMasked(host, name));
    const solid = open.find((name) => (host.facts.file(`${UNITS}/${name}`)?.type ?? 'link') !== 'link');
    if (solid !== undefined) {
      throw new FailedChangeError(`Cannot mask ${solid}: ${UNITS}/${solid} is a file`, {
        hint: 'It was put there by hand or by systemd.unit; remove it first.',
      });
    }
    // --force: also in place of a link.
    await host.run(['systemctl', 'mask', '--quiet', '--force', '--', ...open], OWN);
    await reload(host);
  },
  checkUnapplied: (host, names) => !names.some((name) => isMasked(host, name)),
  unapply: async (host, names) => {
    const closed = names.filter((name) => isMasked(host, name));
    await host.run(['rm', '-f', '--', ...closed.map((name) => `${UNITS}/${name}`)], OWN);
    await reload(host);
  },
});

/** A service of one's own: its unit file, started at each boot and now, restarted when its text changes. */
export const service: (name: string, text: string) => PropertyApplication = definePropertyList<
  [name: string, text: string]
>({
  id: 'systemd.service',
  about:
    'A service has this unit file, starts at each boot, and on a live host runs now; it is restarted when the text changes. Unapplied: ' +
    'it is stopped and goes away.',
  example: [
    'hello.service',
    '[Service]\nExecStart=/usr/bin/sleep infinity\nDynamicUser=yes\n[Install]\nWantedBy=multi-user.target\n',
  ],
  args: [
    NAME,
    arg(
      'text',
      textThat(
        (text) => /^\[Install\]$/m.test(text) && text.endsWith('\n'),
        'a unit with an [Install], or it would not start at boot',
      ),
      'systemd.service(5)',
    ),
  ],
  describe: (name) => `service ${name}`,
  properties: (name, text) => [onApplyChange(unit(name, text), restarted([name])), enabled([name]), started([name])],
});

/** Units run: on a live host now; in an image nothing starts. Unapplied: they are stopped. */
export const started: (names: readonly string[]) => PropertyApplication = defineProperty<[names: readonly string[]]>({
  id: 'systemd.started',
  kind: 'posix',
  describe: (names) => `started: ${names.join(' ')}`,
  about:
    'Units run now, on a live host; in an image nothing starts. For the next boot there is systemd.enabled(). Unapplied: they are ' +
    'stopped.',
  example: [['ssh.service']],
  args: [NAMES],
  parts: eachName,
  manages: (names) => names.map((name) => `started ${name}`),
  hostattrs: (known, names) => refuseMasked(known, names),
  check: async (host, names) => !(await host.isLive()) || (await inactive(host, names)).length === 0,
  plan: async (host, names) => (await inactive(host, names)).map((name) => `start ${name}`),
  apply: async (host, names) => void (await host.run(['systemctl', 'start', '--', ...(await inactive(host, names))])),
  checkUnapplied: async (host, names) => !(await host.isLive()) || (await active(host, names)).length === 0,
  unapply: async (host, names) => void (await host.run(['systemctl', 'stop', '--', ...(await active(host, names))])),
});

/** Units do not run: on a live host they are stopped now. Unapplied: they are started. */
export const stopped: (names: readonly string[]) => PropertyApplication = defineProperty<[names: readonly string[]]>({
  id: 'systemd.stopped',
  kind: 'posix',
  describe: (names) => `stopped: ${names.join(' ')}`,
  about:
    'Units do not run now, on a live host. For the next boot there are systemd.disabled() and systemd.masked(). Unapplied: they ' +
    'are started.',
  example: [['apt-daily.timer']],
  args: [NAMES],
  parts: eachName,
  manages: (names) => names.map((name) => `started ${name}`),
  check: async (host, names) => !(await host.isLive()) || (await active(host, names)).length === 0,
  plan: async (host, names) => (await active(host, names)).map((name) => `stop ${name}`),
  apply: async (host, names) => void (await host.run(['systemctl', 'stop', '--', ...(await active(host, names))])),
  checkUnapplied: async (host, names) => !(await host.isLive()) || (await inactive(host, names)).length === 0,
  unapply: async (host, names) => void (await host.run(['systemctl', 'start', '--', ...(await inactive(host, names))])),
});

/** Units are started anew, each time that this is applied; in an image nothing happens. For use with onChange(). */
export const restarted: (names: readonly string[]) => PropertyApplication = defineProperty<[names: readonly string[]]>({
  id: 'systemd.restarted',
  kind: 'posix',
  ...NOTHING_TO_TAKE_BACK,
  describe: (names) => `restarted: ${names.join(' ')}`,
  about:
    'Units are started anew, each time that this is applied: onChange(…, systemd.restarted([…])). In an image nothing happens. Unapplied: nothing.',
  example: [['ssh.service']],
  args: [NAMES],
  check: async (host) => !(await host.isLive()),
  apply: async (host, names) => await toThoseThere(host, 'restart', names),
});

/** Units that run read their configuration anew, each time that this is applied. For use with onChange(). */
export const reloaded: (names: readonly string[]) => PropertyApplication = defineProperty<[names: readonly string[]]>({
  id: 'systemd.reloaded',
  kind: 'posix',
  ...NOTHING_TO_TAKE_BACK,
  describe: (names) => `reloaded: ${names.join(' ')}`,
  about:
    'Units that run read their configuration anew, or are restarted when they cannot, each time that this is applied: ' +
    'onChange(…, systemd.reloaded([…])). In an image nothing happens. Unapplied: nothing.',
  example: [['ssh.service']],
  args: [NAMES],
  check: async (host) => !(await host.isLive()),
  apply: async (host, names) => await toThoseThere(host, 'try-reload-or-restart', names),
});

/** What the host boots into, such as `multi-user.target`. */
export const defaultTarget: (name: string) => PropertyApplication = defineProperty<[name: string]>({
  id: 'systemd.defaultTarget',
  kind: 'posix',
  touches: 'own-files',
  describe: (name) => `boots into ${name}`,
  about: 'What the host boots into. Unapplied: what the distribution boots into.',
  example: ['multi-user.target'],
  args: [NAME],
  facts: () => [{ fact: 'file', path: DEFAULT_TARGET }],
  check: ({ facts }, name) => isLink(facts.file(DEFAULT_TARGET), `/usr/lib/systemd/system/${name}`),
  apply: async (host, name) => {
    await host.run(['ln', '-sfn', '--', `/usr/lib/systemd/system/${name}`, DEFAULT_TARGET], OWN);
    await reload(host);
  },
  checkUnapplied: ({ facts }) => facts.file(DEFAULT_TARGET) === undefined,
  unapply: async (host) => {
    await removeFile(host, DEFAULT_TARGET);
    await reload(host);
  },
});

const DEFAULT_TARGET = `${UNITS}/default.target`;

/** Words of `systemctl is-enabled` for units that need nothing done. */
const ENABLED: ReadonlySet<string> = new Set(['enabled', 'static', 'indirect', 'alias', 'generated']);

const dropInPath = (unitName: string, name: string): string => `${UNITS}/${unitName}.d/${name}`;

const isMasked = (host: HostReader, name: string): boolean => isLink(host.facts.file(`${UNITS}/${name}`), '/dev/null');

/** One word for each unit, in order; `unknown` for all when one of them is not there. */
async function unitStates(host: HostReader, names: readonly string[]): Promise<readonly string[]> {
  const result = await host.run(['systemctl', 'is-enabled', '--', ...names], { ...OWN, okStatus: 'any' });
  const states = lines(result);
  return states.length === names.length ? states : names.map(() => 'unknown');
}

/** Those that run or are about to. */
async function active(host: HostReader, names: readonly string[]): Promise<string[]> {
  const running = new Set(['active', 'activating', 'reloading', 'refreshing']);
  const states = lines(await host.run(['systemctl', 'is-active', '--', ...names], { okStatus: 'any' }));
  return names.filter((_, index) => running.has(states[index] ?? ''));
}

async function inactive(host: HostReader, names: readonly string[]): Promise<string[]> {
  const running = new Set(await active(host, names));
  return names.filter((name) => !running.has(name));
}

/**
 * Has units do something on a live host. Those that are not there are left out, and named: what changed may have been the
 * unit itself, which was taken back.
 */
async function toThoseThere(host: HostWriter, verb: string, names: readonly string[]): Promise<Outcome> {
  const shown = await host.run(['systemctl', 'show', '--property=LoadState', '--value', '--', ...names]);
  const states = lines(shown).filter(Boolean);
  const there = names.filter((_, index) => states[index] !== 'not-found');
  for (const name of names) if (!there.includes(name)) host.progress(`${name} is not there: no ${verb}`);
  if (there.length === 0) return 'no-change';
  await host.run(['systemctl', verb, '--', ...there]);
  return 'changed';
}

/** A unit that is masked cannot be enabled or started. */
function refuseMasked(known: HostAttrs, names: readonly string[]): AttrsToAdd {
  const clash = names.find((name) => known.unitsMasked.includes(name));
  if (clash === undefined) return {};
  throw new InapplicablePropertyError(`"${known.name}" wants unit "${clash}" both masked and enabled or started`);
}

async function disable(host: HostWriter, names: readonly string[]): Promise<void> {
  await host.run(['systemctl', 'disable', '--quiet', '--', ...names], OWN);
}

async function reload(host: HostWriter): Promise<void> {
  if (await host.isLive()) await host.run(['systemctl', 'daemon-reload']);
}

function eachName(names: readonly string[]): [names: readonly string[]][] {
  return names.map((name) => [[name]]);
}
