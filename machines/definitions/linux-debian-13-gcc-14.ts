/**
 * The machine `linux_debian_13-gcc_14`: Debian trixie with its C compiler, make, and what a source archive needs.
 */
import { debianSources } from '../../host/mmdebstrap.ts';
import * as apt from '../../properties/apt.ts';
import * as file from '../../properties/file.ts';
import type { HostDefinition } from '../../properties/host-definition.ts';

/** Autotools tests look up their own host. */
const HOSTS = '127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n';

export const linuxDebian13Gcc14: HostDefinition = {
  name: 'linux_debian_13-gcc_14',
  summary: 'Debian 13 (trixie) with GCC 14 and make',
  base: { distribution: 'debian', suite: 'trixie' },
  properties: [
    apt.sources(debianSources({ suite: 'trixie' })),
    apt.installed(['gcc', 'libc6-dev', 'make', 'file', 'ca-certificates', 'xz-utils']),
    file.hasContent('/etc/hosts', HOSTS),
    file.absent('/var/log/apt'),
    file.absent('/var/log/dpkg.log'),
    file.absent('/var/log/alternatives.log'),
    file.absent('/var/log/bootstrap.log'),
    file.absent('/var/cache/ldconfig/aux-cache'),
    apt.cleaned(),
  ],
};
