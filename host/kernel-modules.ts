/** Loading kernel modules by file, for a host without modprobe and its indexes. */
import type { Connection } from '../connections/connection.ts';

const LOAD_TIMEOUT_MS = 60_000;

/** A module that is there already (EEXIST) is fine; busybox says `File exists`. */
const SCRIPT = `
for file; do
  said=$("$0" insmod "$file" 2>&1) && continue
  case "$said" in *'File exists'*) ;; *) echo "$said" >&2; exit 1 ;; esac
done`;

/**
 * Loads modules in this order, as one command.
 *
 * @param files - absolute paths of unpacked `.ko` files, each after what it depends on
 * @param busybox - absolute path of busybox
 * @throws {CommandError} whose stderr names the file and the reason
 */
export async function insertModules(on: Connection, files: readonly string[], busybox: string): Promise<void> {
  if (files.length === 0) return;
  await on.run([busybox, 'sh', '-c', SCRIPT, busybox, ...files], { timeoutMs: LOAD_TIMEOUT_MS });
}

/**
 * Reads a list of module files, one a line, as the initramfs has it in `/modules/load`.
 *
 * @returns file names without folders; empty lines and `#` comments are left out
 */
export function parseModuleList(content: string): string[] {
  return content
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('#'));
}
