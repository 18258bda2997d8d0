/**
 * Switching hosts to a version that is in the published folder: everything that names one is made to name this one, the link
 * that hosts watch comes last.
 */
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { openLocal } from '../../connections/local.ts';
import { replaceFile, switchLink } from '../files.ts';
import { UKI, writeLoaders } from './boot-loaders.ts';
import { type BootPlan, planBoot } from './boot-plan.ts';
import { replaceIso, replaceUki } from './boot-programs.ts';
import { DNSMASQ_CONF } from './dhcp-config.ts';
import { PUBLICATION_JSON, type Publication, type PublicationSettings, formatPublication } from './publication.ts';
import { planRemoval, removeWhole } from './published-version.ts';

/** A CD, or a USB stick. */
const ISO = 'buildos.iso';

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

/** Makes everything in the folder name one version that is there. @param options - `keep`: of other versions; default all */
export async function switchTo(
  into: string,
  publication: Publication,
  buildId: string,
  options: { readonly keep?: number } = {},
): Promise<Published> {
  const version = publication.versions.find((each) => each.buildId === buildId);
  if (version === undefined) throw new RangeError(`Cannot switch to ${buildId}: the publication does not have it`);
  const plan = planBoot(version, publication);
  const { args, configs } = plan;
  const folder = join('versions', buildId);
  const keep = { count: options.keep ?? Infinity, olderThanMs: 0 };
  const removed = await planRemoval(join(into, 'versions'), buildId, keep);
  const versions = publication.versions.filter((each) => !removed.includes(each.buildId));
  await replaceFile(join(into, PUBLICATION_JSON), formatPublication({ ...publication, versions }));
  const programs = await replacePrograms(into, publication, { buildId, plan });
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

/** Boot loaders, and what holds kernel and initrd itself. @returns their names */
async function replacePrograms(
  into: string,
  { uki, iso, loaders }: PublicationSettings,
  version: { readonly buildId: string; readonly plan: BootPlan },
): Promise<string[]> {
  const { buildId } = version;
  const { url, args, argsOfMedia } = version.plan;
  const folder = join(into, 'versions', buildId);
  if (uki !== undefined) await replaceUki(join(into, UKI), { version: folder, buildId, args, uki });
  else await rm(join(into, UKI), { force: true });
  if (iso !== undefined) await replaceIso(join(into, ISO), { version: folder, buildId, args: argsOfMedia, uki: iso });
  else await rm(join(into, ISO), { force: true });
  await using local = openLocal();
  const programs = loaders === undefined ? [] : await writeLoaders(local, into, { loaders, url });
  return [...programs, ...(uki === undefined ? [] : [UKI]), ...(iso === undefined ? [] : [ISO])];
}
