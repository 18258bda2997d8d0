/** Settings of the running kernel, applied at boot by systemd-sysctl. */
import { arg } from './args.ts';
import { PATH, hasContent } from './file.ts';
import { type HostWriter, type PropertyApplication, defineProperty } from './property.ts';
import { onChange } from './combinators.ts';

/** The settings in `/etc/sysctl.d/LIST.conf`; on a live host they hold at once. */
export function is(list: string, settings: Readonly<Record<string, string | number>>): PropertyApplication {
  if (!/^[a-z0-9][a-z0-9-]*$/.test(list)) throw new TypeError(`"${list}" cannot be the name of a list of settings`);
  for (const [key, value] of Object.entries(settings)) {
    if (!/^[a-z0-9_]+([./][A-Za-z0-9_*-]+)+$/.test(key) || /\n/.test(String(value))) {
      throw new TypeError(`"${key} = ${value}" is not a kernel setting`);
    }
  }
  const path = `/etc/sysctl.d/${list}.conf`;
  const text = Object.entries(settings)
    .map(([key, value]) => `${key} = ${value}\n`)
    .join('');
  return onChange(hasContent(path, text), loaded(path));
}

const loaded = defineProperty<[path: string]>({
  id: 'sysctl.loaded',
  kind: 'posix',
  about: 'The settings of a file hold now, on a live host. See sysctl.is(), which also writes the file.',
  args: [arg('path', PATH, 'the file')],
  describe: (path) => `kernel settings of ${path} are loaded`,
  apply: async (host: HostWriter, path) => {
    if (!(await host.isLive())) return 'no-change'; // the kernel belongs to the outside
    await host.run(['sysctl', '--quiet', '--load', path]);
    return 'changed';
  },
});
