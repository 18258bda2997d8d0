/**
 * Publishing: a built image becomes a version below a folder that HTTP and TFTP servers serve.
 *
 * ```
 *   <into>/versions/<build id>/   buildos-image buildos-initrd buildos-manifest.json buildos-sbom.spdx.json
 *                                 buildos-buildid SHA256SUMS SHA256SUMS.minisig
 *   <into>/boot.ipxe  pxelinux.cfg/  grub.cfg  hosts/        name the files of one version
 *   <into>/undionly.kpxe  snponly.efi  …  dhcp/              boot loaders, and what DHCP says about them, if asked for
 *   <into>/buildos.efi  buildos.iso                          the version as an EFI program, and as a CD or USB stick, if asked for
 *   <into>/current -> versions/<build id>                    what hosts watch: <url>/current/buildos-buildid
 *   <into>/buildos-publication.json                          what `rollback` needs to know
 * ```
 *
 * A version directory is complete and on the disk before anything names it; the boot configurations are replaced one by
 * one, each whole; the link comes last. A process that dies anywhere in between leaves the old version in force. One
 * process at a time works in the folder: others wait.
 */
import { mkdir, readdir, readFile, readlink, rename, rm, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { openLocal } from '../connections/local.ts';
import { lockPath } from '../host/flock.ts';
import type { MinisignSecretKey } from '../manifests/minisign.ts';
import { describeMismatch, replaceFile, switchLink } from './_files.ts';
import { type ConfigFile, formatBootConfigs, formatKernelArgument, hostConfigPaths } from './boot-config.ts';
import { type BootLoaders, UKI, usesLpxelinux, writeLoaders } from './boot-loaders.ts';
import { replaceIso, replaceUki } from './boot-programs.ts';
import type { BuiltImage } from './built-image.ts';
import { DNSMASQ_CONF, formatDnsmasqConf } from './dhcp-config.ts';
import {
  PUBLICATION_JSON,
  type Publication,
  type PublicationSettings,
  type UkiSettings,
  formatPublication,
  parsePublication,
} from './publication.ts';
import {
  findLeftOver,
  isComplete,
  planRemoval,
  PUBLISHED,
  signVersion,
  VERSIONS_KEPT,
  writeVersion,
} from './published-version.ts';
import { checkSigning } from './signing.ts';
import { type Item, itemOf, type Pruned, type PruneOptions } from './prune.ts';

/** A CD, or a USB stick. */
const ISO = 'buildos.iso';

/** Locked while something is written. */
const LOCK = '.buildos-lock';

/** Publishing an ISO image, too, takes less than half of this. */
const LOCK_SECONDS = 120;

// oxlint-disable-next-line no-control-regex -- a line of a boot configuration would end there
const CONTROL = /[\u0000-\u001f\u007f]/;

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
  /** Makes an ISO 9660 image, too. */
  readonly iso?: UkiSettings;
  /** Puts boot loaders into the folder, and what DHCP has to say about them. */
  readonly loaders?: BootLoaders;
  /** How many versions stay besides this one, the newest; default {@link VERSIONS_KEPT}. */
  readonly keep?: number;
  /** Told what is waited for. */
  readonly onProgress?: (line: string) => void;
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
  const { image, into, url, uki, iso, loaders } = options;
  const settings: PublicationSettings = {
    options: options.options ?? {},
    kernelArgs: options.kernelArgs ?? [],
    hosts: options.hosts ?? {},
    ...(url !== undefined && { url }),
    ...(uki !== undefined && { uki }),
    ...(iso !== undefined && { iso }),
    ...(loaders !== undefined && { loaders }),
  };
  const { buildId, kernelArgs } = image;
  planBoot({ buildId, kernelArgs }, settings);
  await checkPrograms(settings);

  await mkdir(into, { recursive: true });
  await using _lock = await lock(into, options.onProgress);
  return await explained(into, async () => await publishLocked(options, settings));
}

async function publishLocked(options: PublishOptions, settings: PublicationSettings): Promise<Published> {
  const { image, into } = options;
  const { buildId, kernelArgs } = image;
  for (const path of await findLeftOver(into)) await rm(path, { recursive: true, force: true });
  const folder = join(into, 'versions', buildId);
  if (!(await isComplete(folder, buildId))) await writeVersion(image, folder);
  if (options.signWith !== undefined) await signVersion(folder, buildId, options.signWith);
  const before = await readPublication(into);
  await removeHosts(into, before?.hosts ?? {}, settings.hosts);
  const others = (before?.versions ?? []).filter((version) => version.buildId !== buildId);
  const publication: Publication = { format: 1, ...settings, versions: [...others, { buildId, kernelArgs }] };
  return await switchTo(into, publication, buildId, { keep: options.keep ?? VERSIONS_KEPT });
}

/**
 * Switches hosts back to an older version, with the settings that were published last.
 *
 * @param to - its build id or the beginning of it; without it, the one that was published before the current one
 * @throws {PublishError} when there is no such version, or it is not whole any more; nothing has changed then
 */
export async function rollBack(into: string, to?: string): Promise<Published> {
  if ((await stat(into).catch(() => undefined))?.isDirectory() !== true) throw nothingThere('roll back', into);
  await using _lock = await lock(into);
  const publication = await readPublication(into);
  const current = basename(await readlink(join(into, 'current')).catch(() => ''));
  if (publication === undefined || current === '') throw nothingThere('roll back', into);
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
  await checkPrograms(publication);
  return await explained(into, async () => await switchTo(into, publication, buildId));
}

/** Says what stands in the way of writing, which the system tells by a code. */
async function explained<T>(into: string, write: () => Promise<T>): Promise<T> {
  try {
    return await write();
  } catch (cause) {
    if (!(cause instanceof Error && 'code' in cause && 'path' in cause)) throw cause;
    const path = 'dest' in cause && typeof cause.dest === 'string' ? cause.dest : String(cause.path);
    const known: Readonly<Record<string, readonly [string, string]>> = {
      EISDIR: ['there is a folder of that name', `it is not ours: move it away, or publish into another folder`],
      ENOTDIR: ['a part of its path is a file', `it is not ours: move it away, or publish into another folder`],
      EACCES: ['this user may not', `who owns ${into}?`],
      EROFS: ['it can only be read', 'publish into another folder'],
      ENOSPC: ['no space is left', `"buildos image prune --into ${into}" removes old versions`],
      EDQUOT: ['the quota is used up', `"buildos image prune --into ${into}" removes old versions`],
    };
    const [reason, hint] = known[String(cause.code)] ?? [];
    if (reason === undefined || hint === undefined) throw cause;
    throw new PublishError(`Cannot write ${path}: ${reason}; hosts boot what they did before`, hint, { cause });
  }
}

/** What the programs are made and signed with is at hand. @throws {SigningError | PublishError} */
async function checkPrograms({ uki, iso }: PublicationSettings): Promise<void> {
  for (const program of [uki, iso]) {
    if (program === undefined) continue;
    await checkSigning(program);
    if ((await stat(program.stub).catch(() => undefined))?.isFile() === true) continue;
    throw new PublishError(
      `Cannot make a unified kernel image: there is no ${program.stub}`,
      'it is in the package systemd-boot-efi',
    );
  }
}

/**
 * Removes versions that are neither in force nor among the newest few besides.
 *
 * @throws {PublishError} when nothing is published there
 */
export async function prunePublished(into: string, { keep, olderThanMs, dryRun }: PruneOptions): Promise<Pruned> {
  if ((await stat(into).catch(() => undefined))?.isDirectory() !== true) throw nothingThere('prune', into);
  await using _lock = await lock(into);
  const publication = await readPublication(into);
  const current = basename(await readlink(join(into, 'current')).catch(() => ''));
  if (publication === undefined || current === '') throw nothingThere('prune', into);
  const parent = join(into, 'versions');
  const gone = await planRemoval(parent, current, { count: keep, olderThanMs });
  const removed: Item[] = [];
  for (const name of gone) removed.push(await itemOf('version', join(parent, name)));
  for (const path of await findLeftOver(into)) removed.push(await itemOf('left-over', path));
  const kept: Item[] = [];
  for (const { buildId } of publication.versions) {
    if (!gone.includes(buildId)) kept.push(await itemOf('version', join(parent, buildId)));
  }
  if (dryRun) return { removed, kept };
  const versions = publication.versions.filter((each) => !gone.includes(each.buildId));
  await replaceFile(join(into, PUBLICATION_JSON), formatPublication({ ...publication, versions }));
  for (const { path } of removed) await removeWhole(path);
  return { removed, kept };
}

/** Takes a folder away at once; what is left of it when we are killed is nobody's version. */
async function removeWhole(path: string): Promise<void> {
  const away = path.includes('.part-') ? path : `${path}.part-${process.pid}`;
  if (away !== path) await rename(path, away);
  await rm(away, { recursive: true, force: true });
}

/** @throws {PublishError} when another process has it for too long */
async function lock(into: string, onWait?: (line: string) => void): Promise<AsyncDisposable> {
  const file = join(into, LOCK);
  const free = await lockPath(file, 1);
  if (free !== undefined) return free;
  onWait?.(`waiting for another process that publishes into ${into}, for ${LOCK_SECONDS} s at most`);
  const held = await lockPath(file, LOCK_SECONDS);
  if (held !== undefined) return held;
  throw new PublishError(
    `Cannot write to ${into}: another process has been publishing there for ${LOCK_SECONDS} s`,
    `try again later; "fuser ${join(into, LOCK)}" names it`,
  );
}

function nothingThere(verb: string, into: string): PublishError {
  return new PublishError(
    `Cannot ${verb} ${into}: nothing is published there`,
    'is it the folder that "image publish --into" was given?',
  );
}

/** Makes everything in the folder name one version that is there. @param options - `keep`: of other versions; default all */
async function switchTo(
  into: string,
  publication: Publication,
  buildId: string,
  options: { readonly keep?: number } = {},
): Promise<Published> {
  const version = publication.versions.find((each) => each.buildId === buildId);
  if (version === undefined) throw new RangeError(`Cannot switch to ${buildId}: the publication does not have it`);
  const { args, configs } = planBoot(version, publication);
  const folder = join('versions', buildId);
  const keep = { count: options.keep ?? Infinity, olderThanMs: 0 };
  const removed = await planRemoval(join(into, 'versions'), buildId, keep);
  const versions = publication.versions.filter((each) => !removed.includes(each.buildId));
  await replaceFile(join(into, PUBLICATION_JSON), formatPublication({ ...publication, versions }));
  const programs = await replacePrograms(into, publication, version);
  for (const config of configs) await replaceFile(join(into, config.path), config.content);
  if (publication.loaders === undefined) await rm(join(into, DNSMASQ_CONF), { force: true });
  await switchLink(join(into, 'current'), folder);
  for (const name of removed) await removeWhole(join(into, 'versions', name));
  return {
    buildId,
    folder: join(into, folder),
    files: [
      ...(await readdir(join(into, folder))).toSorted().map((name) => join(folder, name)),
      ...configs.map((each) => each.path),
      ...programs,
      PUBLICATION_JSON,
      'current',
    ],
    args,
  };
}

type Version = Publication['versions'][number];

/** Boot loaders, and what holds kernel and initrd itself. @returns their names */
async function replacePrograms(into: string, settings: PublicationSettings, version: Version): Promise<string[]> {
  const { uki, iso, loaders, url } = settings;
  const { buildId } = version;
  const { args, argsOfMedia } = planBoot(version, settings);
  const folder = join(into, 'versions', buildId);
  if (uki !== undefined) await replaceUki(join(into, UKI), { version: folder, buildId, args, uki });
  else await rm(join(into, UKI), { force: true });
  if (iso !== undefined) await replaceIso(join(into, ISO), { version: folder, buildId, args: argsOfMedia, uki: iso });
  else await rm(join(into, ISO), { force: true });
  await using local = openLocal();
  const programs =
    loaders === undefined ? [] : await writeLoaders(local, into, { loaders, url: url && trimSlash(url) });
  return [...programs, ...(uki === undefined ? [] : [UKI]), ...(iso === undefined ? [] : [ISO])];
}

/** Removes the configurations of hosts that have none any more: they would boot the old version for ever. */
async function removeHosts(into: string, before: Hosts, now: Hosts): Promise<void> {
  const kept = new Set(Object.keys(now).flatMap((mac) => Object.values(hostConfigPaths(mac))));
  const paths = Object.keys(before).flatMap((mac) => Object.values(hostConfigPaths(mac)));
  for (const path of paths) if (!kept.has(path)) await rm(join(into, path), { force: true });
}

type Hosts = PublicationSettings['hosts'];

/** What boot loaders are told. */
interface BootPlan {
  readonly args: readonly string[];
  /** Of a CD or a stick: nothing is published for it to watch. */
  readonly argsOfMedia: readonly string[];
  readonly configs: readonly ConfigFile[];
}

/** @throws {PublishError} */
function planBoot(version: Version, settings: PublicationSettings): BootPlan {
  const { loaders } = settings;
  const { url: _, ...withoutUrl } = settings;
  const args = kernelArguments(version.kernelArgs, settings);
  const url = settings.url === undefined ? undefined : trimSlash(settings.url);
  if (loaders?.uefi === 'uki' && settings.uki === undefined) {
    throw new PublishError(
      'Cannot let UEFI boot the unified kernel image: none is to be published',
      'publish with --uki',
    );
  }
  const broken = [...args, ...Object.values(settings.hosts).flatMap(formatOptions)].find((arg) => CONTROL.test(arg));
  if (broken !== undefined) {
    throw new PublishError(
      `Cannot publish the kernel argument ${JSON.stringify(broken)}: it has a control character`,
      'an argument is one line of text without tabs',
    );
  }
  const awkward = loaders?.uefi === 'grub' ? args.find((arg) => /['\\]/.test(arg)) : undefined;
  if (awkward !== undefined) {
    throw new PublishError(
      `Cannot have GRUB hand over ${awkward}: it adds a backslash to each ' and \\`,
      'use --uefi ipxe',
    );
  }
  const configs = formatBootConfigs({
    buildId: version.buildId,
    folder: join('versions', version.buildId),
    args,
    hosts: hostArguments(settings.hosts),
    lpxelinux: usesLpxelinux(loaders, url),
    ...(url !== undefined && { url }),
  });
  const dhcp = loaders === undefined ? [] : [{ path: DNSMASQ_CONF, content: formatDnsmasqConf(loaders, url) }];
  return { args, argsOfMedia: kernelArguments(version.kernelArgs, withoutUrl), configs: [...configs, ...dhcp] };
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
      `Cannot read ${file}: not what this version writes: ${describeMismatch(cause)}`,
      'remove it, and publish again what hosts are to boot; versions that it knew can be rolled back to once they are published again',
    );
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

function trimSlash(url: string): string {
  return url.replace(/\/+$/, '');
}
