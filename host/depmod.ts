/** depmod(8): writes `modules.dep` and its kin for a tree of kernel modules. */
import type { Connection } from '../connections/connection.ts';

/**
 * Rewrites the module indexes of one kernel below a root.
 *
 * @param root - the folder that holds `usr/lib/modules/<release>` (or `lib/modules/<release>`)
 * @throws {CommandError} when depmod fails
 */
export async function depmod(
  on: Connection,
  options: { readonly root: string; readonly release: string },
): Promise<void> {
  await on.run(['depmod', '--basedir', options.root, options.release], { timeoutMs: 120_000 });
}
