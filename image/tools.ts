/**
 * The programs of this machine whose version shows in an image: another mksquashfs may compress the same tree to other
 * bytes. They are inputs like any other, so two machines with other tools give the same image another build id rather
 * than two images one id.
 */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';

const TOOLS: readonly (readonly string[])[] = [
  ['/usr/bin/mksquashfs'],
  ['/usr/lib/x86_64-linux-gnu/liblz4.so.1', '/usr/lib/aarch64-linux-gnu/liblz4.so.1'],
  // depmod: the form of modules.*.bin
  ['/usr/bin/kmod', '/bin/kmod', '/usr/sbin/depmod'],
];

/** The digest of the tools; one that is somewhere else than Debian has it counts by its absence. */
export async function findTools(): Promise<string> {
  const hash = createHash('sha256');
  for (const places of TOOLS) {
    const found = await firstOf(places);
    hash.update(found === undefined ? 'absent\n' : createHash('sha256').update(found).digest('hex'));
  }
  return hash.digest('hex');
}

async function firstOf(places: readonly string[]): Promise<Uint8Array | undefined> {
  for (const place of places) {
    const content = await readFile(place).catch(() => undefined);
    if (content !== undefined) return content;
  }
  return undefined;
}
