/**
 * Tar archives in memory: what is in one, and members to put into another.
 *
 * ```
 *   ┌────────────┬───────────────┬────────────┬────────────┬─┄
 *   │ long names │ header (512)  │ content    │ up to 512  │ next member
 *   │ (optional) │ ustar or GNU  │            │            │
 *   └────────────┴───────────────┴────────────┴────────────┴─┄      end: two blocks of zeros
 *   start                                                  end
 * ```
 *
 * tar(5), POSIX.1-2017 pax "ustar Interchange Format". Left out: sparse files and archives in parts, which no package is.
 */

/** A header; the content after it is filled up to so many. */
export const BLOCK_BYTES = 512;

/** What ends an archive. */
export const END_OF_ARCHIVE: Uint8Array = new Uint8Array(2 * BLOCK_BYTES);

/** One member, with its place in the archive. */
export interface TarMember {
  /** Without `./` and without a slash at either end; empty for the folder that the archive is of. */
  readonly path: string;
  readonly type: 'file' | 'hard link' | 'symlink' | 'directory' | 'other';
  /** Permissions, 0 to 0o7777. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Of links: as written; of hard links in the form of `path`. */
  readonly target: string;
  /** Bytes of the archive that are this member, with all that goes before its header. */
  readonly start: number;
  readonly end: number;
  readonly content: Uint8Array;
}

const TYPES: Readonly<Record<string, TarMember['type']>> = {
  '\0': 'file',
  '0': 'file',
  '7': 'file',
  '1': 'hard link',
  '2': 'symlink',
  '5': 'directory',
};

/**
 * Reads an archive.
 *
 * @throws {RangeError} when it is cut off, or a header's sum is wrong
 */
export function readTar(archive: Uint8Array): TarMember[] {
  const bytes = Buffer.from(archive.buffer, archive.byteOffset, archive.byteLength);
  const members: TarMember[] = [];
  let long: Readonly<Record<string, string>> = {};
  let start = 0;
  for (let at = 0; at + BLOCK_BYTES <= bytes.length;) {
    const header = bytes.subarray(at, at + BLOCK_BYTES);
    if (header.every((byte) => byte === 0)) return members;
    checkSum(header, at);
    const letter = String.fromCharCode(header[156] ?? 0);
    const sizeBytes = long['size'] === undefined ? numberAt(header, 124, 12) : Number(long['size']);
    const from = at + BLOCK_BYTES;
    const end = from + roundUp(sizeBytes);
    if (end > bytes.length) throw new RangeError(`The archive is cut off in the member at byte ${at}`);
    const content = bytes.subarray(from, from + sizeBytes);
    at = end;
    if ('LKxg'.includes(letter)) {
      long = { ...long, ...namesIn(letter, content) };
      continue;
    }
    const type = TYPES[letter] ?? 'other';
    const target = long['linkpath'] ?? textAt(header, 157, 100);
    members.push({
      path: plain(long['path'] ?? nameOf(header)),
      type,
      mode: numberAt(header, 100, 8) & 0o7777,
      uid: Number(long['uid'] ?? numberAt(header, 108, 8)),
      gid: Number(long['gid'] ?? numberAt(header, 116, 8)),
      target: type === 'hard link' ? plain(target) : target,
      start,
      end,
      content,
    });
    start = end;
    long = {};
  }
  throw new RangeError('The archive is cut off: its end is missing');
}

/**
 * A file as a member: header and content, of root.
 *
 * @param path - below the folder that the archive is of; at most 98 bytes after its last slash, and 155 before
 * @throws {RangeError} when the path is longer
 */
export function tarFile(
  path: string,
  content: Uint8Array,
  options: { readonly mode: number; readonly timeSeconds: number },
): Uint8Array {
  const full = Buffer.from(`./${path}`);
  const slash = full.length <= 100 ? -1 : full.lastIndexOf('/', 155);
  const name = full.subarray(slash + 1);
  if (name.length > 100) throw new RangeError(`The path is too long for an archive: ${path}`);
  const member = Buffer.alloc(BLOCK_BYTES + roundUp(content.length));
  member.set(name, 0);
  const fields: readonly (readonly [at: number, text: string])[] = [
    [100, octal(options.mode, 7)],
    [108, octal(0, 7)],
    [116, octal(0, 7)],
    [124, octal(content.length, 11)],
    [136, octal(options.timeSeconds, 11)],
    [148, ' '.repeat(8)],
    [156, '0'],
    [257, 'ustar\x0000'],
  ];
  for (const [at, text] of fields) member.write(text, at, 'latin1');
  if (slash > 0) member.set(full.subarray(0, slash), 345);
  member.write(`${octal(sumOf(member.subarray(0, BLOCK_BYTES)), 6)}\0 `, 148, 'latin1');
  member.set(content, BLOCK_BYTES);
  return member;
}

/** Bytes of an archive from a header to the next one; pax sizes, for 8 GiB and more, are not looked at. */
export function memberBytes(header: Uint8Array): number {
  const sizeBytes = numberAt(Buffer.from(header.buffer, header.byteOffset, header.byteLength), 124, 12);
  if (!(sizeBytes >= 0)) throw new RangeError('The archive is damaged: a header without a size');
  return BLOCK_BYTES + roundUp(sizeBytes);
}

const roundUp = (bytes: number): number => Math.ceil(bytes / BLOCK_BYTES) * BLOCK_BYTES;

const octal = (value: number, digits: number): string => value.toString(8).padStart(digits, '0');

function sumOf(header: Uint8Array): number {
  let sum = 0;
  for (const byte of header) sum += byte;
  return sum;
}

/** The sum counts its own eight bytes as spaces. */
function checkSum(header: Buffer, at: number): void {
  const own = sumOf(header.subarray(148, 156));
  if (sumOf(header) - own + 8 * 0x20 === numberAt(header, 148, 8)) return;
  throw new RangeError(`The archive is damaged: the sum of the header at byte ${at} is wrong`);
}

function textAt(header: Buffer, at: number, sizeBytes: number): string {
  const field = header.subarray(at, at + sizeBytes);
  const end = field.indexOf(0);
  return field.toString('utf8', 0, end === -1 ? field.length : end);
}

/** Octal digits; or, for what is too large, a set first bit and then binary (GNU). */
function numberAt(header: Buffer, at: number, sizeBytes: number): number {
  if (((header[at] ?? 0) & 0x80) === 0) return Number.parseInt(textAt(header, at, sizeBytes).trim() || '0', 8);
  return header.readUIntBE(at + sizeBytes - 6, 6);
}

function nameOf(header: Buffer): string {
  const name = textAt(header, 0, 100);
  const prefix = header.toString('latin1', 257, 263) === 'ustar\0' ? textAt(header, 345, 155) : '';
  return prefix === '' ? name : `${prefix}/${name}`;
}

/** Names that do not fit into a header: GNU's `L` and `K`, or records `27 path=name\n` of pax. */
function namesIn(letter: string, content: Buffer): Readonly<Record<string, string>> {
  if (letter === 'L') return { path: content.toString('utf8').replace(/\0+$/, '') };
  if (letter === 'K') return { linkpath: content.toString('utf8').replace(/\0+$/, '') };
  const records: Record<string, string> = {};
  if (letter !== 'x') return records;
  for (let at = 0; at < content.length;) {
    const space = content.indexOf(0x20, at);
    const length = Number(content.toString('latin1', at, space));
    if (space === -1 || !(length > 0)) throw new RangeError('The archive is damaged: a pax record without a length');
    const [, key = '', value = ''] =
      /^([^=]*)=([\s\S]*)\n$/.exec(content.toString('utf8', space + 1, at + length)) ?? [];
    records[key] = value;
    at += length;
  }
  return records;
}

const plain = (name: string): string =>
  name
    .replace(/^(\.?\/)+/, '')
    .replace(/\/+$/, '')
    .replace(/^\.$/, '');
