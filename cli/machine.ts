/** `buildos machine`: make, list and delete build machines on a disk image. */
import { Command, InvalidArgumentError, Option } from 'commander';
import { createMachine, DEFAULT_DISK_BYTES } from '../machines/create.ts';
import { MACHINE_DEFINITIONS, readMachineDefinition } from '../machines/definition.ts';
import { deleteMachine, listMachines } from '../machines/disk.ts';
import { enumerateVolume } from '../machines/enumerate.ts';
import type { Machines } from '../machines/enumerate.ts';
import { type HostDefinition, HostDefinitionError } from '../properties/host-definition.ts';
import { loadHostDefinition } from '../properties/load-host.ts';
import { onInterrupt } from './interrupt.ts';
import { needPackages, needRoot } from './setup.ts';

/** Nothing was there to delete. */
class NoMachineError extends Error {
  override readonly name = 'NoMachineError';
  readonly hint = '"buildos machine list" shows what is there';
}

/** The command with its sub-commands. */
export function machineCommand(): Command {
  return new Command('machine')
    .description('make, list and delete build machines on a disk image')
    .addCommand(createCommand())
    .addCommand(listCommand())
    .addCommand(deleteCommand());
}

const diskOption = (): Option =>
  new Option('--disk <file>', 'disk image: a btrfs labelled buildos.machines, in a file');
const jsonOption = (): Option => new Option('--json', 'print the result as JSON');

function createCommand(): Command {
  const known = MACHINE_DEFINITIONS.map(({ name, summary }) => `  ${name}  ${summary}`).join('\n');
  return new Command('create')
    .description('make a machine from its definition and put it on a disk image (as root)')
    .argument('<machine>', 'name of a definition, or the path of a module: ./my-machine.ts')
    .addOption(diskOption().makeOptionMandatory())
    .option('--size <size>', 'the least size of the disk image: 4G, 512M', sizeOf, DEFAULT_DISK_BYTES)
    .option('--work <dir>', 'folder for caches', 'work')
    .option('--mirror <url>', 'Debian mirror', urlOf)
    .addOption(jsonOption())
    .addHelpText('after', `\nA machine of the same name is replaced. Definitions:\n${known}`)
    .action(
      async (
        nameOrPath: string,
        options: { disk: string; size: number; work: string; mirror?: string; json?: boolean },
      ) => {
        const definition = await findDefinition(nameOrPath);
        needRoot('a root file system and a mount');
        await needPackages(['machine']);
        using interrupt = onInterrupt();
        const started = performance.now();
        const { manifest, changed, disk } = await createMachine({
          name: definition.name,
          definition,
          work: options.work,
          disk: options.disk,
          sizeBytes: options.size,
          signal: interrupt.signal,
          onProgress: (line) => process.stderr.write(`${line}\n`),
          ...(options.mirror === undefined ? {} : { mirror: options.mirror }),
        });
        const seconds = (performance.now() - started) / 1000;
        if (options.json) print({ disk, changed, seconds, machine: manifest });
        else {
          const what = changed ? 'is now on' : 'was already on';
          process.stdout.write(`${manifest.name} (${manifest.id}) ${what} ${disk}, ${seconds.toFixed(1)} s\n`);
        }
      },
    );
}

/** One that we ship, or one in a module of the user. */
async function findDefinition(nameOrPath: string): Promise<HostDefinition> {
  if (!nameOrPath.includes('/') && !/\.m?[jt]s$/.test(nameOrPath)) return readMachineDefinition(nameOrPath);
  const definition = (await loadHostDefinition(nameOrPath)).define(undefined);
  if (!/^[a-z0-9_.+]+(-[a-z0-9_.+]+)*$/.test(definition.name)) {
    throw new HostDefinitionError(
      `Cannot make a machine of "${definition.name}": its name must be words joined by "-"`,
      {
        hint: 'Such as linux_debian_13-gcc_14.2: system, compiler, what else a task asks for.',
      },
    );
  }
  return definition;
}

function listCommand(): Command {
  return new Command('list')
    .description('show the machines on a disk image (as root), or in the folder of a volume')
    .addOption(diskOption())
    .addOption(new Option('--folder <dir>', 'folder of a volume, such as /build/machines/default').conflicts('disk'))
    .addOption(jsonOption())
    .action(async (options: { disk?: string; folder?: string; json?: boolean }, command: Command) => {
      const machines = await find(options, command);
      if (options.json) {
        print({ machines: machines.machines.map(({ manifest }) => manifest), problems: machines.problems });
        return;
      }
      for (const { manifest } of machines.machines) {
        process.stdout.write(`${manifest.name}  ${manifest.type}  ${manifest.id}  ${manifest.summary}\n`);
      }
      for (const { name, message, hint } of machines.problems) {
        process.stderr.write(`${name} cannot be used: ${message}\n${hint === undefined ? '' : `  hint: ${hint}\n`}`);
      }
      if (machines.machines.length === 0)
        process.stderr.write('no machine yet; make one with "buildos machine create"\n');
    });
}

function deleteCommand(): Command {
  return new Command('delete')
    .description('take a machine off a disk image (as root)')
    .argument('<name>', 'name of the machine')
    .addOption(diskOption().makeOptionMandatory())
    .action(async (name: string, options: { disk: string }) => {
      needRoot('a mount');
      await needPackages(['machine']);
      if (!(await deleteMachine(options.disk, name))) {
        throw new NoMachineError(`Cannot delete the machine "${name}": "${options.disk}" has none of that name`);
      }
      process.stdout.write(`${name} is no longer on ${options.disk}\n`);
    });
}

async function find(options: { disk?: string; folder?: string }, command: Command): Promise<Machines> {
  if (options.folder !== undefined) return await enumerateVolume(options.folder, 'default');
  if (options.disk === undefined) command.error('error: name --disk <file> or --folder <dir>');
  needRoot('a mount');
  await needPackages(['machine']);
  return await listMachines(options.disk);
}

function print(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value, undefined, 2)}\n`);
}

const UNITS: Readonly<Record<string, number>> = { M: 1024 ** 2, G: 1024 ** 3, T: 1024 ** 4 };

function sizeOf(text: string): number {
  const match = /^(\d{1,6})([MGT])$/.exec(text);
  const bytes = Number(match?.[1]) * (UNITS[match?.[2] ?? ''] ?? Number.NaN);
  if (!(bytes >= 512 * 1024 ** 2)) throw new InvalidArgumentError('expected a size such as 4G, at least 512M');
  return bytes;
}

function urlOf(text: string): string {
  if (!URL.canParse(text) || !/^https?:/.test(text)) throw new InvalidArgumentError('expected an http(s) URL');
  return text;
}
