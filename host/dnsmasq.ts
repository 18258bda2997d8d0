/**
 * dnsmasq as a DHCP server that boots hosts over PXE, and nothing else: no DNS (`port=0`), no TFTP.
 *
 * What it answers to a boot file request:
 *
 *     who asks                                        boot file
 *     iPXE (user class "iPXE", or option 175)         boot.ipxe
 *     UEFI x86-64 firmware (client arch 7 or 9)       snponly.efi
 *     UEFI HTTP boot (client arch 16, "HTTPClient")   the URL of an EFI program, if one is given
 *     BIOS firmware                                   undionly.kpxe
 *
 * Two things make iPXE quick: option 175.176 (`no-pxedhcp`) spares it the wait for a proxy DHCP server, and a router
 * advertisement the wait for IPv6 configuration. Together 3 to 4 s of each boot.
 */

/** The network to serve; `address` is this host's own in it. */
export interface DnsmasqNetwork {
  readonly interface: string;
  readonly address: string;
  /** First and last address of the pool. */
  readonly range: readonly [first: string, last: string];
  /** An IPv6 prefix of the interface to advertise, `fd00:77::`. */
  readonly advertise?: string;
  readonly hosts?: readonly { readonly mac: string; readonly address: string; readonly name: string }[];
  readonly leaseFile: string;
  /** Other boot files than the usual ones. */
  readonly bootFiles?: Partial<BootFiles>;
  /** A configuration file that says what is booted, instead of `bootFiles`. */
  readonly bootConfig?: string;
}

/** What each kind of firmware and loader is told to fetch: paths below the TFTP root; `http` is a URL. */
export interface BootFiles {
  readonly ipxe: string;
  readonly bios: string;
  readonly uefi: string;
  readonly http?: string;
  /** Firmware that gets its own file even from a network card that is iPXE itself: its loader does without iPXE. */
  readonly withoutIpxe?: readonly ('bios' | 'uefi')[];
}

/** What firmware and boot loaders are told to fetch, relative to the TFTP root. */
export const BOOT_FILES: BootFiles = {
  ipxe: 'boot.ipxe',
  bios: 'undionly.kpxe',
  uefi: 'snponly.efi',
} as const satisfies BootFiles;

/** A line of dnsmasq's log that says what happened to a lease. */
export interface DhcpEvent {
  /** `DISCOVER`, `OFFER`, `REQUEST`, `ACK`, `NAK`, `DECLINE`, `RELEASE` or `INFORM` (RFC 2131 §3). */
  readonly message: string;
  readonly interface: string;
  readonly address?: string;
  readonly mac: string;
}

/** The command line: dnsmasq in the foreground, its log on standard error. */
export function dnsmasqArgv(network: DnsmasqNetwork): string[] {
  const options = formatBootOptions({ ...BOOT_FILES, ...network.bootFiles }, network.address);
  return [
    'dnsmasq',
    '--keep-in-foreground',
    `--conf-file=${network.bootConfig ?? '/dev/null'}`,
    '--pid-file=',
    // No change of user or group: the kernel then forgets that it was to kill us with our parent (prctl(2), PR_SET_PDEATHSIG).
    '--user=root',
    '--group=root',
    '--log-facility=-',
    '--port=0',
    `--interface=${network.interface}`,
    '--bind-interfaces',
    '--no-ping',
    '--dhcp-authoritative',
    '--dhcp-rapid-commit',
    `--dhcp-leasefile=${network.leaseFile}`,
    `--dhcp-range=${network.range.join(',')},1h`,
    ...(network.hosts ?? []).map((host) => `--dhcp-host=${host.mac},${host.address},${host.name}`),
    ...(network.bootConfig === undefined ? options.map((option) => `--${option}`) : []),
    ...(network.advertise === undefined ? [] : ['--enable-ra', `--dhcp-range=${network.advertise},ra-only`]),
  ];
}

/**
 * What dnsmasq needs to know to boot hosts: lines of its configuration file, each of them an option on its command line too.
 * For any request one `dhcp-boot` fits at most.
 *
 * @param server - where TFTP is served; without it, where dnsmasq runs
 */
export function formatBootOptions(files: BootFiles, server?: string): string[] {
  const from = server === undefined ? '' : `,,${server}`;
  const [biosDoesWithout, uefiDoesWithout] = (['bios', 'uefi'] as const).map((kind) =>
    files.withoutIpxe?.includes(kind),
  );
  const notIpxe = (doesWithout: boolean | undefined): string => (doesWithout === true ? '' : 'tag:!ipxe,');
  const ipxe = [
    'tag:ipxe',
    ...(biosDoesWithout === true ? ['tag:uefi'] : []),
    ...(uefiDoesWithout === true ? ['tag:!uefi'] : []),
  ];
  return [
    'dhcp-match=set:ipxe,175',
    'dhcp-userclass=set:ipxe,iPXE',
    'dhcp-match=set:uefi,option:client-arch,7',
    'dhcp-match=set:uefi,option:client-arch,9',
    ...(ipxe.length === 3 ? [] : [`dhcp-boot=${ipxe.join(',')},${files.ipxe}${from}`]),
    `dhcp-boot=${notIpxe(uefiDoesWithout)}tag:uefi,${files.uefi}${from}`,
    `dhcp-boot=${notIpxe(biosDoesWithout)}tag:!uefi,tag:!http,${files.bios}${from}`,
    ...(files.http === undefined
      ? []
      : [
          'dhcp-match=set:http,option:client-arch,16',
          `dhcp-boot=tag:!ipxe,tag:http,${files.http}${from}`,
          // Firmware takes an answer for one about HTTP only when it says so (UEFI 2.10 §24.7.3.1).
          'dhcp-option-force=tag:http,60,HTTPClient',
        ]),
    'dhcp-option-force=tag:ipxe,encap:175,176,1b',
  ];
}

/**
 * Reads a line of dnsmasq's log.
 *
 * @param line - `dnsmasq-dhcp: DHCPACK(lab0) 10.77.0.11 52:54:00:77:00:01 host-1`, with or without a time and a pid
 * @returns undefined for lines that say something else
 */
export function parseDhcpLine(line: string): DhcpEvent | undefined {
  const match =
    /\bDHCP(DISCOVER|OFFER|REQUEST|ACK|NAK|DECLINE|RELEASE|INFORM)\(([^)]+)\) (?:(\d+\.\d+\.\d+\.\d+) )?([0-9a-f:]{17})/.exec(
      line,
    );
  if (match === null) return undefined;
  return {
    message: match[1] ?? '',
    interface: match[2] ?? '',
    ...(match[3] === undefined ? {} : { address: match[3] }),
    mac: match[4] ?? '',
  };
}
