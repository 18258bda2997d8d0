/** `buildos image`: build, list and publish images of the build host. */
import { Command, Option } from 'commander';
import { buildImage } from '../image/build.ts';
import { type BuiltImage, listImages } from '../image/built-image.ts';
import { SNAPSHOT_URL } from '../image/deb-cache.ts';
import type { Hardware } from '../image/module-classes.ts';
import { formatTimings } from '../image/timings.ts';
import { makeFolder } from '../image/work-folder.ts';
import { DATA_HELP, dataOption, dataSources } from './host-options.ts';
import { type Wire, WIRES } from '../properties/image.ts';
import { DEFAULT_HOST, findLock, HOST_HELP, loadImageHost, lockOptions } from './image-host.ts';
import { diffCommand, explainCommand } from './image-inspect.ts';
import { pruneCommand } from './image-prune.ts';
import { publishCommand, rollbackCommand } from './image-publish.ts';
import { updateCommand } from './image-update.ts';
import { onInterrupt } from './interrupt.ts';
import { needPackages, needRoot } from './setup.ts';
import { urlOf } from './url-of.ts';

/** The command with its sub-commands. */
export function imageCommand(): Command {
  return new Command('image')
    .description('build the image of a build host, publish it for PXE')
    .addCommand(buildCommand())
    .addCommand(updateCommand())
    .addCommand(listCommand())
    .addCommand(diffCommand())
    .addCommand(explainCommand())
    .addCommand(publishCommand())
    .addCommand(rollbackCommand())
    .addCommand(pruneCommand());
}

const workOption = (): Option => new Option('--work <dir>', 'folder for caches and images').default('work');
const jsonOption = (): Option => new Option('--json', 'print the result as JSON');

/** What `image build` is told. */
interface BuildArguments {
  readonly work: string;
  readonly hardware: Hardware;
  readonly wire?: Wire | 'any';
  readonly lock?: string | false;
  readonly mirror?: string;
  readonly snapshot: string;
  readonly offline?: true;
  readonly fresh?: true;
  readonly data?: readonly string[];
  readonly note: string;
  readonly timings?: boolean;
  readonly json?: boolean;
}

function buildCommand(): Command {
  const command = new Command('build')
    .description('build kernel and initrd from the definition of a host (as root)')
    .argument('[host]', 'the host', DEFAULT_HOST)
    .addOption(workOption())
    .addOption(new Option('--hardware <profile>', 'which drivers go in').choices(['server', 'vm']).default('server'))
    .addOption(
      new Option(
        '--wire <speed>',
        'what hosts boot over: packs so that they are up soonest, with up to a minute of CPU; any: packs at once (default: what ' +
          'the host says, or any)',
      ).choices([...WIRES, 'any']),
    )
    .option('--mirror <url>', 'Debian mirror', urlOf)
    .option('--snapshot <url>', 'asked for versions that the mirror has no more', urlOf, SNAPSHOT_URL)
    .option('--note <text>', 'a line for /etc/buildos-note in the image', '')
    .addOption(dataOption().default(undefined, 'none'))
    .option('--timings', 'print how long each step took')
    .addOption(jsonOption())
    .addHelpText(
      'after',
      `${HOST_HELP}\n${DATA_HELP}\n\nAn image is published for all to read: it gets data that the definition calls public, and no secrets.\nThe image is kept in <work>/images/<build id>; "buildos image publish" makes it bootable.`,
    )
    .action(build);
  for (const option of [...lockOptions(), ...archiveOptions()]) command.addOption(option);
  return command;
}

async function build(name: string, options: BuildArguments): Promise<void> {
  needRoot('another root file system');
  const started = performance.now();
  const [{ definition, lockFile }] = await Promise.all([loadImageHost(name), needPackages(['image'])]);
  const lock = await findLock(options.lock, lockFile);
  await makeFolder(options.work, 'caches and images', '--work');
  using interrupt = onInterrupt();
  const { image, cached, properties, timings } = await buildImage({
    definition,
    work: options.work,
    hardware: options.hardware,
    ...(options.wire !== undefined && { wire: options.wire }),
    note: options.note,
    snapshot: options.snapshot,
    signal: interrupt.signal,
    archives: options.offline ? 'offline' : options.fresh ? 'must-answer' : 'ask',
    ...(options.data !== undefined && { data: dataSources(options.data) }),
    ...(lock !== undefined && { lock }),
    ...(options.mirror !== undefined && { mirror: options.mirror }),
    onProgress: (line) => process.stderr.write(`${line}\n`),
  });
  const seconds = (performance.now() - started) / 1000;
  if (options.json) {
    print({ ...image, cached, seconds, properties, timings });
    return;
  }
  if (options.timings) process.stderr.write(`${formatTimings(timings).join('\n')}\n`);
  const outcome = cached ? 'nothing has changed, looked at' : 'built';
  process.stdout.write(`${describeImage(image)}\n${outcome} in ${seconds.toFixed(2)} s\n`);
}

/** `--offline`, `--fresh`: of a build without a lock; by default the packages chosen last do when no archive answers. */
function archiveOptions(): readonly Option[] {
  return [
    new Option('--offline', 'ask no archive: the packages that were chosen last, from the cache').conflicts('fresh'),
    new Option('--fresh', 'fail when the archives do not answer, instead of going on with what was chosen last'),
  ];
}

function listCommand(): Command {
  return new Command('list')
    .description('show the images that were built, the newest first')
    .addOption(workOption())
    .addOption(jsonOption())
    .action(async (options: { work: string; json?: boolean }) => {
      const images = await listImages(options.work);
      if (options.json) print(images);
      else if (images.length === 0) process.stderr.write('no image yet; build one with "buildos image build"\n');
      else process.stdout.write(`${images.map(describeImage).join('\n')}\n`);
    });
}

function describeImage(image: BuiltImage): string {
  const { kernel, initrd, runtime, stage1, payload } = image.sizes;
  return [
    `image ${image.buildId}  ${image.folder}`,
    `  kernel ${mebibytes(kernel)}, initrd ${mebibytes(initrd)}`,
    `  (Node ${mebibytes(runtime)}, init ${mebibytes(stage1)}, root ${mebibytes(payload)})`,
  ].join('\n');
}

function mebibytes(bytes: number): string {
  return `${(bytes / 1024 ** 2).toFixed(1)} MiB`;
}

function print(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value, undefined, 2)}\n`);
}
