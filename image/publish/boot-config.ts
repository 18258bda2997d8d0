/**
 * What boot loaders read: iPXE, PXELINUX and GRUB configurations for one version of an image. Pure: text in, text out.
 *
 * Each names the files of **one** version directory, never the `current` link: a host that is half way through its
 * download when a new version is published still gets kernel and initrd of one kind.
 *
 * Sources: ipxe.org/cmd, ipxe.org/cfg; syslinux `doc/pxelinux.txt`, `doc/syslinux.cfg`; GRUB manual, "Network".
 */

/** What the configurations say. */
export interface BootConfig {
  readonly buildId: string;
  /** Where the published folder is reached over HTTP, without a slash at the end; absent: TFTP, beside the script. */
  readonly url?: string;
  /** The version's folder below the published one, such as `versions/1f0c…`. */
  readonly folder: string;
  /** Kernel arguments in order: `panic=30`, `buildos.toolchain_url=http://…`. */
  readonly args: readonly string[];
  /** More arguments for single hosts, by MAC address, lower case with colons. */
  readonly hosts: Readonly<Record<string, readonly string[]>>;
  /** It is `lpxelinux.0` that reads the configuration of PXELINUX: that one knows HTTP. */
  readonly lpxelinux?: boolean;
}

/** A file of the published folder, by its path in it. */
export interface ConfigFile {
  readonly path: string;
  readonly content: string;
}

/** The files of a host's own. @param mac - in any case, with colons */
export function hostConfigPaths(mac: string): { readonly ipxe: string; readonly pxelinux: string } {
  // 01: the ARP type of Ethernet, as PXELINUX asks for it.
  return { ipxe: `hosts/${hyphenated(mac)}.ipxe`, pxelinux: `pxelinux.cfg/01-${hyphenated(mac)}` };
}

/** A kernel argument as the kernel reads it: a value with blanks is quoted. */
export function formatKernelArgument(name: string, value: string): string {
  if (value.includes('"')) {
    throw new RangeError(`Cannot put ${name} on the kernel command line: its value holds a double quote: ${value}`);
  }
  return /\s/.test(value) ? `${name}="${value}"` : `${name}=${value}`;
}

/** All the files that boot loaders look for, in no order that matters. */
export function formatBootConfigs(config: BootConfig): readonly ConfigFile[] {
  const hosts = Object.entries(config.hosts);
  return [
    { path: 'boot.ipxe', content: formatIpxe(config) },
    ...hosts.map(([mac, args]) => ({
      path: hostConfigPaths(mac).ipxe,
      content: `#!ipxe\nset host-args ${args.join(' ')}\n`,
    })),
    { path: 'pxelinux.cfg/default', content: formatPxelinux(config, config.args) },
    ...hosts.map(([mac, args]) => ({
      path: hostConfigPaths(mac).pxelinux,
      content: formatPxelinux(config, [...config.args, ...args]),
    })),
    // Where a GRUB of one's own looks, and where Debian's signed network image does.
    ...['grub.cfg', 'grub/grub.cfg'].map((path) => ({ path, content: formatGrub(config) })),
  ];
}

function formatIpxe(config: BootConfig): string {
  const base = config.url === undefined ? config.folder : `${config.url}/${config.folder}`;
  const perHost = Object.keys(config.hosts).length > 0;
  return [
    '#!ipxe',
    `# Build OS ${config.buildId}`,
    // A second try after a while is better than a prompt that nobody sees.
    ...(perHost ? [`chain --autofree hosts/\${netX/mac:hexhyp}.ipxe ||`] : []),
    `kernel ${base}/buildos-image initrd=buildos-initrd ${config.args.join(' ')}${perHost ? ' ${host-args}' : ''} || goto failed`,
    `initrd --name buildos-initrd ${base}/buildos-initrd || goto failed`,
    'boot || goto failed',
    ':failed',
    'echo Build OS could not be loaded; trying again in 30 seconds',
    'sleep 30',
    'reboot',
    '',
  ].join('\n');
}

function formatPxelinux(config: BootConfig, args: readonly string[]): string {
  // Plain PXELINUX reads over TFTP, from where it came from itself.
  const base = config.lpxelinux === true && config.url !== undefined ? `${config.url}/${config.folder}` : config.folder;
  return [
    `# Build OS ${config.buildId}`,
    'DEFAULT buildos',
    'PROMPT 0',
    // Where a file cannot be had there is a prompt that nobody sees: after 30 seconds it is tried again.
    'TOTALTIMEOUT 300',
    'ONTIMEOUT buildos',
    'LABEL buildos',
    `  KERNEL ${base}/buildos-image`,
    `  INITRD ${base}/buildos-initrd`,
    `  APPEND ${args.join(' ')}`,
    '',
  ].join('\n');
}

function formatGrub(config: BootConfig): string {
  const http = config.url === undefined ? undefined : grubHttp(config.url);
  const linux = (args: readonly string[]): string =>
    `    linux $base/${config.folder}/buildos-image ${args.map(grubArgument).join(' ')}`;
  const hosts = Object.entries(config.hosts).flatMap(([mac, args], index) => [
    `  ${index === 0 ? 'if' : 'elif'} [ "$net_default_mac" = '${mac}' ]; then`,
    linux([...config.args, ...args]),
  ]);
  return [
    `# Build OS ${config.buildId}`,
    'set timeout=0',
    'set default=0',
    'set fallback=1',
    'set base=',
    // A GRUB without HTTP, such as Debian 12's grubnetx64.efi, reads from where it came from itself.
    ...(http === undefined ? [] : [`if insmod http; then set base=${grubQuote(http)}; fi`]),
    `menuentry 'Build OS' {`,
    ...(hosts.length === 0 ? [linux(config.args)] : [...hosts, '  else', linux(config.args), '  fi']),
    `    initrd $base/${config.folder}/buildos-initrd`,
    '}',
    // A second try after a while is better than a menu that nobody sees.
    `menuentry 'Build OS could not be loaded; trying again in 30 seconds' {`,
    '    sleep 30',
    '    reboot',
    '}',
    '',
  ].join('\n');
}

/** A word that GRUB's shell leaves as it is. */
function grubQuote(word: string): string {
  return `'${word.replaceAll("'", String.raw`'\''`)}'`;
}

/** A kernel argument for GRUB, which itself puts quotes around one with blanks, and a backslash before each quote in it. */
function grubArgument(argument: string): string {
  return grubQuote(argument.replaceAll('"', ''));
}

/** `http://192.0.2.1:8080/x` → `(http,192.0.2.1:8080)/x`. GRUB has no TLS. */
function grubHttp(url: string): string | undefined {
  const { protocol, host, pathname } = new URL(url);
  if (protocol !== 'http:') return undefined;
  return `(http,${host})${pathname === '/' ? '' : pathname.replace(/\/$/, '')}`;
}

/** `52:54:00:12:34:56` → `52-54-00-12-34-56`, as iPXE's `:hexhyp` and PXELINUX write it. */
function hyphenated(mac: string): string {
  return mac.toLowerCase().replaceAll(':', '-');
}
