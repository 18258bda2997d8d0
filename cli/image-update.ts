/** `buildos image update`: renews the lock of a host, and says what that changes. */
import { Command } from 'commander';
import { openLocal } from '../connections/local.ts';
import { updateLock } from '../image/update.ts';
import type { LockChanges } from '../manifests/package-lock.ts';
import { makeFolder } from '../image/work-folder.ts';
import { DEFAULT_HOST, HOST_HELP, loadImageHost } from './image-host.ts';
import { needPackages } from './setup.ts';
import { urlOf } from './url-of.ts';

export function updateCommand(): Command {
  return new Command('update')
    .description('choose the packages of a host anew, write them into its lock, and show what changes')
    .argument('[host]', 'the host', DEFAULT_HOST)
    .option('--work <dir>', 'folder for caches', 'work')
    .option('--lock <file>', 'the lock; default: beside the definition')
    .option('--mirror <url>', 'Debian mirror', urlOf)
    .option('--dry-run', 'show what would change, and write nothing')
    .option('--json', 'print the changes as JSON')
    .addHelpText('after', HOST_HELP)
    .action(
      async (
        name: string,
        options: { work: string; lock?: string; mirror?: string; dryRun?: boolean; json?: boolean },
      ) => {
        await needPackages(['image']);
        await makeFolder(options.work, 'caches', '--work');
        const { definition, lockFile } = await loadImageHost(name);
        const file = options.lock ?? lockFile;
        const { changes, packages } = await updateLock(openLocal(), {
          definition,
          file,
          work: options.work,
          dryRun: options.dryRun === true,
          ...(options.mirror !== undefined && { mirror: options.mirror }),
        });
        if (options.json) process.stdout.write(`${JSON.stringify(changes, undefined, 2)}\n`);
        else if (changes.added.length < packages) {
          // Of a first lock all are new: it says itself what is in it.
          process.stdout.write(
            formatChanges(changes)
              .map((line) => `${line}\n`)
              .join(''),
          );
        }
        const what = isNothing(changes) ? 'is up to date' : options.dryRun ? 'would change' : 'is written';
        process.stderr.write(`${file} ${what}: ${packages} packages\n`);
      },
    );
}

const isNothing = ({ added, removed, changed }: LockChanges): boolean =>
  added.length + removed.length + changed.length === 0;

function formatChanges({ added, removed, changed }: LockChanges): string[] {
  return [
    ...changed.map(({ name, from, to, security }) => `${name}  ${from} -> ${to}${security ? '  (security)' : ''}`),
    ...added.map(({ name, version }) => `${name}  ${version}  (new)`),
    ...removed.map(({ name, version }) => `${name}  ${version}  (gone)`),
  ];
}
