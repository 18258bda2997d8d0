/** `buildos toolchain`: publishes a toolchain that hosts bootstrap, with the agent of this checkout in it. */
import { mkdir } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { Command } from 'commander';
import { openLocal } from '../connections/local.ts';
import { fetchSourceArchive, findMirror } from '../host/apt.ts';
import { BMAKE, publishBmake } from '../toolchains/bmake.ts';
import { TOOLCHAIN_LIST } from '../toolchains/publish.ts';
import { needPackages } from './setup.ts';

/** The command with its sub-command. */
export function toolchainCommand(): Command {
  return new Command('toolchain').description('publish a toolchain with the agent in it').addCommand(publishCommand());
}

function publishCommand(): Command {
  return new Command('publish')
    .description(
      `write a toolchain into a served folder: ${BMAKE.name} ${BMAKE.version}, bootstrapped from source on each host, and the agent.\n` +
        'For a toolchain of your own, change bootstrap.sh and toolchain.json there and renew the sums of the list.',
    )
    .requiredOption('--into <dir>', `the folder; hosts are given the URL of ${TOOLCHAIN_LIST} in it (toolchain_url)`)
    .option('--work <dir>', 'folder for caches', 'work')
    .option('--json', 'print the result as JSON')
    .action(async (options: { into: string; work: string; json?: boolean }) => {
      await needPackages(['sources']);
      const local = openLocal();
      const cache = join(resolve(options.work), 'cache/sources');
      await mkdir(cache, { recursive: true });
      const source = await fetchSourceArchive(local, { ...BMAKE, mirror: await findMirror(local), cache });
      const files = await publishBmake(resolve(options.into), source.path);
      if (options.json) process.stdout.write(`${JSON.stringify({ folder: resolve(options.into), files })}\n`);
      else process.stdout.write(`published in ${options.into}:\n${files.map((name) => `  ${name}\n`).join('')}`);
    });
}
