/** What a part of an image holds: one file, folder, link or device of a squashfs or a cpio archive. */

export type EntryKind = 'file' | 'directory' | 'symlink' | 'character-device' | 'block-device' | 'fifo' | 'socket';

/** One entry. */
export interface ImageEntry {
  /** From the root, without a leading slash. */
  readonly path: string;
  readonly kind: EntryKind;
  /** Permission bits, with set-uid, set-gid and sticky. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Of a file: bytes of its content; of a link: of its target; else 0. */
  readonly sizeBytes: number;
  /**
   * What its content takes in the image, compressed. Content that comes several times counts where it comes first.
   * Rounded so that the entries of a part and its `overheadBytes` add up to the part, to the byte.
   */
  readonly storedBytes: number;
  /** Of a link. */
  readonly target?: string;
  /** Of a device: major and minor number. */
  readonly device?: readonly [number, number];
  /** A folder that hides what layers below it have in theirs (overlayfs). */
  readonly opaque?: true;
  /** Extended attributes other than overlayfs's own, by name. */
  readonly xattrs?: Readonly<Record<string, string>>;
  /** Reads the content of a file, unpacked. */
  readonly content: () => Uint8Array;
  /** A digest of the content as it is stored: when two have the same, so is the content. Quicker than unpacking. */
  readonly storedDigest: () => string;
}

/** A layer's mark for "this is gone" (Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories"). */
export function isWhiteout(entry: Pick<ImageEntry, 'kind' | 'device'>): boolean {
  return entry.kind === 'character-device' && entry.device?.[0] === 0 && entry.device[1] === 0;
}

/** What a program read of an image that is not as its form says. */
export class ImageFormatError extends Error {
  override readonly name = 'ImageFormatError';
  readonly hint = 'is the file whole, and one that "buildos image build" made? Its SHA256SUMS tells';
}
