/** `buildos tftp`: get, put and serve, over the TFTP of this project. */
import { Command } from 'commander';

import { getCommand } from './tftp-get.ts';
import { putCommand } from './tftp-put.ts';
import { serveCommand } from './tftp-serve.ts';

/** The command with its three sub-commands. */
export function tftpCommand(): Command {
  return new Command('tftp')
    .description('get, put and serve files over TFTP')
    .addCommand(getCommand())
    .addCommand(putCommand())
    .addCommand(serveCommand());
}
