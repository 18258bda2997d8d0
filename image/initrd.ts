/**
 * The initrd: cpio segments one after the other, as the kernel unpacks them.
 *
 * ```
 *   ┌─ tools ──── zstd ─┬─ stage 1 ── zstd ─┬─ Node ────────┬─ layer 1 ──────────┬─ layer 2 ─┬─ … as they are,
 *   │ busybox, Node's   │ init, modules,    │ node.squashfs │ layer-1.squashfs:  │ what is   │    compressed
 *   │ libraries         │ payload.json      │               │ the packages       │ above it  │    in themselves
 *   └───────────────────┴───────────────────┴───────────────┴────────────────────┴───────────┴────────────────
 * ```
 *
 * The segments are kept by what they are made from, so one that did not change is taken as it is. A file cut short loses
 * the end of the layers first, which init notices (payload.json says what there must be), or Node, which first-steps.sh does.
 *
 * Node is in here once. init binds it over the empty `/usr/lib/buildos/node` of the root: neither sent nor held twice. In a
 * file system of its own it is unpacked as far as it is used, and what is unpacked can be dropped again (docs/decisions/016).
 */
import { promisify } from 'node:util';
import { constants, zstdCompress } from 'node:zlib';
import { type CpioEntry, encodeCpio, encodeCpioParts } from './cpio.ts';

/** A tenth larger than the highest level, and packed in a tenth of the time. */
const ZSTD_LEVEL = 9;

/** Segments after this boundary are found by the kernel (init/initramfs.c skips zeros up to a multiple of 4). */
const SEGMENT_ALIGNMENT = 4;

const compress = promisify(zstdCompress);

/** What the segment of tools needs. */
export interface ToolFiles {
  /** `busybox-static`: insmod, mount, switch_root and the rescue shell. */
  readonly busybox: Uint8Array;
  /** The dynamic loader, for the path that is written into the node binary. */
  readonly loader: { readonly path: string; readonly content: Uint8Array };
  /** Shared libraries that Node needs, by name, such as `libc.so.6`. */
  readonly libraries: ReadonlyMap<string, Uint8Array>;
}

/** What the stage 1 segment needs. */
export interface Stage1Files {
  /** `init/first-steps.sh`, which the kernel runs. */
  readonly firstSteps: Uint8Array;
  /** `init/rescue.sh`. */
  readonly rescue: Uint8Array;
  /** The bundled `init/main.ts`. */
  readonly init: Uint8Array;
  readonly payload: Payload;
  /** Kernel modules, unpacked, in the order in which they are loaded. */
  readonly modules: readonly { readonly name: string; readonly content: Uint8Array }[];
}

/** `/buildos/payload.json`, which init reads: the layers of the root, the lowest first. */
export interface Payload {
  readonly buildId: string;
  readonly layers: { readonly name: string; readonly size: number; readonly sha256: string }[];
}

/** The segment of tools, compressed. The same input gives the same bytes. */
export async function packTools(files: ToolFiles): Promise<Uint8Array> {
  const entries: CpioEntry[] = [
    { kind: 'directory', path: 'dev', mode: 0o755 },
    // The kernel opens it for PID 1 before anything is mounted; without it init could not say a word.
    { kind: 'character-device', path: 'dev/console', mode: 0o600, major: 5, minor: 1 },
    // What Node opens when there is no console at all.
    { kind: 'character-device', path: 'dev/null', mode: 0o666, major: 1, minor: 3 },
    { kind: 'directory', path: 'node', mode: 0o755 },
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
  ];
  return await compressSegment(encodeCpio(entries));
}

/** The stage 1 segment, compressed. */
export async function packStage1(files: Stage1Files): Promise<Uint8Array> {
  const text = (content: string): Uint8Array => new TextEncoder().encode(content);
  const entries: CpioEntry[] = [
    { kind: 'file', path: 'init', mode: 0o755, content: files.firstSteps },
    { kind: 'file', path: 'rescue.sh', mode: 0o644, content: files.rescue },
    { kind: 'file', path: 'main.mjs', mode: 0o644, content: files.init },
    { kind: 'file', path: 'buildos/payload.json', mode: 0o644, content: text(`${JSON.stringify(files.payload)}\n`) },
    {
      kind: 'file',
      path: 'modules/load',
      mode: 0o644,
      content: text(files.modules.map((module) => `${module.name}\n`).join('')),
    },
    ...files.modules.map(
      (module) => ({ kind: 'file', path: `modules/${module.name}`, mode: 0o644, content: module.content }) as const,
    ),
  ];
  return await compressSegment(encodeCpio(entries));
}

/**
 * The segment of a file system, Node's or a layer's: not compressed, since the squashfs is. In pieces, to be written one after
 * the other; the squashfs, or what stands for it, is one of them.
 */
export function packSystem<Content extends { readonly length: number }>(system: {
  readonly name: string;
  readonly squashfs: Content;
}): (Uint8Array | Content)[] {
  return encodeCpioParts([{ kind: 'file', path: `buildos/${system.name}`, mode: 0o644, content: system.squashfs }]);
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
