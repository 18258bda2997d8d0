/**
 * `buildos tftp`: get, put and serve, over the TFTP of this project.
 *
 * Exit status: 0; 1 the transfer or the listening failed; 64 wrong usage.
 */
import { statSync } from 'node:fs';
import { basename, resolve } from 'node:path';

import { Command, InvalidArgumentError } from 'commander';

import { type ClientOptions, type TransferReport, get, getToFile, put } from '../tftp/client.ts';
import { serveWritableFolder } from '../tftp/instance.ts';
import { BLKSIZE_MAX, BLKSIZE_MIN, WINDOWSIZE_MAX } from '../tftp/options.ts';
import { type TftpServer, type TransferEvent, serveFolder } from '../tftp/server.ts';

const EXIT_USAGE = 64;
const DEFAULT_UPLOAD_MAX_BYTES = 1024 * 1024 * 1024;

interface TransferFlags {
  readonly port?: number;
  readonly blksize?: number;
  readonly windowsize?: number;
  readonly timeout?: number;
  readonly netascii?: true;
  readonly json?: true;
}

interface GetFlags extends TransferFlags {
  readonly output?: string;
}

interface ServeFlags {
  readonly address?: string;
  readonly port: number;
  readonly writable?: true;
  readonly maxBytes: number;
  readonly json?: true;
}

const GET_HELP = `
Example:
  buildos tftp get tftp://192.0.2.7/builds/1/log -o -
  buildos tftp get 192.0.2.7 status.json`;

const PUT_HELP = `
Example:
  buildos tftp put 192.0.2.7:6969 ./vmlinuz linux`;

const SERVE_HELP = `
Without --writable nothing can be written. Symlinks, hidden files and devices are not served.
Ends with status 0 on SIGTERM and SIGINT.

Example:
  buildos tftp serve ./boot --address 127.0.0.1 --port 6969`;

/** The command with its three sub-commands. */
export function tftpCommand(): Command {
  return new Command('tftp')
    .description('get, put and serve files over TFTP')
    .addCommand(getCommand())
    .addCommand(putCommand())
    .addCommand(serveCommand());
}

function getCommand(): Command {
  const command = new Command('get')
    .description('get a file from a TFTP server')
    .argument('<url-or-host>', 'tftp://HOST[:PORT]/NAME, or HOST[:PORT] followed by NAME')
    .argument('[name]', 'name of the file at the server')
    .option('-o, --output <file>', 'where to write it; "-" is the standard output (default: the last part of NAME)');
  return addTransferFlags(command)
    .addHelpText('after', GET_HELP)
    .action(async (urlOrHost: string, name: string | undefined, flags: GetFlags) => {
      const target = parseTarget(command, urlOrHost, name, flags);
      const file = flags.output ?? basename(target.name);
      if (file === '-' && flags.json === true) {
        failUsage(command, '--json and the file cannot both go to the standard output', 'give a file with -o FILE');
      }
      if (file === '') failUsage(command, `no file can be named after "${target.name}"`, 'give a file with -o FILE');
      using interrupt = abortOnSignals();
      const options = { ...target, signal: interrupt.signal };
      if (file === '-') {
        await writeOut(await get(options));
      } else {
        printReport(flags, { host: target.host, name: target.name, file }, await getToFile({ ...options, file }));
      }
    });
}

function putCommand(): Command {
  const command = new Command('put')
    .description('put a file to a TFTP server')
    .argument('<host>', 'HOST[:PORT]')
    .argument('<file>', 'the file to send')
    .argument('[name]', 'its name at the server (default: the last part of FILE)');
  return addTransferFlags(command)
    .addHelpText('after', PUT_HELP)
    .action(async (host: string, file: string, name: string | undefined, flags: TransferFlags) => {
      const target = parseTarget(command, host, name ?? basename(file), flags);
      using interrupt = abortOnSignals();
      const report = await put({ ...target, signal: interrupt.signal, content: { file } });
      printReport(flags, { host: target.host, name: target.name, file }, report);
    });
}

function addTransferFlags(command: Command): Command {
  return command
    .option('--port <number>', 'UDP port of the server (default: 69)', integer(1, 65535))
    .option('--blksize <bytes>', 'largest block to ask for (default: 1468)', integer(BLKSIZE_MIN, BLKSIZE_MAX))
    .option('--windowsize <blocks>', 'largest window to ask for (default: 32)', integer(1, WINDOWSIZE_MAX))
    .option('--timeout <seconds>', 'give up after so long without progress (default: 30)', integer(1, 3600))
    .option('--netascii', 'as text, with line ends converted')
    .option('--json', 'print the result as JSON');
}

function serveCommand(): Command {
  const command = new Command('serve');
  return command
    .description('serve a folder over TFTP until it is interrupted; prints a line per transfer')
    .argument('<dir>', 'the folder')
    .option('--address <address>', 'numeric IP address to listen on (default: all of IPv4)')
    .option('--port <number>', 'UDP port; 0 takes a free one', integer(0, 65535), 69)
    .option('--writable', 'take uploads too, from anybody who reaches the port; they replace files')
    .option('--max-bytes <bytes>', 'largest upload', integer(0, Number.MAX_SAFE_INTEGER), DEFAULT_UPLOAD_MAX_BYTES)
    .option('--json', 'print one JSON object per line')
    .addHelpText('after', SERVE_HELP)
    .action(async (dir: string, flags: ServeFlags) => {
      const folder = resolve(dir);
      if (statSync(folder, { throwIfNoEntry: false })?.isDirectory() !== true) {
        failUsage(command, `cannot serve ${dir}: it is not a folder`, 'give a folder that is there');
      }
      using interrupt = abortOnSignals();
      await using server = await listen(folder, flags);
      const { address, port } = server;
      printLine(
        flags,
        { event: 'listening', folder, address, port, writable: flags.writable === true },
        `serving ${folder} on ${address} port ${port}${flags.writable === true ? ', writable' : ''}`,
      );
      await interrupt.aborted;
      printLine(flags, { event: 'stopped' }, 'stopped');
    });
}

function listen(folder: string, flags: ServeFlags): Promise<TftpServer> {
  const options = {
    folder,
    address: flags.address,
    port: flags.port,
    onTransfer: (event: TransferEvent) => printLine(flags, { event: 'transfer', ...event }, describeTransfer(event)),
    onError: (error: Error) => process.stderr.write(`tftp: ${error.message}\n`),
  };
  return flags.writable === true ? serveWritableFolder({ ...options, maxBytes: flags.maxBytes }) : serveFolder(options);
}

/** A URL, or host and name; ports may stand in either or in `--port`. */
function parseTarget(
  command: Command,
  urlOrHost: string,
  name: string | undefined,
  flags: TransferFlags,
): ClientOptions {
  const { port, blksize, windowsize, timeout, netascii } = flags;
  const common = {
    blksize,
    windowsize,
    timeoutMs: timeout === undefined ? undefined : timeout * 1000,
    mode: netascii === true ? ('netascii' as const) : undefined,
  };
  if (urlOrHost.includes('://')) {
    if (name !== undefined) failUsage(command, 'a URL has the name in it', 'leave NAME out, or give HOST instead');
    return { ...common, ...parseUrl(command, urlOrHost, port) };
  }
  if (name === undefined || name === '') {
    failUsage(command, 'the name of the file is missing', 'write HOST NAME, or tftp://HOST/NAME');
  }
  // An IPv6 address has more than one colon, unless it stands in brackets.
  const [, host = urlOrHost, portText] = /^(\[[^\]]+\]|[^:]+):([0-9]+)$/.exec(urlOrHost) ?? [];
  if (host === '') failUsage(command, 'the host is empty', 'write HOST NAME, or tftp://HOST/NAME');
  const portInHost = portText === undefined ? undefined : Number(portText);
  if (portInHost !== undefined && (portInHost < 1 || portInHost > 65_535)) {
    failUsage(command, `${portText} is no UDP port`, 'write a number from 1 to 65535');
  }
  return { ...common, host: withoutBrackets(host), port: portInHost ?? port, name };
}

/** `tftp://HOST[:PORT]/NAME[;mode=octet|netascii]` (RFC 3617). */
function parseUrl(
  command: Command,
  text: string,
  defaultPort: number | undefined,
): Pick<ClientOptions, 'host' | 'port' | 'name'> & { readonly mode?: 'octet' | 'netascii' } {
  const url = URL.parse(text);
  const [path = '', mode] = url?.pathname.slice(1).split(';mode=') ?? [];
  if (url?.protocol !== 'tftp:' || url.hostname === '' || path === '' || url.port === '0') {
    failUsage(command, `${text} is not a TFTP URL`, 'write tftp://HOST[:PORT]/NAME');
  }
  if (mode !== undefined && mode !== 'octet' && mode !== 'netascii') {
    failUsage(command, `the mode ${mode} is unknown`, 'write ;mode=octet or ;mode=netascii');
  }
  let name: string;
  try {
    name = decodeURIComponent(path);
  } catch {
    failUsage(command, `${path} has a "%" that begins no character`, 'write %25 for a "%"');
  }
  const port = url.port === '' ? defaultPort : Number(url.port);
  return { host: withoutBrackets(url.hostname), port, name, ...(mode && { mode }) };
}

/** Ends with status 64: commander prints it, and the top level knows that it has. */
function failUsage(command: Command, message: string, hint: string): never {
  command.error(`error: ${message}\nhint: ${hint}`, { code: 'buildos.usage', exitCode: EXIT_USAGE });
}

async function writeOut(bytes: Uint8Array): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    process.stdout.write(bytes, (error) => (error ? reject(error) : resolve()));
  });
}

function withoutBrackets(host: string): string {
  return host.replace(/^\[(.*)\]$/, '$1');
}

/** Reads a decimal number in a range; commander says which argument it was. */
function integer(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = /^[0-9]{1,16}$/.test(text) ? Number(text) : Number.NaN;
    if (value >= min && value <= max) return value;
    throw new InvalidArgumentError(`It must be a whole number from ${min} to ${max}.`);
  };
}

function printReport(
  flags: TransferFlags,
  what: { readonly host: string; readonly name: string; readonly file: string },
  report: TransferReport,
): void {
  if (flags.json === true) {
    process.stdout.write(`${JSON.stringify({ ...what, ...report })}\n`);
    return;
  }
  const { bytes, durationMs, repeats } = report;
  const again = repeats === 0 ? '' : `, ${repeats} packets repeated`;
  process.stderr.write(`${what.file}: ${bytes} bytes in ${(durationMs / 1000).toFixed(2)} s${again}\n`);
}

function printLine(flags: ServeFlags, data: object, text: string): void {
  process.stdout.write(`${flags.json === true ? JSON.stringify({ time: new Date().toISOString(), ...data }) : text}\n`);
}

/** `192.0.2.7 read "linux" octet: 8388608 bytes in 0.31 s, blksize=1468 tsize=8388608` */
function describeTransfer(event: TransferEvent): string {
  const who = `${event.peer} ${event.direction} ${JSON.stringify(event.name)} ${event.mode}`;
  if (event.result === 'failed') return `${who}: failed, ${event.error ?? 'no reason known'}`;
  const granted = Object.entries(event.granted).map(([name, value]) => ` ${name}=${value}`);
  const again = event.repeats === 0 ? '' : `, ${event.repeats} packets repeated`;
  return `${who}: ${event.bytes} bytes in ${(event.durationMs / 1000).toFixed(2)} s,${granted.join('')}${again}`.replace(
    /,$/,
    '',
  );
}

/** SIGINT and SIGTERM as an AbortSignal, for as long as it is held. */
function abortOnSignals(): Disposable & { readonly signal: AbortSignal; readonly aborted: Promise<void> } {
  const controller = new AbortController();
  const { promise, resolve } = Promise.withResolvers<void>();
  const ignore = (): void => void process.off('SIGINT', onSignal).off('SIGTERM', onSignal);
  // Once: a second signal ends the process the usual way.
  const onSignal = (name: NodeJS.Signals): void => {
    ignore();
    controller.abort(new Error(`Interrupted by ${name}`));
    resolve();
  };
  process.on('SIGINT', onSignal).on('SIGTERM', onSignal);
  return { signal: controller.signal, aborted: promise, [Symbol.dispose]: ignore };
}
