/** Boots an image where the clock counts instructions, and asks it how it went. */
import { join } from 'node:path';
import type { BuiltImage } from '../../image/built-image.ts';
import { Guest } from '../../lab/guest.ts';
import { GuestShell, SHELL_ARGUMENT } from '../../lab/guest-shell.ts';
import { type Answers, type BootFigures, QUESTIONS, readFigures } from './stamps.ts';

const MEMORY_MIB = 2048;

/**
 * Boots kernel and initrd directly: no firmware, no network, one CPU.
 *
 * @param folder - for the guest's files; made when absent
 * @throws {GuestError} when it does not come up, with the console's last lines
 */
export async function measureBoot(
  image: Pick<BuiltImage, 'kernel' | 'initrd' | 'kernelArgs'>,
  folder: string,
  options: { readonly signal?: AbortSignal; readonly timeoutMs?: number } = {},
): Promise<BootFigures> {
  // "Reached target multi-user" is the sign to ask; what the kernel itself says would cost instructions.
  const args = ['console=ttyS0', 'loglevel=3', 'systemd.show_status=1', SHELL_ARGUMENT, ...image.kernelArgs];
  await using guest = await Guest.start({
    name: 'boot',
    firmware: 'direct',
    accelerator: 'icount',
    memoryMiB: MEMORY_MIB,
    cpus: 1,
    kernel: { file: image.kernel, initrd: image.initrd, append: args.join(' ') },
    folder,
    consoleLog: join(folder, 'console.log'),
    shell: true,
    noReboot: true,
  });
  const { signal, timeoutMs = 300_000 } = options;
  await guest.waitForLine(/Reached target .*multi-user/, { timeoutMs, ...(signal !== undefined && { signal }) });
  return await guest.whileRunning('it has said how it went', async () => {
    using shell = await GuestShell.open(guest.sockets.shell, { timeoutMs: 60_000 });
    const ask = async (line: string): Promise<string> => (await shell.run(line, { timeoutMs: 60_000 })).output;
    // Jobs that multi-user does not wait for end a moment later; systemd knows its own finish only then.
    await ask('systemctl is-system-running --wait >/dev/null');
    const answers: Partial<Record<keyof Answers, string>> = {};
    for (const [name, line] of Object.entries(QUESTIONS)) answers[name as keyof Answers] = await ask(line);
    return readFigures(answers as Answers);
  });
}
