/** `buildos image`: build, list and publish images of the build host. */
import { Command, InvalidArgumentError, Option } from 'commander';
import { buildImage } from '../image/build.ts';
import { type BuiltImage, listImages } from '../image/built-image.ts';
import { buildHost } from '../image/hosts/build-host.ts';
import type { Hardware } from '../image/kernel-modules.ts';
import { publishCommand, rollbackCommand } from './image-publish.ts';
import { needPackages, needRoot } from './setup.ts';

/** The command with its sub-commands. */
export function imageCommand(): Command {
  return new Command('image')
    .description('build the image of a build host, publish it for PXE')
    .addCommand(buildCommand())
    .addCommand(listCommand())
    .addCommand(publishCommand())
    .addCommand(rollbackCommand());
}

const workOption = (): Option => new Option('--work <dir>', 'folder for caches and images').default('work');
const jsonOption = (): Option => new Option('--json', 'print the result as JSON');

function buildCommand(): Command {
  return new Command('build')
    .description('build kernel and initrd from the definition of the build host (as root)')
    .addOption(workOption())
    .addOption(new Option('--hardware <profile>', 'which drivers go in').choices(['server', 'vm']).default('server'))
    .option('--mirror <url>', 'Debian mirror', urlOf)
    .option('--note <text>', 'a line for /etc/buildos-note in the image', '')
    .addOption(jsonOption())
    .addHelpText('after', '\nThe image is kept in <work>/images/<build id>; "buildos image publish" makes it bootable.')
    .action(async (options: { work: string; hardware: Hardware; mirror?: string; note: string; json?: boolean }) => {
      needRoot('another root file system');
      await needPackages(['image']);
      const started = performance.now();
      const { image, report } = await buildImage({
        definition: buildHost,
        work: options.work,
        hardware: options.hardware,
        note: options.note,
        ...(options.mirror !== undefined && { mirror: options.mirror }),
        onProgress: (line) => process.stderr.write(`${line}\n`),
      });
      const seconds = (performance.now() - started) / 1000;
      if (options.json) {
        print({
          ...image,
          seconds,
          properties: report.results.map(({ description, outcome }) => ({ description, outcome })),
        });
        return;
      }
      process.stdout.write(`${describeImage(image)}\nbuilt in ${seconds.toFixed(1)} s\n`);
    });
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

function urlOf(text: string): string {
  if (!URL.canParse(text) || !/^https?:/.test(text)) throw new InvalidArgumentError('expected an http(s) URL');
  return text;
}
