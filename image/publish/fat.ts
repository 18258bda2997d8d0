/**
 * A FAT16 file system that holds one file: what UEFI firmware reads a boot program from, on a CD or a stick.
 *
 * ```
 *   sector 0   4 (…)            …                     …                       clusters 2, 3, …
 *   ┌ boot ────┬ FAT ───────────┬ FAT, again ─────────┬ root, 512 entries ────┬ EFI/ ┬ BOOT/ ┬ the file, in one piece ┐
 * ```
 *
 * Source: Microsoft's "FAT32 File System Specification" 1.03, which holds for FAT16; UEFI 2.10 §13.3. The file begins at a multiple
 * of 4096 bytes, so that ranges of it can be files of a file system around this one.
 */

const SECTOR_BYTES = 512;
const ALIGNMENT_BYTES = 4096;
const ROOT_ENTRIES = 512;
const ENTRY_BYTES = 32;
/** More clusters would be FAT32, fewer FAT12. */
const MAX_CLUSTERS = 65_524;
const MIN_CLUSTERS = 4085;
const MIN_CLUSTER_BYTES = 4096;
const MAX_CLUSTER_BYTES = 32_768;
const DIRECTORY = 0x10;
const ARCHIVE = 0x20;
const VOLUME_LABEL = 0x08;
const END_OF_CHAIN = 0xffff;
/** 1 January 1980, the first day that FAT knows. */
const DATE = (1 << 5) | 1;

/** What comes before the file, and after it. */
export interface FatLayout {
  readonly head: Buffer;
  /** Zeros that follow the file. */
  readonly tailBytes: number;
}

/** The file. */
export interface FatFile {
  /** Folders and name, each 8.3 and upper case: `['EFI', 'BOOT', 'BOOTX64.EFI']`. */
  readonly path: readonly string[];
  readonly sizeBytes: number;
  /** A serial number of 32 bits. */
  readonly serial: number;
}

/** Everything of the file system but the file's content. @throws {RangeError} when the file is larger than FAT16 can hold: 2 GiB */
export function layOutFat(file: FatFile): FatLayout {
  const folders = file.path.slice(0, -1);
  const clusterBytes = findClusterBytes(file.sizeBytes, folders.length);
  const fileClusters = Math.max(1, Math.ceil(file.sizeBytes / clusterBytes));
  // A file system of fewer clusters would be taken for FAT12: the rest is free.
  const clusters = Math.max(MIN_CLUSTERS, folders.length + fileClusters);
  const fatBytes = roundUp((clusters + 2) * 2, ALIGNMENT_BYTES);
  const rootBytes = ROOT_ENTRIES * ENTRY_BYTES;
  const rootStart = ALIGNMENT_BYTES + 2 * fatBytes;
  const dataStart = rootStart + rootBytes;
  const head = Buffer.alloc(dataStart + folders.length * clusterBytes);
  const totalBytes = dataStart + clusters * clusterBytes;

  writeBootSector(head, { clusterBytes, fatBytes, totalBytes, serial: file.serial });
  const fileStart = 2 + folders.length;
  for (const fat of [ALIGNMENT_BYTES, ALIGNMENT_BYTES + fatBytes]) {
    head.writeUInt16LE(0xfff8, fat);
    head.writeUInt16LE(END_OF_CHAIN, fat + 2);
    for (let index = 0; index < folders.length; index += 1) head.writeUInt16LE(END_OF_CHAIN, fat + 2 * (2 + index));
    for (let index = 0; index < fileClusters; index += 1) {
      const next = index === fileClusters - 1 ? END_OF_CHAIN : fileStart + index + 1;
      head.writeUInt16LE(next, fat + 2 * (fileStart + index));
    }
  }
  writeEntry(head, rootStart, { name: 'BUILDOS', attributes: VOLUME_LABEL, cluster: 0, sizeBytes: 0 });
  for (const [index, name] of file.path.entries()) {
    const isFile = index === folders.length;
    const at = index === 0 ? rootStart + ENTRY_BYTES : dataStart + (index - 1) * clusterBytes + 2 * ENTRY_BYTES;
    writeEntry(head, at, {
      name,
      attributes: isFile ? ARCHIVE : DIRECTORY,
      cluster: 2 + index,
      sizeBytes: isFile ? file.sizeBytes : 0,
    });
    if (isFile) continue;
    const folder = dataStart + index * clusterBytes;
    writeEntry(head, folder, { name: '.', attributes: DIRECTORY, cluster: 2 + index, sizeBytes: 0 });
    // The root is cluster 0.
    const above = index === 0 ? 0 : 1 + index;
    writeEntry(head, folder + ENTRY_BYTES, { name: '..', attributes: DIRECTORY, cluster: above, sizeBytes: 0 });
  }
  return { head, tailBytes: totalBytes - head.length - file.sizeBytes };
}

function findClusterBytes(sizeBytes: number, folders: number): number {
  for (let bytes = MIN_CLUSTER_BYTES; bytes <= MAX_CLUSTER_BYTES; bytes *= 2) {
    if (folders + Math.ceil(sizeBytes / bytes) <= MAX_CLUSTERS) return bytes;
  }
  throw new RangeError(`Cannot lay out a FAT16 file system for a file of ${sizeBytes} bytes: 2 GiB is all it can hold`);
}

function writeBootSector(
  head: Buffer,
  what: {
    readonly clusterBytes: number;
    readonly fatBytes: number;
    readonly totalBytes: number;
    readonly serial: number;
  },
): void {
  const sectors = what.totalBytes / SECTOR_BYTES;
  // A jump over the table, to an endless loop: a BIOS that starts it stays there.
  head.set([0xeb, 0x3c, 0x90], 0);
  head.write('BUILDOS ', 3, 'latin1');
  head.writeUInt16LE(SECTOR_BYTES, 11);
  head.writeUInt8(what.clusterBytes / SECTOR_BYTES, 13);
  head.writeUInt16LE(ALIGNMENT_BYTES / SECTOR_BYTES, 14);
  head.writeUInt8(2, 16);
  head.writeUInt16LE(ROOT_ENTRIES, 17);
  head.writeUInt16LE(sectors < 0x1_0000 ? sectors : 0, 19);
  head.writeUInt8(0xf8, 21);
  head.writeUInt16LE(what.fatBytes / SECTOR_BYTES, 22);
  head.writeUInt16LE(63, 24);
  head.writeUInt16LE(255, 26);
  head.writeUInt32LE(sectors < 0x1_0000 ? 0 : sectors, 32);
  head.writeUInt8(0x80, 36);
  head.writeUInt8(0x29, 38);
  head.writeUInt32LE(what.serial >>> 0, 39);
  head.write('BUILDOS    FAT16   ', 43, 'latin1');
  head.set([0xeb, 0xfe], 62);
  head.set([0x55, 0xaa], 510);
}

function writeEntry(
  head: Buffer,
  at: number,
  entry: { readonly name: string; readonly attributes: number; readonly cluster: number; readonly sizeBytes: number },
): void {
  const [base = '', extension = ''] = entry.name.startsWith('.') ? [entry.name] : entry.name.split('.');
  head.write(base.padEnd(8) + extension.padEnd(3), at, 'latin1');
  head.writeUInt8(entry.attributes, at + 11);
  for (const date of [16, 18, 24]) head.writeUInt16LE(DATE, at + date);
  head.writeUInt16LE(entry.cluster, at + 26);
  head.writeUInt32LE(entry.sizeBytes, at + 28);
}

function roundUp(value: number, alignment: number): number {
  return Math.ceil(value / alignment) * alignment;
}
