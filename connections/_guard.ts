/**
 * A small process that outlives ours by a moment: it knows the process groups that we started, and when we die, however,
 * it kills them.
 *
 * The kernel kills only our direct children for us (PR_SET_PDEATHSIG); what those started would stay.
 */
import type { ChildProcess } from 'node:child_process';
import { spawnGroup } from './_spawn.ts';

/** `+ N` a group began, `- N` it ended; the end of the input is our death. */
const SCRIPT = `
trap '' HUP INT TERM
live=' '
while read -r what group; do
  case $what in
    +) live="$live$group " ;;
    -) case $live in *" $group "*) live="\${live%% $group *} \${live#* $group }" ;; esac ;;
  esac
done
for group in $live; do kill -KILL -- "-$group"; done
`;

/** Started with the first group; it keeps no event loop alive. */
export class Guard {
  #child: ChildProcess | undefined;

  add(groupId: number): void {
    if (this.#child === undefined) {
      const child = spawnGroup(['sh', '-c', SCRIPT, 'buildos-guard'], {
        stdio: ['pipe', 'ignore', 'ignore'],
        dieWithParent: false,
      });
      child.on('error', () => {}); // no shell here: then only direct children end with us
      child.stdin?.on('error', () => {});
      child.unref();
      if (child.stdin !== null && 'unref' in child.stdin && typeof child.stdin.unref === 'function')
        child.stdin.unref();
      this.#child = child;
    }
    this.#child.stdin?.write(`+ ${groupId}\n`);
  }

  remove(groupId: number): void {
    this.#child?.stdin?.write(`- ${groupId}\n`);
  }

  end(): void {
    this.#child?.stdin?.end();
    this.#child = undefined;
  }
}
