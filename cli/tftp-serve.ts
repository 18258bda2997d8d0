/**
 * `buildos tftp serve`: a folder over TFTP, until it is interrupted. Binds first, then drops privileges, then says that it
 * is ready; a line per transfer, counters on demand.
 */
import { statSync } from 'node:fs';
import { isIP } from 'node:net';
import { resolve } from 'node:path';

import { Command, InvalidArgumentError, Option } from 'commander';

import { listenFds, notify, statusLine } from '../host/sd-notify.ts';
import { DRIVERS } from '../tftp/drivers.ts';
import { printable } from '../tftp/error.ts';
import { serveWritableFolder } from '../tftp/instance.ts';
import { BLKSIZE_MAX, BLKSIZE_MIN, WINDOWSIZE_MAX } from '../tftp/options.ts';
import type { ServeOptions, TftpServer } from '../tftp/serve-options.ts';
import { serveFolder } from '../tftp/server.ts';
import type { TransferEvent } from '../tftp/transfer-event.ts';
import { type StatsSnapshot, TransferStats, describeStats, formatPrometheus } from '../tftp/stats.ts';
import { onInterrupt } from './interrupt.ts';
import { AddressServers, findAddresses } from './tftp-addresses.ts';
import { LineLimit, describeTransfer } from './tftp-log.ts';
import { type MetricsTarget, parseMetricsTarget, serveMetrics, writeMetrics } from './tftp-metrics.ts';
import { becomeUser, checkFolder, chooseUser, readPasswd } from './tftp-privileges.ts';
import { SERVE_HELP } from './tftp-serve-help.ts';
import { checkHandedSocket } from './tftp-sockets.ts';
import { failUsage } from './tftp-target.ts';
import { integer } from './tftp-transfer.ts';

const DEFAULT_UPLOAD_MAX_BYTES = 1024 * 1024 * 1024;

interface ServeFlags {
  readonly address?: readonly string[];
  readonly port: number;
  readonly writable?: true;
  readonly maxBytes: number;
  readonly blksizeMax?: number;
  readonly windowsizeMax?: number;
  readonly driver: 'auto' | 'dgram' | 'gso';
  readonly maxTransfers?: number;
  readonly maxTransfersPerPeer?: number;
  readonly user?: string;
  readonly stats?: true;
  readonly metrics?: MetricsTarget;
  readonly quiet?: true;
  readonly json?: true;
}

/** The command. */
export function serveCommand(): Command {
  const command = new Command('serve');
  return command
    .description('serve a folder over TFTP until it is interrupted; prints a line per transfer')
    .argument('<dir>', 'the folder')
    .option(
      '--address <address>',
      'numeric IP address to listen on, may be repeated (default: each of the machine)',
      list,
    )
    .option('--port <number>', 'UDP port; 0 takes a free one', integer(0, 65535), 69)
    .option('--writable', 'take uploads too, from anybody who reaches the port; they replace files')
    .option('--max-bytes <bytes>', 'largest upload', integer(0, Number.MAX_SAFE_INTEGER), DEFAULT_UPLOAD_MAX_BYTES)
    .option('--blksize-max <bytes>', 'largest block to grant (default: 65464)', integer(BLKSIZE_MIN, BLKSIZE_MAX))
    .option('--windowsize-max <blocks>', 'largest window to grant (default: 64)', integer(1, WINDOWSIZE_MAX))
    .option(
      '--max-transfers <number>',
      'transfers at once; without --address, of each (default: 4096)',
      integer(1, 65536),
    )
    .option(
      '--max-transfers-per-peer <number>',
      'transfers at once of one client address (default: 1024)',
      integer(1, 65536),
    )
    .addOption(
      new Option('--driver <name>', 'how datagrams are sent: node:dgram, or windows in one call by node:ffi')
        .choices(['auto', 'dgram', 'gso'])
        .default('auto'),
    )
    .option('--user <name>', 'user to become when started as root, or UID:GID; "root" stays root (default: nobody)')
    .option('--stats', 'print counters at the end; on SIGUSR1 they are printed in any case')
    .option('--metrics <address:port|file>', 'counters for Prometheus, over HTTP or in a file', metricsTarget)
    .option('-q, --quiet', 'no line for transfers that went well')
    .option('--json', 'print one JSON object per line')
    .addHelpText('after', SERVE_HELP)
    .action(async (dir: string, flags: ServeFlags) => {
      const folder = resolve(dir);
      const found = statSync(folder, { throwIfNoEntry: false });
      if (found?.isDirectory() !== true) {
        const what = found === undefined ? 'it is not there' : 'it is not a folder';
        failUsage(command, `cannot serve ${dir}: ${what}`, 'give a folder that is there');
      }
      if (flags.driver !== 'auto' && !DRIVERS.includes(flags.driver)) {
        failUsage(
          command,
          `the driver ${flags.driver} does not work here`,
          'leave out --driver: the best that works is taken',
        );
      }
      await serveUntilInterrupted(folder, flags);
    });
}

async function serveUntilInterrupted(folder: string, flags: ServeFlags): Promise<void> {
  const log = new Log(flags.json === true);
  const stats = new TransferStats();
  const render = (): string => formatPrometheus(stats.snapshot());
  const user = chooseUser(flags.user, process.getuid?.() ?? 0, readPasswd());
  using interrupt = onInterrupt();
  await using stack = new AsyncDisposableStack();
  const { metrics } = flags;
  // Before the sockets of TFTP: between those and the drop of privileges no request can come in.
  if (metrics?.kind === 'http') {
    const { port } = stack.use(await serveMetrics(metrics, render));
    log.say({ event: 'metrics', ...metrics, port }, `metrics on http://${formatPlace(metrics.address, port)}/metrics`);
  }
  const lines = stack.use(
    new LineLimit(
      (line) => process.stdout.write(line),
      (omitted) => log.format({ event: 'omitted', lines: omitted }, `${omitted} more lines were left out`),
    ),
  );
  const options: ServeOptions = {
    blksizeMax: flags.blksizeMax,
    windowsizeMax: flags.windowsizeMax,
    driver: flags.driver,
    transfersMax: flags.maxTransfers,
    transfersPerPeerMax: flags.maxTransfersPerPeer,
    onBegin: () => stats.begin(),
    onTransfer(event: TransferEvent) {
      stats.add(event);
      if (flags.quiet === true && event.result === 'done') return;
      lines.write(() => log.format({ event: 'transfer', ...event }, describeTransfer(event)));
    },
    onError: (error: Error) => log.complain(error),
  };
  const isWritable = flags.writable === true;
  // Whoever reads that we serve may ask: nothing is said before the folder is known to be open to who we are then.
  const opened: TftpServer[] = [];
  let say = (server: TftpServer): unknown => opened.push(server);
  const { isFollowing } = await listen(folder, flags, options, log, stack, (server) => say(server));
  if (user !== undefined) {
    becomeUser(user, { keepsBinding: isFollowing && flags.port > 0 && flags.port < 1024 });
    const { uid, gid } = user;
    log.say({ event: 'user', name: user.name, uid, gid }, `going on as ${user.name} (${uid}:${gid})`);
  }
  checkFolder(folder, isWritable, user?.name ?? 'who started this');
  if (metrics?.kind === 'file') stack.use(writeMetrics(metrics.file, render, (error) => log.complain(error)));
  say = (server) => log.serving(folder, server, isWritable);
  for (const server of opened) say(server);

  const sayStats = (): void => log.stats(stats.snapshot());
  process.on('SIGUSR1', sayStats);
  stack.defer(() => void process.off('SIGUSR1', sayStats));
  notify(`READY=1\n${statusLine(`Serving ${folder}`)}`);
  await new Promise<void>((resolve) => {
    // Nobody reads the lines any more.
    process.stdout.once('error', () => resolve());
    interrupt.signal.addEventListener('abort', () => resolve(), { once: true });
    if (interrupt.signal.aborted) resolve();
  });
  notify(`STOPPING=1\n${statusLine('Stopping')}`);
  await stack.disposeAsync();
  if (flags.stats === true) sayStats();
  log.say({ event: 'stopped' }, 'stopped');
}

/**
 * Opens the sockets that the flags or systemd ask for; they close with the stack.
 *
 * @param onOpen - gets each server
 * @returns whether sockets are opened later, for addresses that appear
 */
async function listen(
  folder: string,
  flags: ServeFlags,
  options: ServeOptions,
  log: Log,
  stack: AsyncDisposableStack,
  onOpen: (server: TftpServer) => void,
): Promise<{ readonly isFollowing: boolean }> {
  const open = (where: Pick<ServeOptions, 'addresses' | 'port' | 'fds'>): Promise<TftpServer> =>
    flags.writable === true
      ? serveWritableFolder({ ...options, ...where, folder, maxBytes: flags.maxBytes })
      : serveFolder({ ...options, ...where, folder });
  const handed = listenFds();
  for (const fd of handed) checkHandedSocket(fd);
  const { address: addresses = [], port } = flags;
  if (handed.length > 0) {
    if (addresses.length > 0) log.note('the sockets come from systemd: --address and --port have no effect');
    onOpen(stack.use(await open({ fds: handed })));
  } else if (addresses.length > 0) {
    onOpen(stack.use(await open({ addresses, port })));
  } else if (findAddresses().length > 0) {
    const events = {
      onOpen,
      onGone: ({ address }: TftpServer) => log.say({ event: 'gone', address }, `the address ${address} is gone`),
      onFailed: (_: string, error: Error) => log.complain(error),
    };
    stack.use(
      await AddressServers.open({ listen: (address, port) => open({ addresses: [address], port }), port, events }),
    );
    return { isFollowing: true };
  } else {
    log.note('the addresses of this machine cannot be listed: serving on all as one');
    onOpen(stack.use(await open({ addresses: ['0.0.0.0', '::'], port })));
  }
  return { isFollowing: false };
}

/** What is printed, as text or JSON. */
class Log {
  readonly #isJson: boolean;

  constructor(isJson: boolean) {
    this.#isJson = isJson;
  }

  format(data: object, text: string): string {
    return `${this.#isJson ? JSON.stringify({ time: new Date().toISOString(), ...data }) : text}\n`;
  }

  say(data: object, text: string): void {
    process.stdout.write(this.format(data, text));
  }

  serving(folder: string, { sockets, driver }: TftpServer, isWritable: boolean): void {
    for (const { address, port } of sockets) {
      const data = { event: 'listening', folder, address, port, driver, writable: isWritable };
      const where = `${formatPlace(address, port)} (${driver})`;
      this.say(data, `serving ${printable(folder)} on ${where}${isWritable ? ', writable' : ''}`);
    }
  }

  stats(stats: StatsSnapshot): void {
    this.say({ event: 'stats', ...stats }, describeStats(stats));
  }

  note(text: string): void {
    process.stderr.write(`note: ${text}\n`);
  }

  complain(error: Error): void {
    const hint = 'hint' in error && typeof error.hint === 'string' ? ` (${error.hint})` : '';
    if (this.#isJson) this.say({ event: 'error', error: error.message }, '');
    process.stderr.write(`error: ${printable(error.message)}${hint}\n`);
  }
}

const formatPlace = (address: string, port: number): string =>
  address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;

function list(text: string, before: readonly string[] = []): readonly string[] {
  if (isIP(text) === 0) throw new InvalidArgumentError('It must be a numeric IP address, as "ip address" shows them.');
  return [...before, text];
}

function metricsTarget(text: string): MetricsTarget {
  const target = parseMetricsTarget(text);
  if (target === undefined) {
    throw new InvalidArgumentError(
      'It must be ADDRESS:PORT ([ADDRESS]:PORT for IPv6), or a file with a "/" in its path.',
    );
  }
  return target;
}
