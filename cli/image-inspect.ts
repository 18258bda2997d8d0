/** `buildos image diff` and `image explain`: what is different between two images, what is in one and why. */
import { writeFile } from 'node:fs/promises';
import { Command, Option } from 'commander';
import { readSide } from '../image/diff-side.ts';
import { diffImages } from '../image/diff.ts';
import { formatDiff } from '../image/diff-report.ts';
import { findSubject } from '../image/explain/find-subject.ts';
import { KnownParts } from '../image/explain/image-parts.ts';
import { inspectImage, type Inspection } from '../image/explain/inspect.ts';
import { sizeTree } from '../image/explain/size-map.ts';
import { formatMapPage } from '../image/explain/size-map-html.ts';
import { drawMap } from '../image/explain/size-map-svg.ts';
import { formatSummary, summarize } from '../image/explain/summary.ts';
import { explainPath, formatWhy } from '../image/explain/why.ts';
import { countOf } from './count-of.ts';
import { formatError } from './report-error.ts';

/** As diff(1) has it. */
const DIFFERENT = 1;
const TROUBLE = 2;

const SUBJECT_HELP = `
An image is named by its build id or the beginning of it (see "buildos image list"), by its folder, by a version that
"image publish" wrote (<into>/versions/<id>), or by that folder itself: the version in force.`;

const workOption = (): Option => new Option('--work <dir>', 'folder that images were built in').default('work');
const jsonOption = (): Option => new Option('--json', 'print the result as JSON');

/** `image diff`. */
export function diffCommand(): Command {
  return new Command('diff')
    .description('show what differs between two images: packages, files, properties, kernel options, sizes')
    .argument('<from>', 'an image, a manifest or a lock')
    .argument('<to>', 'the other')
    .option('--files <n>', 'how many files are named at most', countOf, 50)
    .addOption(workOption())
    .addOption(jsonOption())
    .addHelpText(
      'after',
      `${SUBJECT_HELP} A lock or a manifest alone is compared by its packages.

Exit status, as of diff(1): 0 the same, ${DIFFERENT} different, ${TROUBLE} trouble.

Examples:
  buildos image diff 3f9a 81c2
  buildos image diff /srv/buildos work/images/81c2…    # what publishing would change`,
    )
    .action(diff);
}

async function diff(
  from: string,
  to: string,
  options: { readonly files: number; readonly work: string; readonly json?: true },
): Promise<void> {
  try {
    const { work, files } = options;
    const read = new KnownParts();
    // One after the other: what both have is read once.
    const before = await looking(from, async () => await readSide(await findSubject(from, { work }), read));
    const after = await looking(to, async () => await readSide(await findSubject(to, { work }), read));
    const result = diffImages(before, after);
    if (options.json === true) print(result);
    else process.stdout.write(`${formatDiff(result, { files }).join('\n')}\n`);
    process.exitCode = result.same ? 0 : DIFFERENT;
  } catch (error) {
    process.stderr.write(`${formatError(error)}\n`);
    process.exitCode = TROUBLE;
  }
}

interface ExplainFlags {
  readonly html?: string;
  readonly svg?: string;
  readonly top: number;
  readonly work: string;
  readonly json?: true;
}

/** `image explain`. */
export function explainCommand(): Command {
  return new Command('explain')
    .description('show what is in an image, how large it is there, and which package, property or step it comes from')
    .argument('[image]', 'the image; without it the newest')
    .argument('[path]', 'a path in it, such as /usr/bin/less or initrd:/init: why it is there, or why not')
    .option('--html <file>', 'write a map of the sizes, one file for a browser')
    .option('--svg <file>', 'write the map as a drawing')
    .option('--top <n>', 'how many packages, properties and files are listed', countOf, 20)
    .addOption(workOption())
    .addOption(jsonOption())
    .addHelpText(
      'after',
      `${SUBJECT_HELP}

Sizes "in the image" are what the packed content takes in kernel and initrd; they add up to both files, to the byte.
Exit status: 0; 1 when the image has no such path and never had; 64 usage.

Examples:
  buildos image explain
  buildos image explain 3f9a /usr/bin/less
  buildos image explain 3f9a --html sizes.html`,
    )
    .action(explain);
}

async function explain(asked: string | undefined, path: string | undefined, flags: ExplainFlags): Promise<void> {
  const inspection = await looking(
    asked,
    async () => await inspectImage(await findSubject(asked, { work: flags.work })),
  );
  if (path !== undefined) {
    const why = explainPath(path, inspection);
    if (flags.json === true) print(why);
    else process.stdout.write(`${formatWhy(why).join('\n')}\n`);
    if (why.state === 'absent') process.exitCode = 1;
    return;
  }
  const drawn = await writeMaps(inspection, flags);
  if (flags.json === true) print(summarize(inspection, flags.top));
  else if (drawn.length > 0) process.stderr.write(`written: ${drawn.join(' ')}\n`);
  else process.stdout.write(`${formatSummary(summarize(inspection, flags.top), { top: flags.top }).join('\n')}\n`);
}

/** Names the image that something is wrong with, where the error names a part of it only. */
async function looking<T>(asked: string | undefined, look: () => Promise<T>): Promise<T> {
  try {
    return await look();
  } catch (cause) {
    if (!(cause instanceof Error) || (asked !== undefined && cause.message.includes(asked) && 'hint' in cause))
      throw cause;
    throw new LookError(`Cannot look into the image ${asked ?? 'that was built last'}`, { cause });
  }
}

class LookError extends Error {
  override readonly name = 'LookError';
  readonly hint = 'if a file of it is damaged or gone: remove its folder and build it again, or publish it again';
}

async function writeMaps(inspection: Inspection, { html, svg }: ExplainFlags): Promise<string[]> {
  const { items, manifest, kernelArgs } = inspection;
  const title = `image ${manifest.buildId} (${manifest.host})`;
  if (svg !== undefined) await writeFile(svg, drawMap(sizeTree(items, title), { standalone: true }));
  if (html !== undefined) {
    const { base, kernelVersion, node } = manifest;
    const lines = [
      `${base.name} ${base.version} (${base.suite}), Linux ${kernelVersion}, Node ${node.version}, ${manifest.packages.length} packages; kernel options: ${kernelArgs.join(' ') || 'none of its own'}. Areas are bytes in kernel and initrd, packed.`,
    ];
    await writeFile(html, formatMapPage(items, { title, lines }));
  }
  return [svg, html].filter((file) => file !== undefined);
}

function print(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value, undefined, 2)}\n`);
}
