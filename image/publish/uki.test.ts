import assert from 'node:assert/strict';
import { test } from 'node:test';
import { StubError, appendSections, findSection } from './uki.ts';

/** A PE32+ image with one section, and symbols behind it: 0x200 bytes of headers, 0x200 of section, 5 of symbols. */
function stub(): Buffer {
  const image = Buffer.alloc(0x405, 0xee);
  image.fill(0, 0, 0x200);
  image.write('MZ', 0, 'latin1');
  image.writeUInt32LE(0x40, 0x3c);
  image.write('PE\0\0', 0x40, 'latin1');
  image.writeUInt16LE(1, 0x44 + 2); // sections
  image.writeUInt32LE(0x400, 0x44 + 8); // symbols
  image.writeUInt16LE(240, 0x44 + 16); // size of the optional header
  image.writeUInt16LE(0x20b, 0x58);
  image.writeUInt32LE(0x200, 0x58 + 32); // section alignment
  image.writeUInt32LE(0x200, 0x58 + 36); // file alignment
  image.writeUInt32LE(0x200, 0x58 + 60); // size of headers
  const section = 0x58 + 240;
  image.write('.text', section, 'latin1');
  for (const [offset, value] of [
    [8, 0x200],
    [12, 0x1000],
    [16, 0x200],
    [20, 0x200],
  ] as const) {
    image.writeUInt32LE(value, section + offset);
  }
  return image;
}

test('appendSections() lays sections behind the others, each on a page of its own', () => {
  const second = { name: '.linux', content: Buffer.alloc(0x1001, 2) };
  const image = appendSections(stub(), [{ name: '.osrel', content: Buffer.alloc(0x201, 1) }, second]);
  assert.equal(image.readUInt16LE(0x46), 3);
  const header = 0x58 + 240 + 40;
  assert.equal(image.toString('latin1', header, header + 6), '.osrel');
  assert.deepEqual(
    [8, 12, 16, 20].map((offset) => image.readUInt32LE(header + offset)),
    [0x201, 0x2000, 0xc00, 0x400],
  );
  assert.deepEqual(findSection(image, '.linux'), { offset: 0x1000, sizeBytes: 0x1001 });
  assert.throws(() => findSection(image, '.initrd'), StubError);
  assert.equal(image.length, 0x3000, 'the symbols are gone, and the end is rounded up');
  assert.equal(image.readUInt32LE(0x44 + 8), 0, 'and nothing points at them');
  assert.equal(image.readUInt32LE(0x58 + 56), 0x5000, 'SizeOfImage');
  assert.ok(image.subarray(0x400, 0x601).every((byte) => byte === 1));
});

test('appendSections() refuses what is no stub, a signed one, one that is cut or full', () => {
  const section = { name: '.a', content: Buffer.of(1) };
  assert.throws(() => appendSections(Buffer.alloc(10), [section]), StubError);
  assert.throws(() => appendSections(stub().subarray(0, 0x300), [section]), /cut short/);
  assert.throws(
    () => appendSections(stub(), [section, section, section, section]),
    /no room in its 512 bytes of headers/,
  );
  const signed = stub();
  signed.writeUInt32LE(0x400, 0x58 + 112 + 32);
  assert.throws(() => appendSections(signed, [section]), /it is signed/);
});
