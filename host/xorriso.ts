/**
 * xorriso(1): an ISO 9660 image that boots from a CD and, written to a disk as it is, from a USB stick; on BIOS and UEFI.
 *
 * ```
 *   ┌ MBR, GPT ─┬ ISO 9660 tree ── isolinux.bin ── EFI file system ─┬ backup GPT ┐
 *       │                            ▲ El Torito: BIOS  ▲ UEFI
 *       └ isohdpfx: BIOS, from a disk┘                  └ GPT partition: UEFI, from a disk
 * ```
 */
import type { Connection } from '../connections/connection.ts';

/** Of Debian's package `isolinux`: what a BIOS runs when the image is on a disk. */
const ISO_HYBRID_MBR = '/usr/lib/ISOLINUX/isohdpfx.bin';

/** The image; paths of boot programs are below `tree`. */
export interface BootableIso {
  /** The folder that becomes the file system. */
  readonly tree: string;
  readonly output: string;
  readonly volumeId: string;
  /** ISOLINUX, which gets its own place written into it. */
  readonly bios: string;
  /** A FAT file system with `EFI/BOOT/BOOTX64.EFI` in it. */
  readonly efi: string;
  /** Of the partition table. */
  readonly diskGuid: string;
  /** All times in it, in seconds since 1970. */
  readonly timeSeconds: number;
}

/** Writes the image; the same tree gives the same bytes. @throws {CommandError} */
export async function makeBootableIso(on: Connection, iso: BootableIso): Promise<void> {
  await on.run(
    [
      ['xorriso', '-as', 'mkisofs', '-quiet', '-iso-level', '3', '-volid', iso.volumeId, '-output', iso.output],
      ['-eltorito-boot', iso.bios, '-eltorito-catalog', 'boot.cat'],
      ['-no-emul-boot', '-boot-load-size', '4', '-boot-info-table'],
      ['-eltorito-alt-boot', '-e', iso.efi, '-no-emul-boot'],
      ['-isohybrid-mbr', ISO_HYBRID_MBR, '-isohybrid-gpt-basdat', '--gpt_disk_guid', iso.diskGuid],
      // SOURCE_DATE_EPOCH is for what has no date of its own.
      ['--set_all_file_dates', `=${iso.timeSeconds}`],
      [iso.tree],
    ].flat(),
    { timeoutMs: 10 * 60_000, env: { SOURCE_DATE_EPOCH: String(iso.timeSeconds) } },
  );
}
