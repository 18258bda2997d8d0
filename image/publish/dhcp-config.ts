/** `dhcp/dnsmasq.conf` of a published folder: what DHCP has to say so that hosts boot from it. */
import { formatBootOptions } from '../../host/dnsmasq.ts';
import { type BootLoaders, findBootFiles } from './boot-loaders.ts';

/** Its path in the published folder. */
export const DNSMASQ_CONF = 'dhcp/dnsmasq.conf';

/** @param url - of the published folder, without a slash at the end */
export function formatDnsmasqConf(loaders: BootLoaders, url: string | undefined): string {
  const files = findBootFiles(loaders, url);
  return [
    `# What hosts boot: Build OS. Include it from your dnsmasq.conf (conf-file=…), where the addresses are:`,
    '#   dhcp-range=192.0.2.100,192.0.2.199,1h',
    '# and serve the folder above this one over TFTP on the same machine, on UDP port 69. Where another machine does that, add its',
    '# address to each dhcp-boot: dhcp-boot=tag:…,FILE,,192.0.2.2',
    '#',
    '# For another DHCP server, by client architecture (option 93):',
    `#   0 (BIOS)          ${files.bios}`,
    `#   7, 9 (UEFI PXE)   ${files.uefi}`,
    ...(files.http === undefined
      ? []
      : [`#   16 (UEFI HTTP)    ${files.http}`, '#                     and option 60 (vendor class) HTTPClient']),
    ...(files.withoutIpxe?.length === 2 ? [] : [`#   iPXE (it sends option 175) instead: ${files.ipxe}`]),
    '',
    ...formatBootOptions(files),
    '',
  ].join('\n');
}
