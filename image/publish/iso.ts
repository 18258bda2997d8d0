/**
 * A bootable ISO 9660 image: a CD, or a USB stick when it is written to one as it is; BIOS and UEFI.
 *
 * ```
 *   ISO 9660 ─┬ isolinux.bin, ldlinux.c32, isolinux.cfg     BIOS
 *             ├ efi.img ── FAT ── EFI/BOOT/BOOTX64.EFI      UEFI: the unified kernel image, signed or not
 *             │                       ├ .linux  ◄┐
 *             │                       └ .initrd ◄┼┐
 *             ├ buildos-image ───────────────────┘│
 *             └ buildos-initrd ───────────────────┘
 * ```
 *
 * Kernel and initrd are in it once: the directory entries that ISOLINUX follows point into the unified kernel image.
 *
 * Sources: ECMA-119 §9.1 (directory records); syslinux `doc/isolinux.txt`.
 */
import { createReadStream, createWriteStream } from 'node:fs';
import { copyFile, mkdir, open, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import type { Connection } from '../../connections/connection.ts';
import { makeBootableIso } from '../../host/xorriso.ts';
import { layOutFat } from './fat.ts';
import { type SectionPlace, findSection } from './uki.ts';

/** Of Debian's packages `isolinux` and `syslinux-common`. */
const ISOLINUX = ['/usr/lib/ISOLINUX/isolinux.bin', '/usr/lib/syslinux/modules/bios/ldlinux.c32'] as const;

const EFI_IMAGE = 'efi.img';
const BLOCK_BYTES = 2048;
/** Block 16 of an ISO 9660 image describes it; its root directory's record is in there. */
const VOLUME_DESCRIPTOR = 16 * BLOCK_BYTES;
const ROOT_RECORD = 156;
/** All headers of a program are in its beginning. */
const HEADERS_BYTES = 4096;
/** 1 January 1980: the first day that FAT knows. */
const TIME_SECONDS = 315_532_800;

export interface IsoOptions {
  /** A unified kernel image, signed or not. */
  readonly uki: string;
  readonly buildId: string;
  /** For BIOS; UEFI takes those in the unified kernel image. */
  readonly kernelArgs: readonly string[];
  readonly output: string;
  /** For parts of the image; removed at the end. It takes as much room as the image. */
  readonly scratch: string;
}

/** An image that cannot be put together. */
export class IsoError extends Error {
  override readonly name = 'IsoError';
  readonly hint = 'this is a defect of Build OS, or xorriso writes images of another form: compare its version';
}

/** Writes the image. The same unified kernel image and arguments give the same bytes. */
export async function writeIso(on: Connection, options: IsoOptions): Promise<void> {
  const { uki, buildId, output, scratch } = options;
  const tree = join(scratch, 'tree');
  await mkdir(tree, { recursive: true });
  try {
    for (const file of ISOLINUX) await copyFile(file, join(tree, file.split('/').at(-1) ?? ''));
    await writeFile(join(tree, 'isolinux.cfg'), formatIsolinux(options));
    for (const name of ['buildos-image', 'buildos-initrd']) await writeFile(join(tree, name), '-');
    const ukiStart = await writeEfiImage(join(tree, EFI_IMAGE), uki, Number.parseInt(buildId.slice(0, 8), 16));
    await makeBootableIso(on, {
      tree,
      output,
      volumeId: 'BUILDOS',
      bios: 'isolinux.bin',
      efi: EFI_IMAGE,
      diskGuid: formatGuid(buildId),
      timeSeconds: TIME_SECONDS,
    });
    await shareParts(output, uki, ukiStart);
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

function formatIsolinux({ buildId, kernelArgs }: IsoOptions): string {
  return [
    `# Build OS ${buildId}`,
    'DEFAULT buildos',
    'PROMPT 0',
    'LABEL buildos',
    '  KERNEL /buildos-image',
    '  INITRD /buildos-initrd',
    `  APPEND ${kernelArgs.join(' ')}`,
    '',
  ].join('\n');
}

/** Writes the EFI file system. @returns where in it the unified kernel image begins */
async function writeEfiImage(file: string, uki: string, serial: number): Promise<number> {
  await using source = await open(uki);
  const { size } = await source.stat();
  const { head, tailBytes } = layOutFat({ path: ['EFI', 'BOOT', 'BOOTX64.EFI'], sizeBytes: size, serial });
  await writeFile(file, head);
  await pipeline(createReadStream(uki), createWriteStream(file, { flags: 'a' }));
  await using target = await open(file, 'r+');
  await target.truncate(head.length + size + tailBytes);
  return head.length;
}

/** Makes two files of the image what they are in the unified kernel image. */
async function shareParts(iso: string, uki: string, ukiStart: number): Promise<void> {
  const headers = Buffer.alloc(HEADERS_BYTES);
  await using program = await open(uki);
  await program.read(headers, 0, HEADERS_BYTES, 0);
  await using image = await open(iso, 'r+');
  const descriptor = await readAt(image, VOLUME_DESCRIPTOR, BLOCK_BYTES);
  const root = readRecord(descriptor, ROOT_RECORD);
  const directory = await readAt(image, root.offset, root.sizeBytes);
  const { offset } = readRecord(directory, findRecord(directory, EFI_IMAGE));
  for (const [name, section] of [
    ['buildos-image', '.linux'],
    ['buildos-initrd', '.initrd'],
  ] as const) {
    const part = findSection(headers, section);
    const at = findRecord(directory, name);
    writeRecord(directory, at, { offset: offset + ukiStart + part.offset, sizeBytes: part.sizeBytes });
  }
  await image.write(directory, 0, directory.length, root.offset);
  await image.sync();
}

async function readAt(
  file: { read(buffer: Buffer, offset: number, length: number, position: number): Promise<unknown> },
  position: number,
  length: number,
): Promise<Buffer> {
  const bytes = Buffer.alloc(length);
  await file.read(bytes, 0, length, position);
  return bytes;
}

/**
 * Where in a directory the record of a file is. Its plain name is in capitals, with a version: `BUILDOS_IMAGE.;1`; what users see is
 * in its Rock Ridge entry (SUSP 1.12: `NM`, length, version, flags, name).
 *
 * @throws {IsoError}
 */
function findRecord(directory: Buffer, name: string): number {
  for (let at = 0; at < directory.length;) {
    const length = directory.readUInt8(at);
    // Records do not cross blocks: the rest of this one is empty.
    if (length === 0) {
      at = (Math.floor(at / BLOCK_BYTES) + 1) * BLOCK_BYTES;
      continue;
    }
    const record = directory.toString('latin1', at, at + length);
    if (record.includes(`NM${String.fromCodePoint(5 + name.length, 1, 0)}${name}`)) return at;
    at += length;
  }
  throw new IsoError(`Cannot find ${name} in the root directory that xorriso wrote`);
}

/** A record's extent: block and length, each as a little-endian and a big-endian number. */
function readRecord(bytes: Buffer, at: number): SectionPlace {
  return { offset: bytes.readUInt32LE(at + 2) * BLOCK_BYTES, sizeBytes: bytes.readUInt32LE(at + 10) };
}

function writeRecord(bytes: Buffer, at: number, { offset, sizeBytes }: SectionPlace): void {
  if (offset % BLOCK_BYTES !== 0) throw new IsoError(`Cannot share bytes from ${offset} on: not where a block begins`);
  bytes.writeUInt32LE(offset / BLOCK_BYTES, at + 2);
  bytes.writeUInt32BE(offset / BLOCK_BYTES, at + 6);
  bytes.writeUInt32LE(sizeBytes, at + 10);
  bytes.writeUInt32BE(sizeBytes, at + 14);
}

/** A GUID from the build id, so that the same image has the same. Version 8, of RFC 9562: of our own making. */
function formatGuid(buildId: string): string {
  const digits = buildId.padEnd(32, '0');
  return [
    digits.slice(0, 8),
    digits.slice(8, 12),
    `8${digits.slice(12, 15)}`,
    `8${digits.slice(15, 18)}`,
    digits.slice(18, 30),
  ].join('-');
}
