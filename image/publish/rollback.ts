/** Going back: hosts boot an older version that is still in the published folder. */
import { join } from 'node:path';
import { checkPrograms } from './boot-programs.ts';
import { PublishError } from './publish-error.ts';
import { explainWriting, openPublished } from './published-folder.ts';
import { isComplete, PUBLISHED } from './published-version.ts';
import { type Published, switchTo } from './switch-version.ts';

/**
 * Switches hosts back to an older version, with the settings that were published last.
 *
 * @param to - its build id or the beginning of it; without it, the one that was published before the current one
 * @throws {PublishError} when there is no such version, or it is not whole any more; nothing has changed then
 */
export async function rollBack(into: string, to?: string): Promise<Published> {
  await using held = await openPublished(into, 'roll back');
  const { publication, current } = held;
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
  return await explainWriting(into, async () => await switchTo(into, publication, buildId));
}
