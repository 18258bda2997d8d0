/** The name of a host. */
import { eseq } from './combinators.ts';
import { hasContent, hasLines } from './file.ts';
import type { PropertyApplication } from './property.ts';

/**
 * The host has this name at its next boot, and knows it as its own address.
 *
 * @throws {TypeError} for what cannot be a host name (RFC 1123)
 */
export function is(name: string): PropertyApplication {
  if (!/^(?=.{1,64}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$/.test(name)) {
    throw new TypeError(`"${name}" cannot be the name of a host`);
  }
  return eseq(
    hasContent('/etc/hostname', `${name}\n`),
    hasLines('/etc/hosts', ['127.0.0.1 localhost', '::1 localhost ip6-localhost ip6-loopback', `127.0.1.1 ${name}`]),
  );
}
