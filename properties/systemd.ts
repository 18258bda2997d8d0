/**
 * Units of systemd: files, what is enabled, what is masked.
 *
 * In an image no systemd runs: enabling is links, which `systemctl` makes by itself when it finds no manager, and nothing
 * is started. On a live host the manager is told to reload.
 */
import { z } from 'zod';
import { lines } from '../connections/connection.ts';
import { type Arg, arg, textThat } from './args.ts';
import { describeTextChange, digestOf, isFile, isLink, removeFile, writeWhole } from './file.ts';
import {
  type HostReader,
  type HostWriter,
  type PropertyApplication,
  FailedChangeError,
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
  about: 'A unit file has this text. Unapplied: it goes away.',
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
  about: 'A drop-in UNIT.d/NAME has this text. Unapplied: it goes away.',
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
  args: [NAMES],
  parts: eachName,
  manages: (names) => names.map((name) => `enabled ${name}`),
  hostattrs: (_known, names) => ({ unitsEnabled: names }),
  check: async (host, names) => (await unitStates(host, names)).every((state) => ENABLED.has(state)),
  apply: async (host, names) => void (await host.run(['systemctl', 'enable', '--quiet', '--', ...names])),
  checkUnapplied: async (host, names) => (await unitStates(host, names)).every((state) => state !== 'enabled'),
  unapply: disable,
});

/** Units are not enabled, and not masked either: others may still start them. Unapplied: enabled. */
export const disabled: (names: readonly string[]) => PropertyApplication = defineProperty<[names: readonly string[]]>({
  id: 'systemd.disabled',
  kind: 'posix',
  describe: (names) => `disabled: ${names.join(' ')}`,
  about: 'Units are not enabled, and not masked either: others may still start them. Unapplied: enabled.',
  args: [NAMES],
  parts: eachName,
  manages: (names) => names.map((name) => `enabled ${name}`),
  check: async (host, names) => (await unitStates(host, names)).every((state) => state !== 'enabled'),
  apply: disable,
  unapply: async (host, names) => void (await host.run(['systemctl', 'enable', '--quiet', '--', ...names])),
});

/** Units cannot be started by anything. They need not exist. Unapplied: they can. */
export const masked: (names: readonly string[]) => PropertyApplication = defineProperty<[names: readonly string[]]>({
  id: 'systemd.masked',
  kind: 'posix',
  touches: 'own-files',
  describe: (names) => `masked: ${names.join(' ')}`,
  about: 'Units cannot be started by anything. They need not exist. Unapplied: they can.',
  args: [NAMES],
  parts: eachName,
  manages: (names) => names.map((name) => `file ${UNITS}/${name}`),
  hostattrs: (_known, names) => ({ unitsMasked: names }),
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
    const script = `mkdir -p ${UNITS} && cd ${UNITS} && for name; do ln -sfn /dev/null "$name" || exit 1; done`;
    await host.run(['sh', '-c', script, 'mask', ...open]);
    await reload(host);
  },
  checkUnapplied: (host, names) => !names.some((name) => isMasked(host, name)),
  unapply: async (host, names) => {
    const closed = names.filter((name) => isMasked(host, name));
    await host.run(['rm', '-f', '--', ...closed.map((name) => `${UNITS}/${name}`)]);
    await reload(host);
  },
});

/** What the host boots into, such as `multi-user.target`. */
export const defaultTarget: (name: string) => PropertyApplication = defineProperty<[name: string]>({
  id: 'systemd.defaultTarget',
  kind: 'posix',
  touches: 'own-files',
  describe: (name) => `boots into ${name}`,
  about: 'What the host boots into.',
  args: [NAME],
  facts: () => [{ fact: 'file', path: DEFAULT_TARGET }],
  check: ({ facts }, name) => isLink(facts.file(DEFAULT_TARGET), `/usr/lib/systemd/system/${name}`),
  apply: async (host, name) => {
    await host.run(['ln', '-sfn', '--', `/usr/lib/systemd/system/${name}`, DEFAULT_TARGET]);
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
  const result = await host.run(['systemctl', 'is-enabled', '--', ...names], { okStatus: 'any' });
  const states = lines(result);
  return states.length === names.length ? states : names.map(() => 'unknown');
}

async function disable(host: HostWriter, names: readonly string[]): Promise<void> {
  await host.run(['systemctl', 'disable', '--quiet', '--', ...names]);
}

async function reload(host: HostWriter): Promise<void> {
  if (await host.isLive()) await host.run(['systemctl', 'daemon-reload']);
}

function eachName(names: readonly string[]): [names: readonly string[]][] {
  return names.map((name) => [[name]]);
}
