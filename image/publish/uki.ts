/**
 * A unified kernel image: one EFI program that holds kernel, initrd and kernel command line, so that one signature covers
 * all three. Firmware loads it by itself, from a disk, over PXE or over HTTP.
 *
 * ```
 *   ┌ systemd-stub ─ .text .data … ┬ .osrel ┬ .cmdline ┬ .linux ┬ .initrd ┐
 * ```
 *
 * Sources: systemd-stub(7); the UAPI group's "Unified Kernel Image"; Microsoft's "PE Format". Under Secure Boot the stub
 * takes its own command line only, so per-host options have to be in a document that `buildos.config_url` names.
 */

/** What goes in. */
export interface UkiParts {
  /** `linuxx64.efi.stub` of systemd (Debian package `systemd-boot-efi`). */
  readonly stub: Uint8Array;
  readonly kernel: Uint8Array;
  readonly initrd: Uint8Array;
  readonly kernelArgs: readonly string[];
  /** What boot menus show. */
  readonly title: string;
  readonly buildId: string;
}

/** A stub that cannot take the sections. */
export class StubError extends Error {
  override readonly name = 'StubError';
  readonly hint = 'give linuxx64.efi.stub of systemd 252 or newer, from the package systemd-boot-efi';
}

/** A section to be added. */
export interface PeSection {
  /** At most 8 characters. */
  readonly name: string;
  readonly content: Uint8Array;
}

const SECTION_HEADER_BYTES = 40;
const SECTION_NAME_BYTES = 8;
/** The stub maps its sections by pages, whatever alignment its header says. */
const PAGE_BYTES = 4096;
/** IMAGE_SCN_CNT_INITIALIZED_DATA | IMAGE_SCN_MEM_READ. */
const SECTION_FLAGS = 0x4000_0040;
const PE32_PLUS = 0x20b;

/** Makes a unified kernel image, not signed. The same parts give the same bytes. @throws {StubError} */
export function buildUki(parts: UkiParts): Buffer {
  const encoder = new TextEncoder();
  const release = [
    'ID=buildos',
    `NAME="Build OS"`,
    `PRETTY_NAME="${parts.title}"`,
    `VERSION_ID=${parts.buildId}`,
    `IMAGE_VERSION=${parts.buildId}`,
    '',
  ].join('\n');
  return appendSections(parts.stub, [
    { name: '.osrel', content: encoder.encode(release) },
    { name: '.cmdline', content: encoder.encode(`${parts.kernelArgs.join(' ')}\0`) },
    { name: '.linux', content: parts.kernel },
    { name: '.initrd', content: parts.initrd },
  ]);
}

/**
 * Adds sections of data behind those of an EFI program.
 *
 * @throws {StubError} when it is no PE32+ image, is signed, or has no room for more section headers
 */
export function appendSections(program: Uint8Array, sections: readonly PeSection[]): Buffer {
  const whole = Buffer.from(program);
  const coff = findCoffHeader(whole);
  const image = whole.subarray(0, dropSymbols(whole, coff));
  const optional = coff + 20;
  const count = image.readUInt16LE(coff + 2);
  const table = optional + image.readUInt16LE(coff + 16);
  const fileAlignment = image.readUInt32LE(optional + 36);
  const align = Math.max(PAGE_BYTES, image.readUInt32LE(optional + 32));
  const headersEnd = image.readUInt32LE(optional + 60);
  if (table + (count + sections.length) * SECTION_HEADER_BYTES > headersEnd) {
    throw new StubError(
      `Cannot add ${sections.length} sections to the stub: no room in its ${headersEnd} bytes of headers`,
    );
  }
  // Data directory 4 holds a signature, which would have to stay at the end and would be wrong.
  if (image.readUInt32LE(optional + 112 + 4 * 8) !== 0)
    throw new StubError('Cannot add sections to the stub: it is signed');

  let address = 0;
  for (let index = 0; index < count; index += 1) {
    const header = table + index * SECTION_HEADER_BYTES;
    address = Math.max(address, image.readUInt32LE(header + 12) + image.readUInt32LE(header + 8));
  }
  const chunks: Uint8Array[] = [image, padding(image.length, fileAlignment)];
  let offset = roundUp(image.length, fileAlignment);
  let added = 0;
  for (const [index, { name, content }] of sections.entries()) {
    const header = table + (count + index) * SECTION_HEADER_BYTES;
    // Up to a page: the next section begins there, so that it can be a file of an ISO 9660 image too. No gap between them:
    // a signature covers sections only.
    const rawBytes = roundUp(offset + content.length, PAGE_BYTES) - offset;
    address = roundUp(address, align);
    image.fill(0, header, header + SECTION_HEADER_BYTES);
    image.write(name, header, SECTION_NAME_BYTES, 'latin1');
    image.writeUInt32LE(content.length, header + 8);
    image.writeUInt32LE(address, header + 12);
    image.writeUInt32LE(rawBytes, header + 16);
    image.writeUInt32LE(offset, header + 20);
    image.writeUInt32LE(SECTION_FLAGS, header + 36);
    chunks.push(content, new Uint8Array(rawBytes - content.length));
    address += content.length;
    offset += rawBytes;
    added += rawBytes;
  }
  image.writeUInt16LE(count + sections.length, coff + 2);
  image.writeUInt32LE(image.readUInt32LE(optional + 8) + added, optional + 8);
  image.writeUInt32LE(roundUp(address, align), optional + 56);
  // CheckSum: firmware does not look at it, and a signature leaves it out.
  image.writeUInt32LE(0, optional + 64);
  return Buffer.concat(chunks);
}

/** Where a section's content is in the file. */
export interface SectionPlace {
  readonly offset: number;
  readonly sizeBytes: number;
}

/** Finds a section. @param image - the program, or its beginning with all headers @throws {StubError} when there is none */
export function findSection(image: Buffer, name: string): SectionPlace {
  const coff = findCoffHeader(image);
  const table = coff + 20 + image.readUInt16LE(coff + 16);
  for (let index = 0; index < image.readUInt16LE(coff + 2); index += 1) {
    const header = table + index * SECTION_HEADER_BYTES;
    const found = image.toString('latin1', header, header + SECTION_NAME_BYTES).replace(/\0+$/, '');
    if (found !== name) continue;
    return { offset: image.readUInt32LE(header + 20), sizeBytes: image.readUInt32LE(header + 8) };
  }
  throw new StubError(`Cannot find the section ${name} in a unified kernel image`);
}

/** Where the COFF header begins, behind the signature `PE\0\0`. */
function findCoffHeader(image: Buffer): number {
  const pe = image.length < 0x40 ? Infinity : image.readUInt32LE(0x3c);
  if (pe + 24 + 240 > image.length || image.toString('latin1', pe, pe + 4) !== 'PE\0\0') {
    throw new StubError('Cannot use the stub: it is no PE image');
  }
  if (image.readUInt16LE(pe + 24) !== PE32_PLUS) throw new StubError('Cannot use the stub: it is not of 64 bits');
  return pe + 4;
}

/** A signature covers headers and sections, nothing between: symbols behind the sections go. Gives where these end. */
function dropSymbols(image: Buffer, coff: number): number {
  const table = coff + 20 + image.readUInt16LE(coff + 16);
  let end = 0;
  for (let index = 0; index < image.readUInt16LE(coff + 2); index += 1) {
    const header = table + index * SECTION_HEADER_BYTES;
    end = Math.max(end, image.readUInt32LE(header + 20) + image.readUInt32LE(header + 16));
  }
  if (end === 0 || end > image.length) throw new StubError('Cannot use the stub: it is cut short');
  image.fill(0, coff + 8, coff + 16);
  return end;
}

function padding(length: number, alignment: number): Uint8Array {
  return new Uint8Array(roundUp(length, alignment) - length);
}

function roundUp(value: number, alignment: number): number {
  return Math.ceil(value / alignment) * alignment;
}
