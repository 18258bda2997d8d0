import assert from 'node:assert/strict';
import { test } from 'node:test';

import * as fc from 'fast-check';

import {
  type Packet,
  decodePacket,
  encodeAck,
  encodeData,
  encodeError,
  encodeOack,
  encodeRequest,
  writeDataHeader,
} from './packet.ts';

const bytesOf = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text, 'latin1'));

/** Packets as RFC 1350 §5 and RFC 2347 to 2349 draw them. */
const VECTORS: readonly { readonly bytes: string; readonly packet: Packet }[] = [
  {
    bytes: '\0\x01linux\0octet\0',
    packet: { kind: 'request', direction: 'read', name: 'linux', mode: 'octet', options: [] },
  },
  {
    bytes: '\0\x02log\0NetASCII\0tsize\x0012\0BlkSize\x001428\0',
    packet: {
      kind: 'request',
      direction: 'write',
      name: 'log',
      mode: 'netascii',
      options: [
        ['tsize', '12'],
        ['BlkSize', '1428'],
      ],
    },
  },
  { bytes: '\0\x03\x00\x01abc', packet: { kind: 'data', block: 1, data: bytesOf('abc') } },
  { bytes: '\0\x03\xff\xff', packet: { kind: 'data', block: 65535, data: new Uint8Array(0) } },
  { bytes: '\0\x04\x01\x02', packet: { kind: 'ack', block: 258 } },
  { bytes: '\0\x05\x00\x01file not found\0', packet: { kind: 'error', code: 1, message: 'file not found' } },
  { bytes: '\0\x06blksize\x001428\0', packet: { kind: 'oack', options: [['blksize', '1428']] } },
];

test('decodePacket() reads the packets of the RFCs', () => {
  for (const { bytes, packet } of VECTORS) assert.deepEqual(decodePacket(bytesOf(bytes)), packet);
});

test('the encoders write the packets of the RFCs', () => {
  assert.deepEqual(
    encodeRequest({ direction: 'write', name: 'log', mode: 'netascii', options: [['tsize', '12']] }),
    bytesOf('\0\x02log\0netascii\0tsize\x0012\0'),
  );
  assert.deepEqual(encodeData(1, bytesOf('abc')), bytesOf('\0\x03\x00\x01abc'));
  assert.deepEqual(encodeAck(258), bytesOf('\0\x04\x01\x02'));
  assert.deepEqual(encodeError(1, 'file not found'), bytesOf('\0\x05\x00\x01file not found\0'));
  assert.deepEqual(encodeOack([['blksize', '1428']]), bytesOf('\0\x06blksize\x001428\0'));
});

test('decodePacket() gives a value for every truncation of every vector', () => {
  for (const { bytes } of VECTORS) {
    for (let length = 0; length < bytes.length; length += 1) {
      const packet = decodePacket(bytesOf(bytes.slice(0, length)));
      if (length < 4) assert.equal(packet.kind, 'malformed');
    }
  }
});

test('decodePacket() says what is wrong with a request', () => {
  const reasonOf = (bytes: string): string => {
    const packet = decodePacket(bytesOf(bytes));
    return packet.kind === 'malformed' ? packet.reason : packet.kind;
  };
  assert.equal(reasonOf('\0\x01linux'), 'no NUL after the name');
  assert.equal(reasonOf('\0\x01linux\0octet'), 'no NUL after the mode');
  assert.equal(reasonOf('\0\x01\0octet\0'), 'an empty name');
  assert.equal(reasonOf('\0\x01\xff\0octet\0'), 'an empty name');
  assert.equal(reasonOf('\0\x01\xc3\x28\0octet\0'), 'a name that is not UTF-8');
  assert.equal(reasonOf('\0\x07abcd'), 'opcode 7, not 1 to 6');
  assert.equal(reasonOf(''), '0 bytes, fewer than 4');
});

test('decodePacket() drops one byte 0xFF behind a name, which firmware copies from DHCP option 67', () => {
  const packet = decodePacket(bytesOf('\0\x01boot.efi\xff\0octet\0'));
  assert.equal(packet.kind === 'request' ? packet.name : '', 'boot.efi');
});

test('decodePacket() leaves out options that are cut short or only padding', () => {
  const optionsOf = (tail: string): readonly unknown[] => {
    const packet = decodePacket(bytesOf(`\0\x01a\0octet\0${tail}`));
    return packet.kind === 'request' ? packet.options : [packet];
  };
  assert.deepEqual(optionsOf('\0\0\0\0'), []);
  assert.deepEqual(optionsOf('blksize'), []);
  assert.deepEqual(optionsOf('blksize\0'), []);
  assert.deepEqual(optionsOf('blksize\x0010'), []);
  assert.deepEqual(optionsOf('blksize\x0010\0tsize\0'), [['blksize', '10']]);
  assert.deepEqual(optionsOf('x\0\0'), [['x', '']]);
  assert.equal(optionsOf('a\0b\0'.repeat(1000)).length, 32);
});

test('encodeError() cuts a long message between characters and keeps the final NUL', () => {
  const bytes = encodeError(0, 'ä'.repeat(1000));
  assert.ok(bytes.length <= 405);
  assert.equal(bytes.at(-1), 0);
  const packet = decodePacket(bytes);
  assert.ok(packet.kind === 'error' && /^ä+$/.test(packet.message));
});

test('the encoders refuse what has no place in a packet', () => {
  assert.throws(() => encodeData(65536, new Uint8Array(0)), RangeError);
  assert.throws(() => encodeAck(-1), RangeError);
  assert.throws(() => writeDataHeader(new Uint8Array(4), 0.5), RangeError);
  assert.throws(() => encodeRequest({ direction: 'read', name: '', mode: 'octet', options: [] }), RangeError);
  assert.throws(() => encodeRequest({ direction: 'read', name: 'a\0b', mode: 'octet', options: [] }), RangeError);
  assert.throws(() => encodeOack([['a', '\0']]), RangeError);
});

test('decodePacket() is total over byte strings', () => {
  const kinds = new Set(['request', 'data', 'ack', 'error', 'oack', 'malformed']);
  const anything = fc.uint8Array({ maxLength: 200 });
  const nearly = fc
    .tuple(fc.integer({ min: 0, max: 8 }), anything)
    .map(([opcode, rest]) => Uint8Array.of(0, opcode, ...rest));
  fc.assert(
    fc.property(fc.oneof(anything, nearly), (bytes) => kinds.has(decodePacket(bytes).kind)),
    { numRuns: 2000 },
  );
});

test('what is encoded is decoded to the same', () => {
  const text = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 30 }).filter((value) => !value.includes('\0'));
  const request = fc.record({
    direction: fc.constantFrom('read' as const, 'write' as const),
    name: text,
    mode: fc.constantFrom('octet' as const, 'netascii' as const, 'mail' as const),
    options: fc.array(fc.tuple(text, text), { maxLength: 10 }),
  });
  fc.assert(
    fc.property(request, (value) => {
      assert.deepEqual(decodePacket(encodeRequest(value)), { kind: 'request', ...value });
    }),
  );
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 65535 }), fc.uint8Array({ maxLength: 600 }), (block, data) => {
      assert.deepEqual(decodePacket(encodeData(block, data)), { kind: 'data', block, data });
    }),
  );
});
