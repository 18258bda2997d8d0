/**
 * The index of kernel modules, made while other packages are configured.
 *
 * A kernel's maintainer script runs depmod, which takes as long as a third of all other scripts, and dpkg runs one at a time. All that
 * depmod reads is there when everything is unpacked; so the root's own depmod runs then, and when the script calls it
 * the work is done. The script finds a stand-in in its PATH, which runs the real one after all when anything that depmod
 * reads has changed since, or it is called otherwise.
 */
import { mkdir, readdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Connection } from '../connections/connection.ts';

/** Where the stand-in is, in the root: nobody else's folder, gone when packages are configured. */
export const AHEAD_FOLDER = '/var/lib/dpkg/ahead';

const TIMEOUT_MS = 120_000;

const STAND_IN = `#!/bin/sh
# "depmod RELEASE" has begun before this: see image/depmod-ahead.ts
ahead=${AHEAD_FOLDER}
changed() {
  find /etc/depmod.d /lib/depmod.d /usr/local/lib/depmod.d -cnewer "$ahead/$1.done" -print -quit 2>/dev/null
  find "/usr/lib/modules/$1" -mindepth 1 -cnewer "$ahead/$1.done" ! -path "/usr/lib/modules/$1/modules.*" \\
    ! -name .fresh-install -print -quit
}
if [ $# -eq 1 ]; then
  while [ -e "$ahead/$1.begun" ]; do sleep 0.05; done
  if [ -e "$ahead/$1.done" ] && [ -z "$(changed "$1")" ]; then exit 0; fi
fi
PATH=$(printf %s "$PATH" | sed "s|$ahead:||")
exec depmod "$@"
`;

/**
 * Begins to index the modules of a root in which everything is unpacked.
 *
 * @param root - as `on` sees it, and as this process does
 * @returns to be disposed when packages are configured: waits, and leaves nothing of it in the root
 */
export async function depmodAhead(
  on: Connection,
  root: { readonly path: string; readonly seen: string },
): Promise<AsyncDisposable> {
  const folder = join(root.seen, AHEAD_FOLDER);
  await mkdir(folder);
  const end = async (): Promise<void> => await rm(folder, { recursive: true, force: true });
  const releases = await readdir(join(root.seen, 'usr/lib/modules')).catch((): string[] => []);
  if (releases.length === 0 || (await stat(join(root.seen, 'usr/bin/kmod')).catch(() => undefined)) === undefined) {
    return { [Symbol.asyncDispose]: end };
  }
  await writeFile(join(folder, 'depmod'), STAND_IN, { mode: 0o755 });
  const index = async (release: string): Promise<void> => {
    const begun = join(folder, `${release}.begun`);
    await writeFile(begun, '');
    const made = await on
      .run(['chroot', root.path, 'depmod', release], { timeoutMs: TIMEOUT_MS })
      .then(() => 'done')
      .catch(() => 'failed');
    // Renamed: that needs no room on a full disk, and keeps the time at which it began.
    await rename(begun, join(folder, `${release}.${made}`));
  };
  const all = Promise.allSettled(releases.map(index));
  return {
    [Symbol.asyncDispose]: async () => {
      await all;
      await end();
    },
  };
}
