/**
 * Programs that maintainer scripts call and that take long, begun before: while other packages are configured.
 *
 * dpkg runs one script at a time, and half of what they all take is depmod, which indexes kernel modules, and systemd-hwdb.
 * What these read is there when everything is unpacked; so the root's own are run then, and when a script calls one the
 * work is done. The script finds a stand-in in its PATH, which runs the real one after all when anything that it reads
 * has changed since, or it is called otherwise.
 */
import { mkdir, readdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Connection } from '../connections/connection.ts';
import { idleHelpers } from './idle-helpers.ts';

/** Where the stand-ins are, in the root: nobody else's folder, gone when packages are configured. */
export const AHEAD_FOLDER = '/var/lib/dpkg/ahead';

const TIMEOUT_MS = 120_000;

/** A program, and what it reads. */
interface Early {
  readonly argv: readonly [program: string, ...args: string[]];
  /** In the root: without it there is nothing to do. */
  readonly needs: string;
  /** Calls of find(1) that print what has changed since `$1`, in dash; all that it reads, and nothing that it writes. */
  readonly changed: string;
}

const DEPMOD_FOLDERS = '/etc/depmod.d /lib/depmod.d /usr/local/lib/depmod.d';
const HWDB_FOLDERS = '/etc/udev/hwdb.d /usr/lib/udev/hwdb.d /usr/local/lib/udev/hwdb.d';

/** depmod(8); the file .fresh-install is for another program. */
const depmod = (release: string): Early => ({
  argv: ['depmod', release],
  needs: 'usr/bin/kmod',
  changed: `
  find ${DEPMOD_FOLDERS} -cnewer "$1" -print -quit
  find /usr/lib/modules/${release} -mindepth 1 -cnewer "$1" ! -path '/usr/lib/modules/${release}/modules.*' \\
    ! -name .fresh-install -print -quit`,
});

/** systemd-hwdb(8), as udev's script calls it. */
const HWDB: Early = {
  argv: ['systemd-hwdb', '--usr', 'update'],
  needs: 'usr/bin/systemd-hwdb',
  changed: `find ${HWDB_FOLDERS} -cnewer "$1" -print -quit`,
};

/** A call that is `$0_$1_$2…` has begun before this, if there is such a file. */
const standIn = (program: string, calls: readonly Early[]): string => `#!/bin/sh
ahead=${AHEAD_FOLDER}
call=${program}
for word; do call=\${call}_$word; done
changed() {
  case $call in
${calls.map((each) => `  ${nameOf(each)})${each.changed}\n  ;;`).join('\n')}
  esac 2>/dev/null
}
while [ -e "$ahead/$call.begun" ]; do sleep 0.02; done
if [ -e "$ahead/$call.done" ] && [ -z "$(changed "$ahead/$call.done")" ]; then exit 0; fi
PATH=$(printf %s "$PATH" | sed "s|$ahead:||")
exec ${program} "$@"
`;

const nameOf = ({ argv }: Early): string => argv.join('_');

/** Programs that run ahead. Dispose it when packages are configured: waits, and leaves nothing of it in the root. */
export interface Ahead extends AsyncDisposable {
  /** Settles when kernel modules are indexed, or cannot be; undefined when there are none. Never rejects. */
  readonly indexed: Promise<void> | undefined;
}

/**
 * Begins what can be, in a root in which everything is unpacked.
 *
 * @param root - as `on` sees it, and as this process does
 */
export async function runAhead(on: Connection, root: { readonly path: string; readonly seen: string }): Promise<Ahead> {
  const folder = join(root.seen, AHEAD_FOLDER);
  await mkdir(folder);
  const releases = await readdir(join(root.seen, 'usr/lib/modules')).catch((): string[] => []);
  const early: Early[] = [];
  for (const each of [...releases.map(depmod), HWDB]) {
    if ((await stat(join(root.seen, each.needs)).catch(() => undefined)) !== undefined) early.push(each);
  }
  for (const [program, calls] of Map.groupBy(early, ({ argv }) => argv[0])) {
    await writeFile(join(folder, program), standIn(program, calls), { mode: 0o755 });
  }
  for (const [program, script] of Object.entries(idleHelpers(AHEAD_FOLDER))) {
    await writeFile(join(folder, program), script, { mode: 0o755 });
  }
  const run = async (each: Early): Promise<void> => {
    const place = join(folder, nameOf(each));
    await writeFile(`${place}.begun`, '');
    const made = await on
      .run(['chroot', root.path, ...each.argv], { timeoutMs: TIMEOUT_MS })
      .then(() => 'done')
      .catch(() => 'failed');
    // Renamed: that needs no room on a full disk, and keeps the time at which it began.
    await rename(`${place}.begun`, `${place}.${made}`);
  };
  const runs = early.map((each) => ({ each, ended: run(each) }));
  const all = Promise.allSettled(runs.map(({ ended }) => ended));
  const indexes = runs.filter(({ each }) => each.argv[0] === 'depmod').map(({ ended }) => ended);
  return {
    indexed: indexes.length === 0 ? undefined : Promise.allSettled(indexes).then(() => undefined),
    [Symbol.asyncDispose]: async () => {
      await all;
      await rm(folder, { recursive: true, force: true });
    },
  };
}
