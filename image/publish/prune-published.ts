/** Taking old versions out of a published folder. */
import { join } from 'node:path';
import { replaceFile } from '../files.ts';
import { isDiskFull } from '../disk-full.ts';
import { type Item, itemOf, type Pruned, type PruneOptions } from '../prune.ts';
import { formatPublication, PUBLICATION_JSON } from './publication.ts';
import { explainWriting, openPublished } from './published-folder.ts';
import { findLeftOver, planRemoval, removeWhole } from './published-version.ts';

/**
 * Removes versions that are neither in force nor among the newest few besides.
 *
 * @throws {PublishError} when nothing is published there, or this user may not write there
 */
export async function prunePublished(into: string, { keep, olderThanMs, dryRun }: PruneOptions): Promise<Pruned> {
  await using held = await openPublished(into, 'prune');
  const { publication, current } = held;
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
  await explainWriting(into, async () => {
    const forget = async (): Promise<void> =>
      await replaceFile(join(into, PUBLICATION_JSON), formatPublication({ ...publication, versions }));
    const isForgotten = await forget().then(
      () => true,
      (error: unknown) => {
        if (!isDiskFull(error)) throw error;
        return false;
      },
    );
    for (const { path } of removed) await removeWhole(path);
    // On a full disk there is room for the shorter list when the first version is gone.
    if (!isForgotten) await forget();
  });
  return { removed, kept };
}
