/** `buildos tftp put`: a file, or the standard input, to a server. */
import { basename } from 'node:path';

import { Command } from 'commander';

import { put } from '../tftp/client.ts';
import { failUsage, parseTarget } from './tftp-target.ts';
import { EXIT_STATUS_HELP, type TransferFlags, addTransferFlags, runTransfer } from './tftp-transfer.ts';

const HELP = `
With "-" the standard input is read to its end first, into a file without a name in $TMPDIR: TFTP announces the size.

Examples:
  buildos tftp put 192.0.2.7:6969 ./vmlinuz linux
  buildos tftp put 'tftp://[2001:db8::7]/linux' ./vmlinuz
  dmesg | buildos tftp put 192.0.2.7 - host.log --retries 3
${EXIT_STATUS_HELP}`;

/** The command. */
export function putCommand(): Command {
  const command = new Command('put')
    .description('put a file to a TFTP server')
    .argument('<url-or-host>', 'HOST[:PORT], or tftp://HOST[:PORT]/NAME')
    .argument('<file>', 'the file to send; "-" is the standard input')
    .argument('[name]', 'its name at the server (default: the last part of FILE)');
  return addTransferFlags(command)
    .addHelpText('after', HELP)
    .action(async (urlOrHost: string, file: string, name: string | undefined, flags: TransferFlags) => {
      const isUrl = urlOrHost.includes('://');
      if (file === '-' && name === undefined && !isUrl) {
        failUsage(command, 'the standard input has no name', 'write HOST - NAME');
      }
      const target = parseTarget(command, urlOrHost, isUrl ? name : (name ?? basename(file)), flags.port);
      await runTransfer(flags, { target, file }, (options) =>
        put({ ...options, content: file === '-' ? process.stdin : { file } }),
      );
    });
}
