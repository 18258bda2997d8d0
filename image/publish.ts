/**
 * Publishing: a built image becomes a version below a folder that HTTP and TFTP servers serve.
 *
 * ```
 *   <into>/versions/<build id>/   buildos-image buildos-initrd buildos-manifest.json buildos-buildid SHA256SUMS
 *   <into>/boot.ipxe  pxelinux.cfg/  grub.cfg  hosts/        name the files of one version
 *   <into>/current -> versions/<build id>                    what hosts watch: <url>/current/buildos-buildid
 * ```
 *
 * A version directory is complete and on the disk before anything names it; the boot configurations are replaced one by
 * one, each whole; the link comes last. A process that dies anywhere in between leaves the old version in force.
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { copyFile, mkdir, open, readdir, readFile, rename, rm, symlink, unlink, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { formatBootConfigs, formatKernelArgument } from './boot-config.ts';
import type { BuiltImage } from './built-image.ts';

/** The published names (spec of the build host, "Published files"). */
export const PUBLISHED = {
  kernel: 'buildos-image',
  initrd: 'buildos-initrd',
  manifest: 'buildos-manifest.json',
  buildId: 'buildos-buildid',
  sums: 'SHA256SUMS',
} as const;

/** How many versions stay beside the newest. */
const VERSIONS_KEPT = 3;

/** What to publish, and how hosts reach it. */
export interface PublishOptions {
  readonly image: BuiltImage;
  /** The folder that is served; made when absent. */
  readonly into: string;
  /** How hosts reach that folder: `http://192.0.2.1/buildos`. Absent: kernel and initrd are read over TFTP. */
  readonly url?: string;
  /** `buildos.` options without the prefix, such as `toolchain_url`. `buildid_url` is set from `url` unless given. */
  readonly options?: Readonly<Record<string, string>>;
  /** Other kernel arguments, such as `console=ttyS0`. */
  readonly kernelArgs?: readonly string[];
  /** More `buildos.` options for single hosts, by MAC address. */
  readonly hosts?: Readonly<Record<string, Readonly<Record<string, string>>>>;
}

/** What is there now. */
export interface Published {
  readonly buildId: string;
  /** The version's own folder. */
  readonly folder: string;
  /** Paths below `into`. */
  readonly files: readonly string[];
  /** The kernel arguments that boot loaders were told. */
  readonly args: readonly string[];
}

/** Something that makes a publication impossible. */
export class PublishError extends Error {
  override readonly name = 'PublishError';
  readonly hint: string;

  constructor(message: string, hint: string) {
    super(message);
    this.hint = hint;
  }
}

/**
 * Publishes an image and switches hosts to it. Publishing the same image again renews its boot configurations only.
 *
 * @throws {PublishError} when a MAC address, a URL or an option is malformed; nothing has changed then
 */
export async function publishImage(options: PublishOptions): Promise<Published> {
  const { image, into } = options;
  const args = kernelArguments(options);
  const hosts = hostArguments(options.hosts ?? {});
  const version = join('versions', image.buildId);
  const folder = join(into, version);
  const configs = formatBootConfigs({
    buildId: image.buildId,
    folder: version,
    args,
    hosts,
    ...(options.url !== undefined && { url: trimSlash(options.url) }),
  });

  if (!(await isComplete(folder, image.buildId))) await writeVersion(image, folder);
  for (const config of configs) await replaceFile(join(into, config.path), config.content);
  await switchLink(join(into, 'current'), version);
  await removeOldVersions(join(into, 'versions'), image.buildId);
  return {
    buildId: image.buildId,
    folder,
    files: [
      ...Object.values(PUBLISHED).map((name) => join(version, name)),
      ...configs.map((each) => each.path),
      'current',
    ],
    args,
  };
}

function kernelArguments(options: PublishOptions): string[] {
  const buildos: Record<string, string> = { ...options.options };
  if (options.url !== undefined) {
    if (!URL.canParse(options.url) || !/^https?:/.test(options.url)) {
      throw new PublishError(
        `Cannot publish for the URL "${options.url}": not an http(s) URL`,
        'give the address under which hosts reach the folder, such as http://192.0.2.1/buildos',
      );
    }
    buildos['buildid_url'] ??= `${trimSlash(options.url)}/current/${PUBLISHED.buildId}`;
  }
  return [...options.image.kernelArgs, ...(options.kernelArgs ?? []), ...formatOptions(buildos)];
}

function formatOptions(options: Readonly<Record<string, string>>): string[] {
  return Object.entries(options).map(([name, value]) => {
    if (!/^[a-z0-9_]+(\.[a-zA-Z0-9_-]+)?$/.test(name)) {
      throw new PublishError(
        `Cannot publish the option "${name}": not a name of an option`,
        'write it without the "buildos." before it, for instance toolchain_url=http://…',
      );
    }
    return formatKernelArgument(`buildos.${name}`, value);
  });
}

function hostArguments(
  hosts: Readonly<Record<string, Readonly<Record<string, string>>>>,
): Readonly<Record<string, readonly string[]>> {
  return Object.fromEntries(
    Object.entries(hosts).map(([mac, options]) => {
      if (!/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(mac)) {
        throw new PublishError(
          `Cannot publish for the host "${mac}": not a MAC address`,
          'write six pairs of hex digits with colons, such as 52:54:00:12:34:56',
        );
      }
      return [mac.toLowerCase(), formatOptions(options)];
    }),
  );
}

/** Writes a whole version beside its place and renames it there: it exists complete or not at all. */
async function writeVersion(image: BuiltImage, folder: string): Promise<void> {
  const temporary = `${folder}.part-${process.pid}`;
  await rm(temporary, { recursive: true, force: true });
  await mkdir(temporary, { recursive: true });
  try {
    await copyFile(image.kernel, join(temporary, PUBLISHED.kernel));
    await copyFile(image.initrd, join(temporary, PUBLISHED.initrd));
    await copyFile(image.manifest, join(temporary, PUBLISHED.manifest));
    await writeFile(join(temporary, PUBLISHED.buildId), `${image.buildId}\n`);
    const names = [PUBLISHED.kernel, PUBLISHED.initrd, PUBLISHED.manifest, PUBLISHED.buildId];
    const lines: string[] = [];
    for (const name of names) lines.push(`${await sha256Of(join(temporary, name))} *${name}\n`);
    await writeFile(join(temporary, PUBLISHED.sums), lines.join(''));
    for (const name of [...names, PUBLISHED.sums]) await syncPath(join(temporary, name));
    await syncPath(temporary);
    await rm(folder, { recursive: true, force: true });
    await rename(temporary, folder);
    await syncPath(dirname(folder));
  } catch (error) {
    await rm(temporary, { recursive: true, force: true });
    throw error;
  }
}

/** A version that is there is complete, since it was renamed into place; its sums are checked all the same. */
async function isComplete(folder: string, buildId: string): Promise<boolean> {
  let sums: string;
  try {
    sums = await readFile(join(folder, PUBLISHED.sums), 'utf8');
    if ((await readFile(join(folder, PUBLISHED.buildId), 'utf8')).trim() !== buildId) return false;
  } catch {
    return false;
  }
  for (const line of sums.split('\n').filter(Boolean)) {
    const [sum, name] = line.split(' *');
    if (name === undefined || (await sha256Of(join(folder, basename(name)))) !== sum) return false;
  }
  return true;
}

async function removeOldVersions(folder: string, newest: string): Promise<void> {
  const names = (await readdir(folder, { withFileTypes: true })).filter((entry) => entry.isDirectory());
  const dated: { name: string; time: number }[] = [];
  for (const { name } of names) {
    if (name === newest) continue;
    await using handle = await open(join(folder, name));
    dated.push({ name, time: (await handle.stat()).mtimeMs });
  }
  dated.sort((a, b) => b.time - a.time);
  for (const { name } of dated.slice(VERSIONS_KEPT)) await rm(join(folder, name), { recursive: true, force: true });
}

async function replaceFile(file: string, content: string): Promise<void> {
  await mkdir(dirname(file), { recursive: true });
  const temporary = `${file}.part-${process.pid}`;
  await writeFile(temporary, content);
  await syncPath(temporary);
  await rename(temporary, file);
}

async function switchLink(link: string, target: string): Promise<void> {
  const temporary = `${link}.part-${process.pid}`;
  await unlink(temporary).catch(() => undefined);
  await symlink(target, temporary);
  await rename(temporary, link);
  await syncPath(dirname(link));
}

async function syncPath(path: string): Promise<void> {
  await using handle = await open(path);
  await handle.sync();
}

async function sha256Of(file: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(file), hash);
  return hash.digest('hex');
}

function trimSlash(url: string): string {
  return url.replace(/\/+$/, '');
}
