/** The name of a host. */
import { text } from '../connections/connection.ts';
import { type Arg, arg, textThat } from './args.ts';
import { definePropertyList, seq, withUnapply } from './combinators.ts';
import { hasContent, hasLines } from './file.ts';
import { NOTHING_TO_TAKE_BACK, type PropertyApplication, defineProperty } from './property.ts';

const LABELS = /^(?=.{1,64}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$/;

const NAME: Arg<string> = arg(
  'name',
  textThat((name) => LABELS.test(name), 'the name of a host (RFC 1123)'),
  'lower case',
);

/** The host has this name, now and after its next boot, and knows it as its own address. */
export const is: (name: string) => PropertyApplication = definePropertyList<[name: string]>({
  id: 'hostname.is',
  about:
    'The host has this name at its next boot, on a live host now, and knows it as its own address. An image being built does not ' +
    'rename the host that builds it. Unapplied: it has no name of its own from the next boot on.',
  example: ['build-host'],
  args: [NAME],
  describe: (name) => `the host is called ${name}`,
  properties: (name) => [
    hasContent('/etc/hostname', `${name}\n`),
    // Whatever the host is called, localhost is.
    withUnapply(hasLines('/etc/hosts', ['127.0.0.1 localhost', '::1 localhost ip6-localhost ip6-loopback']), seq()),
    hasLines('/etc/hosts', [`127.0.1.1 ${name}`]),
    now(name),
  ],
});

/** The kernel has this name now, where systemd is the init; elsewhere the name is another host's. Unapplied: it stays. */
export const now: (name: string) => PropertyApplication = defineProperty<[name: string]>({
  id: 'hostname.now',
  kind: 'posix',
  ...NOTHING_TO_TAKE_BACK,
  touches: 'own-files',
  about:
    'The kernel has this name now, on a live host; inside of an image nothing happens. Unapplied: it stays until the next boot. ' +
    'See hostname.is(), which also writes it down.',
  example: ['build-host'],
  args: [NAME],
  describe: (name) => `the kernel calls the host ${name}`,
  check: async (host, name) => !(await host.isLive()) || text(await host.run(['uname', '-n'])).trim() === name,
  apply: async (host, name) => void (await host.run(['hostname', name])),
});
