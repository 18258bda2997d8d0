/** The name of a host. */
import { arg, textThat } from './args.ts';
import { definePropertyList } from './combinators.ts';
import { hasContent, hasLines } from './file.ts';
import type { PropertyApplication } from './property.ts';

const LABELS = /^(?=.{1,64}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$/;

/** The host has this name at its next boot, and knows it as its own address. */
export const is: (name: string) => PropertyApplication = definePropertyList<[name: string]>({
  id: 'hostname.is',
  about: 'The host has this name at its next boot, and knows it as its own address.',
  args: [
    arg(
      'name',
      textThat((name) => LABELS.test(name), 'the name of a host (RFC 1123)'),
      'lower case',
    ),
  ],
  describe: (name) => `the host is called ${name}`,
  properties: (name) => [
    hasContent('/etc/hostname', `${name}\n`),
    hasLines('/etc/hosts', ['127.0.0.1 localhost', '::1 localhost ip6-localhost ip6-loopback', `127.0.1.1 ${name}`]),
  ],
});
