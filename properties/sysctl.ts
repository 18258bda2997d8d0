/** Settings of the running kernel, applied at boot by systemd-sysctl. */
import { z } from 'zod';
import { arg, textThat } from './args.ts';
import { PATH, hasContent } from './file.ts';
import { NOTHING_TO_TAKE_BACK, type PropertyApplication, defineProperty } from './property.ts';
import { definePropertyList, onApplyChange } from './combinators.ts';

const LIST = textThat((list) => /^[a-z0-9][a-z0-9-]*$/.test(list), 'lower case letters, digits and "-"');

/** Kernel settings by name. */
export type Settings = Readonly<Record<string, string | number>>;

const SETTINGS: z.ZodType<Settings> = z.record(
  z.string().regex(/^[a-z0-9_]+([./][A-Za-z0-9_*-]+)+$/, 'it is not the name of a kernel setting'),
  z.union([z.number(), z.string().regex(/^[^\n]*$/, 'it has a newline in it')]),
);

/** The settings in `/etc/sysctl.d/LIST.conf`; on a host with a kernel of its own they hold at once. */
export const is: (list: string, settings: Settings) => PropertyApplication = definePropertyList<
  [list: string, settings: Settings]
>({
  id: 'sysctl.is',
  about:
    'The settings in /etc/sysctl.d/LIST.conf; on a host with a kernel of its own they hold at once. Unapplied: they go away, and the ' +
    'kernel keeps them until the next boot.',
  example: ['forward', { 'net.ipv4.ip_forward': 1 }],
  args: [arg('list', LIST, 'name of the file'), arg('settings', SETTINGS, 'such as { "net.ipv4.ip_forward": 1 }')],
  describe: (list) => `kernel settings ${list}`,
  properties: (list, settings) => {
    const path = `/etc/sysctl.d/${list}.conf`;
    const text = Object.entries(settings)
      .map(([key, value]) => `${key} = ${value}\n`)
      .join('');
    return [onApplyChange(hasContent(path, text), loaded(path))];
  },
});

/** The settings of a file hold now, on a host with a kernel of its own. */
export const loaded: (path: string) => PropertyApplication = defineProperty<[path: string]>({
  id: 'sysctl.loaded',
  kind: 'posix',
  ...NOTHING_TO_TAKE_BACK,
  about:
    'The settings of a file hold now, on a host with a kernel of its own. Unapplied: they stay until the next boot. See sysctl.is(), which also writes the file.',
  example: ['/etc/sysctl.d/forward.conf'],
  args: [arg('path', PATH, 'the file')],
  describe: (path) => `kernel settings of ${path} are loaded`,
  // Inside of something the kernel belongs to the outside.
  check: async (host) => !(await host.isLive()) || (await host.isContained()),
  apply: async (host, path) => void (await host.run(['sysctl', '--quiet', '--load', path])),
});
