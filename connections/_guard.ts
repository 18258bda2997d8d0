/**
 * A small process that outlives ours by a moment: it knows the process groups that we started, and when we die, however,
 * it kills them.
 *
 * The kernel kills only our direct children for us (PR_SET_PDEATHSIG); what those started would stay.
 */
import { Socket } from 'node:net';
import type { Writable } from 'node:stream';
import { CAN_ANNOUNCE, spawnGroup } from './_spawn.ts';

/** `+ N` a group begins, `- N` it ended; the end of the input is our death. */
const SCRIPT = `
trap '' HUP INT TERM
live=' '
while read -r what group; do
  case $what in
    +) live="$live$group " ;;
    -) case $live in *" $group "*) live="\${live%% $group *} \${live#* $group }" ;; esac ;;
  esac
done
for group in $live; do kill -s KILL -- "-$group"; done
`;

/** Started with the first group; it keeps no event loop alive. */
export class Guard {
  #input: Writable | undefined;

  /** Where a group announces itself (_spawn.ts); undefined where there cannot be a guard. */
  announceTo(): Writable | undefined {
    if (!CAN_ANNOUNCE) return undefined;
    this.#input ??= startGuard();
    return this.#input;
  }

  /** The group has ended. */
  remove(groupId: number): void {
    this.#input?.write(`- ${groupId}\n`);
  }

  end(): void {
    this.#input?.end();
    this.#input = undefined;
  }
}

function startGuard(): Writable | undefined {
  const child = spawnGroup(['sh', '-c', SCRIPT, 'buildos-guard'], {
    stdio: ['pipe', 'ignore', 'ignore'],
    dieWithParent: false,
  });
  child.on('error', () => {});
  child.unref();
  const { stdin } = child;
  if (child.pid === undefined || stdin === null) return undefined;
  stdin.on('error', () => {}); // it was killed; what it was for still ends by the kernel's help
  if (stdin instanceof Socket) stdin.unref();
  return stdin;
}
