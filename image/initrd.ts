/**
 * The initrd: three cpio segments one after the other, as the kernel unpacks them.
 *
 * ```
 *   ┌─ runtime ── zstd ─┬─ stage 1 ── zstd ──┬─ payload ── as it is ─────────┐
 *   │ node, its         │ init, modules      │ payload.json, root.squashfs   │
 *   │ libraries, busybox│                    │ (compressed in itself)        │
 *   └───────────────────┴────────────────────┴───────────────────────────────┘
 * ```
 *
 * The order is that of change: the runtime changes with Node, stage 1 with our code, the payload with anything. A file
 * cut short loses the end of the payload first, which init notices and names; without init nobody could.
 *
 * Node is in here once. init binds this very file over the empty `/usr/lib/buildos/node` of the root: neither sent nor
 * held twice (the file in the initramfs lives on under the bind after switch_root has removed its name).
 */
import { promisify } from 'node:util';
import { constants, zstdCompress } from 'node:zlib';
import { type CpioEntry, encodeCpio } from './cpio.ts';

/** zstd -9 packs Node to 35 MB in 2 s; -19 gets 31 MB for 60 s. */
const ZSTD_LEVEL = 9;

/** Segments after this boundary are found by the kernel (init/initramfs.c skips zeros up to a multiple of 4). */
const SEGMENT_ALIGNMENT = 4;

const compress = promisify(zstdCompress);

/** What the runtime segment needs. */
export interface RuntimeFiles {
  readonly node: Uint8Array;
  /** `busybox-static`: insmod, losetup, mount, switch_root and the rescue shell. */
  readonly busybox: Uint8Array;
  /** The dynamic loader, for the path that is written into the node binary. */
  readonly loader: { readonly path: string; readonly content: Uint8Array };
  /** Shared libraries by name, such as `libc.so.6`. */
  readonly libraries: ReadonlyMap<string, Uint8Array>;
}

/** What the stage 1 segment needs. */
export interface Stage1Files {
  /** The bundled `init/main.ts`; its first line is `#!/bin/node`. */
  readonly init: Uint8Array;
  /** Kernel modules, unpacked, in the order in which they are loaded. */
  readonly modules: readonly { readonly name: string; readonly content: Uint8Array }[];
}

/** The runtime segment, compressed. The same input gives the same bytes. */
export async function packRuntime(files: RuntimeFiles): Promise<Uint8Array> {
  const entries: CpioEntry[] = [
    { kind: 'directory', path: 'dev', mode: 0o755 },
    // The kernel opens it for PID 1 before anything is mounted; without it init could not say a word.
    { kind: 'character-device', path: 'dev/console', mode: 0o600, major: 5, minor: 1 },
    // What Node opens when there is no console at all.
    { kind: 'character-device', path: 'dev/null', mode: 0o666, major: 1, minor: 3 },
    { kind: 'directory', path: 'proc', mode: 0o555 },
    { kind: 'directory', path: 'sys', mode: 0o555 },
    { kind: 'directory', path: 'run', mode: 0o755 },
    { kind: 'directory', path: 'tmp', mode: 0o1777 },
    { kind: 'file', path: 'bin/busybox', mode: 0o755, content: files.busybox },
    { kind: 'symlink', path: 'bin/sh', target: 'busybox' },
    { kind: 'file', path: files.loader.path, mode: 0o755, content: files.loader.content },
    ...[...files.libraries].map(
      ([name, content]) => ({ kind: 'file', path: `lib/${name}`, mode: 0o644, content }) as const,
    ),
    { kind: 'file', path: 'bin/node', mode: 0o755, content: files.node },
  ];
  return await compressSegment(encodeCpio(entries));
}

/** The stage 1 segment, compressed. */
export async function packStage1(files: Stage1Files): Promise<Uint8Array> {
  const encoder = new TextEncoder();
  const entries: CpioEntry[] = [
    { kind: 'file', path: 'init', mode: 0o755, content: files.init },
    { kind: 'file', path: 'package.json', mode: 0o644, content: encoder.encode('{"type":"module"}\n') },
    {
      kind: 'file',
      path: 'modules/load',
      mode: 0o644,
      content: encoder.encode(files.modules.map((module) => `${module.name}\n`).join('')),
    },
    ...files.modules.map(
      (module) => ({ kind: 'file', path: `modules/${module.name}`, mode: 0o644, content: module.content }) as const,
    ),
  ];
  return await compressSegment(encodeCpio(entries));
}

/** The payload segment: not compressed, since the squashfs is. `payloadJson` is read by init. */
export function packPayload(files: { readonly squashfs: Uint8Array; readonly payloadJson: string }): Uint8Array {
  return encodeCpio([
    { kind: 'file', path: 'buildos/payload.json', mode: 0o644, content: new TextEncoder().encode(files.payloadJson) },
    { kind: 'file', path: 'buildos/root.squashfs', mode: 0o644, content: files.squashfs },
  ]);
}

async function compressSegment(archive: Uint8Array): Promise<Uint8Array> {
  const packed = await compress(archive, {
    params: {
      [constants.ZSTD_c_compressionLevel]: ZSTD_LEVEL,
      [constants.ZSTD_c_checksumFlag]: 1,
    },
  });
  const rest = packed.length % SEGMENT_ALIGNMENT;
  if (rest === 0) return packed;
  const aligned = new Uint8Array(packed.length + SEGMENT_ALIGNMENT - rest);
  aligned.set(packed);
  return aligned;
}
