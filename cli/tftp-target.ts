/** Which file of which server is meant: a URL, or host and name. */
import { isIP } from 'node:net';

import type { Command } from 'commander';

/** EX_USAGE of sysexits.h. */
const EXIT_USAGE = 64;

/** A file at a server. */
export interface Target {
  readonly host: string;
  /** undefined: 69 */
  readonly port: number | undefined;
  readonly name: string;
  /** the mode that a URL names */
  readonly mode?: 'octet' | 'netascii';
}

/**
 * Reads `tftp://HOST[:PORT]/NAME[;mode=MODE]` (RFC 3617), or `HOST[:PORT]` with a name.
 *
 * @param port - for a host or URL without one
 * @throws {CommanderError} when it is neither, with status 64 and a hint printed
 */
export function parseTarget(
  command: Command,
  urlOrHost: string,
  name: string | undefined,
  port: number | undefined,
): Target {
  if (urlOrHost.includes('://')) {
    if (name !== undefined) failUsage(command, 'a URL has the name in it', 'leave NAME out, or give HOST instead');
    return parseUrl(command, urlOrHost, port);
  }
  if (name === undefined || name === '') {
    failUsage(command, 'the name of the file is missing', 'write HOST NAME, or tftp://HOST/NAME');
  }
  // An IPv6 address has more than one colon, unless it stands in brackets.
  const [, host = urlOrHost, portText] = /^(\[[^\]]+\]|[^:]+):([0-9]+)$/.exec(urlOrHost) ?? [];
  const isNoAddress = host.includes(':') && isIP(withoutBrackets(host)) !== 6;
  if (host === '' || isNoAddress) {
    failUsage(command, `"${host}" is no host`, 'write HOST[:PORT], or an IPv6 address, with a port as [ADDRESS]:PORT');
  }
  const portInHost = portText === undefined ? undefined : Number(portText);
  if (portInHost !== undefined && (portInHost < 1 || portInHost > 65_535)) {
    failUsage(command, `${portText} is no UDP port`, 'write a number from 1 to 65535');
  }
  return { host: withoutBrackets(host), port: portInHost ?? port, name };
}

function parseUrl(command: Command, text: string, defaultPort: number | undefined): Target {
  // A zone (fe80::1%eth0) is none of a URL, where "%" begins a code; RFC 6874 writes it %25eth0, and URL knows neither.
  const [, zone = ''] = /^[a-z]+:\/\/\[[0-9a-f:.]+(%(?:25)?[^\]/]+)\]/i.exec(text) ?? [];
  const url = URL.parse(text.replace(zone, ''));
  const [path = '', mode] = url?.pathname.slice(1).split(';mode=') ?? [];
  if (url?.protocol !== 'tftp:' || url.hostname === '' || path === '' || url.port === '0') {
    failUsage(command, `${text} is not a TFTP URL`, 'write tftp://HOST[:PORT]/NAME');
  }
  if (mode !== undefined && mode !== 'octet' && mode !== 'netascii') {
    failUsage(command, `the mode ${mode} is unknown`, 'write ;mode=octet or ;mode=netascii');
  }
  let name: string;
  try {
    name = decodeURIComponent(path + url.search + url.hash);
  } catch {
    failUsage(command, `${path} has a "%" that begins no character`, 'write %25 for a "%"');
  }
  const port = url.port === '' ? defaultPort : Number(url.port);
  const host = withoutBrackets(url.hostname) + zone.replace(/^%25/, '%');
  return { host, port, name, ...(mode && { mode }) };
}

function withoutBrackets(host: string): string {
  return host.replace(/^\[(.*)\]$/, '$1');
}

/** Ends with status 64: commander prints it, and the top level knows that it has. */
export function failUsage(command: Command, message: string, hint: string): never {
  command.error(`error: ${message}\nhint: ${hint}`, { code: 'buildos.usage', exitCode: EXIT_USAGE });
}
