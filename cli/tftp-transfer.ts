/** What `buildos tftp get` and `put` share: flags, progress, the report, and exit statuses that tell failures apart. */
import { type Command, InvalidArgumentError } from 'commander';

import type { ClientOptions, Progress, TransferReport } from '../tftp/client.ts';
import { type FailureKind, TransferError, quote, systemCode } from '../tftp/error.ts';
import { BLKSIZE_MAX, BLKSIZE_MIN, WINDOWSIZE_MAX } from '../tftp/options.ts';
import { InterruptedError, onInterrupt } from './interrupt.ts';
import { formatError } from './report-error.ts';
import { ProgressLine, formatBytes } from './tftp-progress.ts';
import type { Target } from './tftp-target.ts';

/** Flags of both commands. */
export interface TransferFlags {
  readonly port?: number;
  readonly blksize?: number;
  readonly windowsize?: number;
  readonly timeout?: number;
  readonly repeatAfter?: number;
  readonly retries?: number;
  readonly netascii?: true;
  readonly quiet?: true;
  readonly json?: true;
}

const EXIT_BY_KIND: Readonly<Record<FailureKind, number>> = { local: 1, refused: 2, unanswered: 3, broken: 4 };
/** As a shell names the end by a signal: 128 and its number. */
const EXIT_SIGINT = 130;
const EXIT_SIGTERM = 143;
const EXIT_SIGPIPE = 141;

/** For `--help`. */
export const EXIT_STATUS_HELP = `
Exit status:
  0    done            all is there, and in place
  1    local           something on this side: a file, the disk, the name of the host
  2    refused         the server said no, with an ERROR
  3    unanswered      nobody answered: silence, a closed port, no route
  4    broken          it began, and then the server fell silent or sent what it must not
  64   usage
  130  interrupted     Ctrl-C (143: SIGTERM; 141: the reader of the standard output has left)`;

/** Adds the flags of both commands. */
export function addTransferFlags(command: Command): Command {
  return command
    .option('--port <number>', 'UDP port of the server (default: 69)', integer(1, 65535))
    .option('--blksize <bytes>', 'largest block to ask for (default: 1468)', integer(BLKSIZE_MIN, BLKSIZE_MAX))
    .option('--windowsize <blocks>', 'largest window to ask for (default: 32)', integer(1, WINDOWSIZE_MAX))
    .option('--timeout <seconds>', 'give up after so long without progress (default: 30)', integer(1, 3600))
    .option('--repeat-after <seconds>', 'ask that packets be repeated after so long (option timeout)', integer(1, 255))
    .option(
      '--retries <number>',
      'begin again so often when nobody answers or it breaks (default: 0)',
      integer(0, 1000),
    )
    .option('--netascii', 'as text, with line ends converted')
    .option('-q, --quiet', 'print errors only')
    .option('--json', 'print the result, or the failure, as JSON');
}

/**
 * Does a transfer for a person or a program: progress on a terminal, a line or JSON at the end, an exit status of its own for
 * each kind of failure.
 *
 * @param file - the file here, as it was named
 * @param work - the transfer
 */
export async function runTransfer(
  flags: TransferFlags,
  what: { readonly target: Target; readonly file: string },
  work: (options: ClientOptions) => Promise<TransferReport>,
): Promise<void> {
  const { target, file } = what;
  using interrupt = onInterrupt();
  try {
    const report = await withProgress(flags, target, (progress) =>
      work({ ...toOptions(flags, target), ...progress, signal: interrupt.signal }),
    );
    if (flags.json === true) print({ result: 'done', host: target.host, name: target.name, file, ...report });
    else if (flags.quiet !== true) process.stderr.write(`${describeReport(file, report)}\n`);
  } catch (error) {
    process.exitCode = exitStatusOf(error);
    if (process.exitCode === EXIT_SIGPIPE) return;
    if (flags.json === true)
      print({ result: 'failed', host: target.host, name: target.name, file, ...fieldsOf(error) });
    process.stderr.write(`${formatError(error)}\n`);
  }
}

async function withProgress<T>(
  flags: TransferFlags,
  target: Target,
  work: (options: Pick<ClientOptions, 'onProgress' | 'onRetry'>) => Promise<T>,
): Promise<T> {
  const isWanted =
    process.stderr.isTTY && flags.quiet !== true && flags.json !== true && process.env['TERM'] !== 'dumb';
  using line = isWanted ? new ProgressLine(process.stderr, quote(target.name)) : undefined;
  return await work({
    ...(line && { onProgress: (progress: Progress) => line.update(progress) }),
    onRetry(error) {
      line?.[Symbol.dispose]();
      if (flags.quiet !== true) process.stderr.write(`${error.message}; beginning again\n`);
    },
  });
}

function toOptions(flags: TransferFlags, target: Target): ClientOptions {
  const { blksize, windowsize, timeout, repeatAfter, retries, netascii } = flags;
  return {
    ...target,
    blksize,
    windowsize,
    timeoutMs: timeout === undefined ? undefined : timeout * 1000,
    repeatSeconds: repeatAfter,
    retries,
    mode: netascii === true ? 'netascii' : target.mode,
  };
}

/** `linux: 8388608 bytes in 0.31 s, 27.1 MB/s, from 192.0.2.7, blksize=1468 windowsize=32, 3 packets repeated` */
function describeReport(file: string, report: TransferReport): string {
  const { bytes, durationMs, repeats, granted, address } = report;
  const options = Object.entries(granted).map(([name, value]) => `${name}=${value}`);
  return [
    `${file}: ${bytes} bytes in ${(durationMs / 1000).toFixed(2)} s`,
    `${formatBytes(durationMs > 0 ? (bytes / durationMs) * 1000 : 0)}/s`,
    address,
    ...(options.length > 0 ? [options.join(' ')] : []),
    ...(repeats > 0 ? [`${repeats} packets repeated`] : []),
  ].join(', ');
}

function exitStatusOf(error: unknown): number {
  if (error instanceof TransferError) return EXIT_BY_KIND[error.kind];
  if (error instanceof InterruptedError) return error.message.endsWith('SIGTERM') ? EXIT_SIGTERM : EXIT_SIGINT;
  return systemCode(error) === 'EPIPE' ? EXIT_SIGPIPE : EXIT_BY_KIND.local;
}

function fieldsOf(error: unknown): object {
  if (!(error instanceof TransferError)) return { error: error instanceof Error ? error.message : String(error) };
  const { message, kind, code, from, reason, hint, address } = error;
  return { kind, code, from, address, reason, hint, error: message };
}

function print(line: object): void {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

/** Reads a decimal number in a range; commander says which argument it was. */
export function integer(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = /^[0-9]{1,16}$/.test(text) ? Number(text) : Number.NaN;
    if (value >= min && value <= max) return value;
    throw new InvalidArgumentError(`It must be a whole number from ${min} to ${max}.`);
  };
}
