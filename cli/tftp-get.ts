/** `buildos tftp get`: a file of a server into a file, or to the standard output. */
import { createWriteStream, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { Readable, type Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';

import { Command } from 'commander';

import { type ClientOptions, type TransferReport, getStream, getToFile } from '../tftp/client.ts';
import { failUsage, parseTarget } from './tftp-target.ts';
import { EXIT_STATUS_HELP, type TransferFlags, addTransferFlags, runTransfer } from './tftp-transfer.ts';

interface GetFlags extends TransferFlags {
  readonly output?: string;
}

const HELP = `
The file appears, or is replaced, when all of it is there; one that is replaced keeps its mode. With "-o -" the bytes come
while they arrive, and only status 0 says that they are all: what the reader does not take yet waits in $TMPDIR.

Examples:
  buildos tftp get tftp://192.0.2.7/builds/1/log -o -
  buildos tftp get 192.0.2.7 status.json
  buildos tftp get '[2001:db8::7]:6969' 'name with spaces' -o /tmp --retries 3
  buildos tftp get 192.0.2.7 linux --blksize 8192 --windowsize 64 --json
${EXIT_STATUS_HELP}`;

/** The command. */
export function getCommand(): Command {
  const command = new Command('get')
    .description('get a file from a TFTP server')
    .argument('<url-or-host>', 'tftp://HOST[:PORT]/NAME, or HOST[:PORT] followed by NAME')
    .argument('[name]', 'name of the file at the server')
    .option(
      '-o, --output <file>',
      'file or folder to write to; "-" is the standard output (default: the last part of NAME)',
    );
  return addTransferFlags(command)
    .addHelpText('after', HELP)
    .action(async (urlOrHost: string, name: string | undefined, flags: GetFlags) => {
      const target = parseTarget(command, urlOrHost, name, flags.port);
      const file = chooseFile(flags.output, basename(target.name));
      if (file === '-' && flags.json === true) {
        failUsage(command, '--json and the file cannot both go to the standard output', 'give a file with -o FILE');
      }
      if (file === undefined) {
        failUsage(command, `no file can be named after "${target.name}"`, 'give a file with -o FILE');
      }
      await runTransfer(flags, { target, file }, (options) => getInto(file, options));
    });
}

/** The file to write, or undefined when the name gives none. */
function chooseFile(output: string | undefined, name: string): string | undefined {
  const isName = name !== '' && name !== '.' && name !== '..';
  if (output === undefined) return isName ? name : undefined;
  const isFolder = output !== '-' && statSync(output, { throwIfNoEntry: false })?.isDirectory() === true;
  return isFolder ? (isName ? join(output, name) : undefined) : output;
}

async function getInto(file: string, options: ClientOptions): Promise<TransferReport> {
  if (file === '-') return await getThrough(() => process.stdout, options);
  const found = statSync(file, { throwIfNoEntry: false });
  // A device or FIFO cannot be replaced; it is written to.
  if (found !== undefined && (found.isCharacterDevice() || found.isFIFO())) {
    return await getThrough(() => createWriteStream(file), options);
  }
  return await getToFile({ ...options, file });
}

async function getThrough(open: () => Writable, options: ClientOptions): Promise<TransferReport> {
  let report: TransferReport | undefined;
  async function* chunks(): AsyncGenerator<Uint8Array> {
    report = yield* getStream(options);
  }
  const out = open();
  // The standard output cannot be closed.
  await pipeline(Readable.from(chunks()), out, { end: out !== process.stdout });
  if (report === undefined) throw new Error('the transfer gave no report');
  return report;
}
