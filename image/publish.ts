/**
 * Publishing: a built image becomes a version below a folder that HTTP and TFTP servers serve.
 *
 * ```
 *   <into>/versions/<build id>/   buildos-image buildos-initrd buildos-manifest.json buildos-sbom.spdx.json
 *                                 buildos-buildid SHA256SUMS SHA256SUMS.minisig
 *   <into>/boot.ipxe  pxelinux.cfg/  grub.cfg  hosts/        name the files of one version
 *   <into>/buildos.efi                                       a unified kernel image of one version, if asked for
 *   <into>/current -> versions/<build id>                    what hosts watch: <url>/current/buildos-buildid
 *   <into>/buildos-publication.json                          what `rollback` needs to know
 * ```
 *
 * A version directory is complete and on the disk before anything names it; the boot configurations are replaced one by
 * one, each whole; the link comes last. A process that dies anywhere in between leaves the old version in force.
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import {
  copyFile,
  mkdir,
  open,
  readdir,
  readFile,
  readlink,
  rename,
  rm,
  symlink,
  unlink,
  writeFile,
} from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { openLocal } from '../connections/local.ts';
import { signEfi } from '../host/sbsign.ts';
import { parseImageManifest } from '../manifests/image-manifest.ts';
import { type MinisignSecretKey, signMinisign } from '../manifests/minisign.ts';
import { formatSha256Sums, parseSha256Sums } from '../manifests/sha256sums.ts';
import { formatBootConfigs, formatKernelArgument } from './boot-config.ts';
import type { BuiltImage } from './built-image.ts';
import {
  PUBLICATION_JSON,
  type Publication,
  type PublicationSettings,
  type UkiSettings,
  formatPublication,
  parsePublication,
} from './publication.ts';
import { formatSbom } from './sbom.ts';
import { buildUki } from './uki.ts';

/** The published names (spec of the build host, "Published files"). */
export const PUBLISHED = {
  kernel: 'buildos-image',
  initrd: 'buildos-initrd',
  manifest: 'buildos-manifest.json',
  sbom: 'buildos-sbom.spdx.json',
  buildId: 'buildos-buildid',
  sums: 'SHA256SUMS',
} as const;

const SIGNATURE = `${PUBLISHED.sums}.minisig`;

/** The unified kernel image: what UEFI firmware can be told to boot. */
const UKI = 'buildos.efi';

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
  /** Signs the sums. */
  readonly signWith?: MinisignSecretKey;
  /** Makes a unified kernel image, too. */
  readonly uki?: UkiSettings;
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

  constructor(message: string, hint: string, options?: ErrorOptions) {
    super(message, options);
    this.hint = hint;
  }
}

/**
 * Publishes an image and switches hosts to it. Publishing the same image again renews its boot configurations only.
 *
 * @throws {PublishError} when a MAC address, a URL or an option is malformed; nothing has changed then
 */
export async function publishImage(options: PublishOptions): Promise<Published> {
  const { image, into, url, uki } = options;
  const settings: PublicationSettings = {
    options: options.options ?? {},
    kernelArgs: options.kernelArgs ?? [],
    hosts: options.hosts ?? {},
    ...(url !== undefined && { url }),
    ...(uki !== undefined && { uki }),
  };
  const { buildId, kernelArgs } = image;
  planBoot({ buildId, kernelArgs }, settings);

  const folder = join(into, 'versions', buildId);
  if (!(await isComplete(folder, buildId))) await writeVersion(image, folder);
  if (options.signWith !== undefined) await signVersion(folder, buildId, options.signWith);
  const before = await readPublication(into);
  const others = (before?.versions ?? []).filter((version) => version.buildId !== buildId);
  return await switchTo(into, { format: 1, ...settings, versions: [...others, { buildId, kernelArgs }] }, buildId);
}

/**
 * Switches hosts back to an older version, with the settings that were published last.
 *
 * @param to - its build id or the beginning of it; without it, the one that was published before the current one
 * @throws {PublishError} when there is no such version, or it is not whole any more; nothing has changed then
 */
export async function rollBack(into: string, to?: string): Promise<Published> {
  const publication = await readPublication(into);
  const current = basename(await readlink(join(into, 'current')).catch(() => ''));
  if (publication === undefined || current === '') {
    throw new PublishError(`Cannot roll back ${into}: nothing is published there`, 'publish an image first');
  }
  const ids = publication.versions.map((version) => version.buildId);
  const fitting =
    to === undefined ? ids.slice(0, ids.indexOf(current)).slice(-1) : ids.filter((id) => id.startsWith(to));
  const [buildId] = fitting;
  if (buildId === undefined || fitting.length > 1) {
    throw new PublishError(
      to === undefined
        ? `Cannot roll back ${into}: no version older than ${current} is there`
        : `Cannot roll back ${into} to "${to}": ${fitting.length} versions begin so`,
      `there are: ${ids.join(', ')}`,
    );
  }
  const folder = join(into, 'versions', buildId);
  if (!(await isComplete(folder, buildId))) {
    throw new PublishError(
      `Cannot roll back to ${buildId}: ${folder} is not what its ${PUBLISHED.sums} says`,
      `publish that image again, or name another: ${ids.join(', ')}`,
    );
  }
  return await switchTo(into, publication, buildId);
}

/** Makes everything in the folder name one version that is there. */
async function switchTo(into: string, publication: Publication, buildId: string): Promise<Published> {
  const version = publication.versions.find((each) => each.buildId === buildId);
  if (version === undefined) throw new RangeError(`Cannot switch to ${buildId}: the publication does not have it`);
  const { args, configs } = planBoot(version, publication);
  const folder = join('versions', buildId);
  const removed = await planRemoval(join(into, 'versions'), buildId);
  const versions = publication.versions.filter((each) => !removed.includes(each.buildId));
  await replaceFile(join(into, PUBLICATION_JSON), formatPublication({ ...publication, versions }));
  if (publication.uki !== undefined) await replaceUki(into, { buildId, args, uki: publication.uki });
  else await rm(join(into, UKI), { force: true });
  for (const config of configs) await replaceFile(join(into, config.path), config.content);
  await switchLink(join(into, 'current'), folder);
  for (const name of removed) await rm(join(into, 'versions', name), { recursive: true, force: true });
  return {
    buildId,
    folder: join(into, folder),
    files: [
      ...(await readdir(join(into, folder))).toSorted().map((name) => join(folder, name)),
      ...configs.map((each) => each.path),
      ...(publication.uki === undefined ? [] : [UKI]),
      PUBLICATION_JSON,
      'current',
    ],
    args,
  };
}

/** What boot loaders are told. @throws {PublishError} */
function planBoot(
  version: Publication['versions'][number],
  settings: PublicationSettings,
): { readonly args: string[]; readonly configs: ReturnType<typeof formatBootConfigs> } {
  const args = kernelArguments(version.kernelArgs, settings);
  if (settings.uki !== undefined && (settings.uki.key === undefined) !== (settings.uki.certificate === undefined)) {
    throw new PublishError('Cannot sign the unified kernel image: key and certificate go together', 'give both files');
  }
  const configs = formatBootConfigs({
    buildId: version.buildId,
    folder: join('versions', version.buildId),
    args,
    hosts: hostArguments(settings.hosts),
    ...(settings.url !== undefined && { url: trimSlash(settings.url) }),
  });
  return { args, configs };
}

async function readPublication(into: string): Promise<Publication | undefined> {
  const file = join(into, PUBLICATION_JSON);
  let content: string;
  try {
    content = await readFile(file, 'utf8');
  } catch {
    return undefined;
  }
  try {
    return parsePublication(content);
  } catch (cause) {
    throw new PublishError(
      `Cannot read ${file}: not what this version writes`,
      'remove it, and publish again what hosts are to boot',
      { cause },
    );
  }
}

/** The unified kernel image of a version that is there, whole or not at all. */
async function replaceUki(
  into: string,
  what: { readonly buildId: string; readonly args: readonly string[]; readonly uki: UkiSettings },
): Promise<void> {
  const { buildId, args, uki } = what;
  const version = join(into, 'versions', buildId);
  const file = join(into, UKI);
  const temporary = `${file}.part-${process.pid}`;
  const unsigned = `${temporary}.unsigned`;
  try {
    const parts = {
      stub: await readFile(uki.stub),
      kernel: await readFile(join(version, PUBLISHED.kernel)),
      initrd: await readFile(join(version, PUBLISHED.initrd)),
    };
    await writeFile(unsigned, buildUki({ ...parts, kernelArgs: args, title: `Build OS ${buildId}`, buildId }));
    if (uki.key === undefined || uki.certificate === undefined) {
      await rename(unsigned, temporary);
    } else {
      await using local = openLocal();
      await signEfi(local, { program: unsigned, key: uki.key, certificate: uki.certificate, output: temporary });
    }
    await syncPath(temporary);
    await rename(temporary, file);
  } finally {
    for (const each of [unsigned, temporary]) await rm(each, { force: true });
  }
}

function kernelArguments(ofImage: readonly string[], { url, options, kernelArgs }: PublicationSettings): string[] {
  const buildos: Record<string, string> = { ...options };
  if (url !== undefined) {
    if (!URL.canParse(url) || !/^https?:/.test(url)) {
      throw new PublishError(
        `Cannot publish for the URL "${url}": not an http(s) URL`,
        'give the address under which hosts reach the folder, such as http://192.0.2.1/buildos',
      );
    }
    buildos['buildid_url'] ??= `${trimSlash(url)}/current/${PUBLISHED.buildId}`;
  }
  return [...ofImage, ...kernelArgs, ...formatOptions(buildos)];
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
    const manifest = parseImageManifest(await readFile(image.manifest, 'utf8'), { name: image.manifest });
    await writeFile(join(temporary, PUBLISHED.sbom), formatSbom(manifest, new Date()));
    const names = [PUBLISHED.kernel, PUBLISHED.initrd, PUBLISHED.manifest, PUBLISHED.sbom, PUBLISHED.buildId];
    const sums: { path: string; sha256: string }[] = [];
    for (const name of names) sums.push({ path: name, sha256: await sha256Of(join(temporary, name)) });
    await writeFile(join(temporary, PUBLISHED.sums), formatSha256Sums(sums));
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

/** Signs the sums; hosts that trust the key take no version without it. Ed25519: the same key gives the same bytes. */
async function signVersion(folder: string, buildId: string, key: MinisignSecretKey): Promise<void> {
  const sums = await readFile(join(folder, PUBLISHED.sums));
  await replaceFile(join(folder, SIGNATURE), signMinisign(sums, key, `Build OS ${buildId}`));
}

/** A version that is there is complete, since it was renamed into place; its sums are checked all the same. */
async function isComplete(folder: string, buildId: string): Promise<boolean> {
  try {
    if ((await readFile(join(folder, PUBLISHED.buildId), 'utf8')).trim() !== buildId) return false;
    const sums = parseSha256Sums(await readFile(join(folder, PUBLISHED.sums), 'utf8'));
    for (const { path, sha256 } of sums) {
      if ((await sha256Of(join(folder, path))) !== sha256) return false;
    }
    return Object.values(PUBLISHED).every((name) => name === PUBLISHED.sums || sums.some(({ path }) => path === name));
  } catch {
    return false;
  }
}

/** Which versions go: all but the one in force and the newest few besides it. */
async function planRemoval(folder: string, inForce: string): Promise<readonly string[]> {
  const names = (await readdir(folder, { withFileTypes: true })).filter((entry) => entry.isDirectory());
  const dated: { name: string; time: number }[] = [];
  for (const { name } of names) {
    if (name === inForce) continue;
    await using handle = await open(join(folder, name));
    dated.push({ name, time: (await handle.stat()).mtimeMs });
  }
  dated.sort((a, b) => b.time - a.time);
  return dated.slice(VERSIONS_KEPT).map(({ name }) => name);
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
