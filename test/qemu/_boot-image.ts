/**
 * An image whose init says which version it is, and with which arguments it was started, and waits: enough to tell that a boot
 * loader brought the right kernel, the whole initrd and the right command line, some seconds after power-on.
 */
import { createHash } from 'node:crypto';
import { mkdir, readFile, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { BuiltImage } from '../../image/built-image.ts';
import { encodeCpio } from '../../image/cpio.ts';
import { formatImageManifest } from '../../manifests/image-manifest.ts';
import { findOrUnpackDebian } from './_stage1.ts';

/** The build id is the last thing in the initrd, behind what does not compress. */
const FILLER_BYTES = 3_000_000;

const INIT = `#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
echo "booted: $(/bin/busybox cat /last) with: $(/bin/busybox cat /proc/cmdline)"
while :; do /bin/busybox sleep 1000; done
`;

/** What a guest's console says when an image's init runs. */
export function bootedLine(buildId: string): RegExp {
  return new RegExp(`^booted: ${buildId} with: .*$`);
}

/** @param buildId - 20 hex digits; nothing else tells one image from another */
export async function makeBootImage(folder: string, buildId: string): Promise<BuiltImage> {
  const debian = await findOrUnpackDebian();
  const own = join(folder, buildId);
  await mkdir(own, { recursive: true });
  const kernel = (await readdir(join(debian, 'boot'))).find((name) => name.startsWith('vmlinuz-'));
  if (kernel === undefined) throw new Error(`No kernel in ${debian}/boot`);
  const text = (content: string): Uint8Array => new TextEncoder().encode(content);
  const initrd = encodeCpio([
    { kind: 'directory', path: 'proc', mode: 0o555 },
    { kind: 'character-device', path: 'dev/console', mode: 0o600, major: 5, minor: 1 },
    { kind: 'file', path: 'init', mode: 0o755, content: text(INIT) },
    { kind: 'file', path: 'bin/busybox', mode: 0o755, content: await readFile(join(debian, 'usr/bin/busybox')) },
    { kind: 'file', path: 'filler', mode: 0o644, content: fill(FILLER_BYTES) },
    { kind: 'file', path: 'last', mode: 0o644, content: text(buildId) },
  ]);
  const manifest = formatImageManifest({
    format: 1,
    buildId,
    host: 'boots',
    hostSha256: '0'.repeat(64),
    architecture: 'amd64',
    base: { name: 'debian', version: '13', suite: 'trixie' },
    kernelVersion: kernel.replace('vmlinuz-', ''),
    node: { version: process.version, sha256: '0'.repeat(64) },
    packages: [],
    files: [],
    rootfsBytes: 0,
  });
  await writeFile(join(own, 'initrd'), initrd);
  await writeFile(join(own, 'manifest.json'), manifest);
  return {
    buildId,
    folder: own,
    kernel: join(debian, 'boot', kernel),
    initrd: join(own, 'initrd'),
    manifest: join(own, 'manifest.json'),
    kernelArgs: ['panic=10'],
    sizes: { kernel: 0, initrd: initrd.length, runtime: 0, stage1: 0, payload: 0 },
  };
}

/** The same bytes each time, as good as random. */
function fill(sizeBytes: number): Uint8Array {
  const bytes = Buffer.alloc(sizeBytes);
  for (let at = 0; at < sizeBytes; at += 32) createHash('sha256').update(String(at)).digest().copy(bytes, at);
  return bytes;
}
