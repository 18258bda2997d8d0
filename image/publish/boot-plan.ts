/**
 * What boot loaders are told of a version: its kernel arguments, the options of single hosts, and a configuration for each
 * loader. Pure: what no host could use is refused here, before anything is written.
 */
import { join } from 'node:path';
import { type ConfigFile, formatBootConfigs, formatKernelArgument } from './boot-config.ts';
import { usesLpxelinux } from './boot-loaders.ts';
import { DNSMASQ_CONF, formatDnsmasqConf } from './dhcp-config.ts';
import type { PublicationSettings, VersionEntry } from './publication.ts';
import { PublishError } from './publish-error.ts';
import { PUBLISHED } from './published-version.ts';

// oxlint-disable-next-line no-control-regex -- a line of a boot configuration would end there
const CONTROL = /[\u0000-\u001f\u007f]/;

/** What boot loaders are told. */
export interface BootPlan {
  /** How hosts reach the folder, without a slash at the end. */
  readonly url: string | undefined;
  readonly args: readonly string[];
  /** Of a CD or a stick: nothing is published for it to watch. */
  readonly argsOfMedia: readonly string[];
  readonly configs: readonly ConfigFile[];
}

/** @throws {PublishError} when a MAC address, the URL or an option is malformed, or a loader cannot hand it over */
export function planBoot(version: VersionEntry, settings: PublicationSettings): BootPlan {
  const { loaders } = settings;
  const { url: _, ...withoutUrl } = settings;
  const args = kernelArguments(version.kernelArgs, settings);
  const url = settings.url === undefined ? undefined : trimSlash(settings.url);
  if (loaders?.uefi === 'uki' && settings.uki === undefined) {
    throw new PublishError(
      'Cannot let UEFI boot the unified kernel image: none is to be published',
      'publish with --uki',
    );
  }
  const broken = [...args, ...Object.values(settings.hosts).flatMap(formatOptions)].find((arg) => CONTROL.test(arg));
  if (broken !== undefined) {
    throw new PublishError(
      `Cannot publish the kernel argument ${JSON.stringify(broken)}: it has a control character`,
      'an argument is one line of text without tabs',
    );
  }
  const awkward = loaders?.uefi === 'grub' ? args.find((arg) => /['\\]/.test(arg)) : undefined;
  if (awkward !== undefined) {
    throw new PublishError(
      `Cannot have GRUB hand over ${awkward}: it adds a backslash to each ' and \\`,
      'use --uefi ipxe',
    );
  }
  const configs = formatBootConfigs({
    buildId: version.buildId,
    folder: join('versions', version.buildId),
    args,
    hosts: hostArguments(settings.hosts),
    lpxelinux: usesLpxelinux(loaders, url),
    ...(url !== undefined && { url }),
  });
  const dhcp = loaders === undefined ? [] : [{ path: DNSMASQ_CONF, content: formatDnsmasqConf(loaders, url) }];
  return { url, args, argsOfMedia: kernelArguments(version.kernelArgs, withoutUrl), configs: [...configs, ...dhcp] };
}

function kernelArguments(ofImage: readonly string[], { url, options, kernelArgs }: PublicationSettings): string[] {
  const buildos: Record<string, string> = { ...options };
  if (url !== undefined) {
    if (!URL.canParse(url) || !/^https?:/.test(url)) {
      throw new PublishError(
        `Cannot publish for the URL "${url}": not an http(s) URL`,
        'give the address under which hosts reach the folder, such as http://192.0.2.1/buildos',
      );
    }
    buildos['buildid_url'] ??= `${trimSlash(url)}/current/${PUBLISHED.buildId}`;
  }
  return [...ofImage, ...kernelArgs, ...formatOptions(buildos)];
}

function formatOptions(options: Readonly<Record<string, string>>): string[] {
  return Object.entries(options).map(([name, value]) => {
    if (!/^[a-z0-9_]+(\.[a-zA-Z0-9_-]+)?$/.test(name)) {
      throw new PublishError(
        `Cannot publish the option "${name}": not a name of an option`,
        'write it without the "buildos." before it, for instance toolchain_url=http://…',
      );
    }
    return formatKernelArgument(`buildos.${name}`, value);
  });
}

function hostArguments(
  hosts: Readonly<Record<string, Readonly<Record<string, string>>>>,
): Readonly<Record<string, readonly string[]>> {
  return Object.fromEntries(
    Object.entries(hosts).map(([mac, options]) => {
      if (!/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(mac)) {
        throw new PublishError(
          `Cannot publish for the host "${mac}": not a MAC address`,
          'write six pairs of hex digits with colons, such as 52:54:00:12:34:56',
        );
      }
      return [mac.toLowerCase(), formatOptions(options)];
    }),
  );
}

function trimSlash(url: string): string {
  return url.replace(/\/+$/, '');
}
