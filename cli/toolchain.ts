/** `buildos toolchain`: publishes a toolchain that hosts bootstrap, with the agent of this checkout in it. */
import { mkdir } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { Command } from 'commander';
import { openLocal } from '../connections/local.ts';
import { fetchSourceArchive, findMirror } from '../host/apt.ts';
import { BMAKE, publishBmake } from '../toolchains/bmake.ts';
import { TOOLCHAIN_LIST } from '../toolchains/publish.ts';
import { needPackages } from './setup.ts';
import { type SigningFlags, signingKeyOf, trustOption } from './signing-key.ts';

/** The command with its sub-command. */
export function toolchainCommand(): Command {
  return new Command('toolchain').description('publish a toolchain with the agent in it').addCommand(publishCommand());
}

function publishCommand(): Command {
  return new Command('publish')
    .description(
      `write a toolchain into a served folder: ${BMAKE.name} ${BMAKE.version}, bootstrapped from source on each host, and the agent.\n` +
        'For a toolchain of your own, change bootstrap.sh and toolchain.json there, renew the sums of the list, and sign it\n' +
        `again, if hosts ask for it: minisign -S -m ${TOOLCHAIN_LIST}`,
    )
    .requiredOption('--into <dir>', `the folder; hosts are given the URL of ${TOOLCHAIN_LIST} in it (toolchain_url)`)
    .option('--sign <file>', 'minisign secret key; signs the list, for hosts that are told toolchain_trust')
    .option('--password-file <file>', "the key's password, if it has one")
    .option('--work <dir>', 'folder for caches', 'work')
    .option('--json', 'print the result as JSON')
    .action(async (options: { into: string; work: string; json?: boolean } & SigningFlags) => {
      const signWith = await signingKeyOf(options);
      await needPackages(['sources']);
      const local = openLocal();
      const cache = join(resolve(options.work), 'cache/sources');
      await mkdir(cache, { recursive: true });
      const source = await fetchSourceArchive(local, { ...BMAKE, mirror: await findMirror(local), cache });
      const files = await publishBmake(resolve(options.into), source.path, signWith);
      if (options.json) process.stdout.write(`${JSON.stringify({ folder: resolve(options.into), files })}\n`);
      else process.stdout.write(`published in ${options.into}:\n${files.map((name) => `  ${name}\n`).join('')}`);
      if (signWith === undefined) return;
      process.stderr.write(`signed; hosts ask for it with ${trustOption('toolchain_trust', signWith)}\n`);
    });
}
