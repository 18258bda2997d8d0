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
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { MinisignSecretKey } from '../../manifests/minisign.ts';
import { hostConfigPaths } from './boot-config.ts';
import type { BootLoaders } from './boot-loaders.ts';
import { planBoot } from './boot-plan.ts';
import { checkPrograms } from './boot-programs.ts';
import type { BuiltImage } from '../built-image.ts';
import type { Publication, PublicationSettings, UkiSettings } from './publication.ts';
import { explainWriting, lockFolder, readPublication } from './published-folder.ts';
import { findLeftOver, isComplete, signVersion, VERSIONS_KEPT, writeVersion } from './published-version.ts';
import { type Published, switchTo } from './switch-version.ts';

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
  await using _lock = await lockFolder(into, options.onProgress);
  return await explainWriting(into, async () => await publishLocked(options, settings));
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

/** Removes the configurations of hosts that have none any more: they would boot the old version for ever. */
async function removeHosts(into: string, before: Hosts, now: Hosts): Promise<void> {
  const kept = new Set(Object.keys(now).flatMap((mac) => Object.values(hostConfigPaths(mac))));
  const paths = Object.keys(before).flatMap((mac) => Object.values(hostConfigPaths(mac)));
  for (const path of paths) if (!kept.has(path)) await rm(join(into, path), { force: true });
}

type Hosts = PublicationSettings['hosts'];
