/** The network, as systemd-networkd has it. The unit systemd-networkd.service is enabled by systemd.enabled(). */
import { z } from 'zod';
import { type Arg, arg, textThat } from './args.ts';
import { definePropertyList, onChange } from './combinators.ts';
import { hasContent } from './file.ts';
import { type HostReader, NOTHING_TO_TAKE_BACK, type PropertyApplication, defineProperty } from './property.ts';

/** A network device as it should be. */
export type DeviceOptions = {
  /** `dhcp`: addresses, routes and name servers come from DHCP; default `static`. */
  readonly mode?: 'dhcp' | 'static';
  /** Addresses with the length of their prefix: `192.0.2.10/24`. */
  readonly addresses?: readonly string[];
  /** Default routes go through these. */
  readonly gateways?: readonly string[];
  /** Name servers. */
  readonly dns?: readonly string[];
  /** The bridge that it belongs to. */
  readonly bridge?: string;
};

const ADDRESS = /^[0-9a-fA-F.:]+$/;
const addresses = z.array(textThat((text) => ADDRESS.test(text), 'an address'));

const DEVICE: z.ZodType<DeviceOptions> = z.strictObject({
  mode: z.enum(['dhcp', 'static']).exactOptional(),
  addresses: z
    .array(
      textThat((text) => /^[0-9a-fA-F.:]+\/\d{1,3}$/.test(text), 'an address with a prefix, such as 192.0.2.10/24'),
    )
    .exactOptional(),
  gateways: addresses.exactOptional(),
  dns: addresses.exactOptional(),
  bridge: textThat((name) => DEVICE_NAME.test(name), 'the name of a network device').exactOptional(),
});

const DEVICE_NAME = /^[A-Za-z0-9_.*?-]{1,15}$/;

const TEXT: Arg<string> = arg(
  'text',
  z.string().refine((text) => /^\[[A-Z][A-Za-z0-9]*\]$/m.test(text) && text.endsWith('\n'), {
    error: 'it must have a section such as [Match], and end with a newline',
  }),
  'systemd.network(5), systemd.netdev(5), systemd.link(5)',
);

/** A file of systemd-networkd has this text; on a live host it is read anew. Unapplied: it goes away. */
export const file: (name: string, text: string) => PropertyApplication = definePropertyList<
  [name: string, text: string]
>({
  id: 'network.file',
  about:
    'A file below /etc/systemd/network has this text; systemd-networkd, where it runs, reads it anew. Unapplied: it goes away.',
  example: ['10-br0.netdev', '[NetDev]\nName=br0\nKind=bridge\n'],
  args: [
    arg(
      'name',
      textThat((name) => /^[A-Za-z0-9_.-]+\.(network|netdev|link)$/.test(name), 'like "20-lan.network"'),
      'of the file: they count in the order of their names',
    ),
    TEXT,
  ],
  describe: (name) => `network ${name}`,
  properties: (name, text) => [onChange(hasContent(`/etc/systemd/network/${name}`, text), reloaded())],
});

/** A network device has addresses and routes. Unapplied: it is left alone again. */
export const device: (name: string, device: DeviceOptions) => PropertyApplication = definePropertyList<
  [name: string, device: DeviceOptions]
>({
  id: 'network.device',
  about:
    'A network device is up, with addresses of its own or from DHCP, by systemd-networkd (50-NAME.network). Unapplied: it is left ' +
    'alone again.',
  example: ['enp1s0', { addresses: ['192.0.2.10/24'], gateways: ['192.0.2.1'], dns: ['192.0.2.53'] }],
  args: [
    arg(
      'name',
      textThat((name) => DEVICE_NAME.test(name), 'the name of a network device'),
      'its name; `*` and `?` fit several',
    ),
    arg(
      'device',
      DEVICE,
      'addresses, gateways, name servers; a mode ("static" or "dhcp"); the bridge that it belongs to',
    ),
  ],
  describe: (name, { mode = 'static', addresses: own = [] }) =>
    `network device ${name}: ${mode === 'dhcp' ? 'DHCP' : own.length === 0 ? 'no address' : own.join(' ')}`,
  properties: (name, options) => [file(`50-${name.replaceAll(/[*?]/g, '-')}.network`, networkText(name, options))],
});

/** Where systemd-networkd runs, it has read its files anew. */
export const reloaded: () => PropertyApplication = defineProperty<[]>({
  id: 'network.reloaded',
  kind: 'posix',
  ...NOTHING_TO_TAKE_BACK,
  about:
    'Where systemd-networkd runs, it reads its files anew. network.file() does this by itself. Unapplied: nothing.',
  example: [],
  args: [],
  describe: () => 'systemd-networkd reads its files',
  check: async (host) => !(await host.isLive()) || !(await isRunning(host)),
  apply: async (host) => void (await host.run(['networkctl', 'reload'])),
});

async function isRunning(host: HostReader): Promise<boolean> {
  const argv = ['systemctl', 'is-active', '--quiet', 'systemd-networkd.service'] as const;
  return (await host.run(argv, { okStatus: 'any' })).status === 0;
}

function networkText(name: string, options: DeviceOptions): string {
  const { mode = 'static', addresses: own = [], gateways = [], dns = [], bridge } = options;
  return [
    '[Match]',
    `Name=${name}`,
    '[Network]',
    ...(mode === 'dhcp' ? ['DHCP=yes'] : []),
    ...own.map((address) => `Address=${address}`),
    ...gateways.map((address) => `Gateway=${address}`),
    ...dns.map((address) => `DNS=${address}`),
    ...(bridge === undefined ? [] : [`Bridge=${bridge}`]),
    '',
  ].join('\n');
}
