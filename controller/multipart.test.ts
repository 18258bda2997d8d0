import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { MultipartError, MultipartReader, parseBoundary } from './multipart.ts';

interface Part {
  readonly name: string;
  readonly filename?: string;
  readonly data: string;
}

const write = (parts: readonly Part[], boundary = 'XX'): Buffer =>
  Buffer.from(
    `${parts
      .map(
        ({ name, filename, data }) =>
          `--${boundary}\r\nContent-Disposition: form-data; name="${name}"${filename === undefined ? '' : `; filename="${filename}"`}\r\n\r\n${data}\r\n`,
      )
      .join('')}--${boundary}--\r\n`,
    'latin1',
  );

/** Reads a body that arrives in pieces of the given sizes, the last one again and again. */
function read(body: Uint8Array, sizes: readonly number[] = [body.length], boundary = 'XX'): Part[] {
  const reader = new MultipartReader(boundary);
  const parts: { name: string; filename?: string; data: string }[] = [];
  let at = 0;
  for (let piece = 0; at < body.length; piece += 1) {
    const size = Math.max(1, sizes[Math.min(piece, sizes.length - 1)] ?? 1);
    for (const event of reader.push(body.subarray(at, at + size))) {
      if (event.kind === 'part') {
        parts.push({
          name: event.name,
          ...(event.filename === undefined ? {} : { filename: event.filename }),
          data: '',
        });
      } else if (event.kind === 'data') {
        const last = parts.at(-1);
        if (last !== undefined) last.data += Buffer.from(event.bytes).toString('latin1');
      }
    }
    at += size;
  }
  reader.end();
  return parts;
}

test('parseBoundary() takes a boundary with and without quotes, and nothing else', () => {
  assert.equal(parseBoundary('multipart/form-data; boundary=----a1'), '----a1');
  assert.equal(parseBoundary('Multipart/Form-Data; charset=utf-8; boundary="a b"'), 'a b');
  for (const type of [
    '',
    'text/plain',
    'multipart/mixed; boundary=a',
    'multipart/form-data',
    `multipart/form-data; boundary=${'x'.repeat(71)}`,
  ]) {
    assert.throws(() => parseBoundary(type), MultipartError, type);
  }
});

test('a body is read however it is cut', () => {
  const piece = fc.constantFrom('a', '\r', '\n', '\r\n', '-', '--', '--X', '\r\n--X', '\r\n--XY', '\u0000', 'ÿ');
  const data = fc.array(piece).map((pieces) => pieces.join(''));
  const part = fc.record({ name: fc.constantFrom('session', 'archive'), data }, { noNullPrototype: true });
  fc.assert(
    fc.property(fc.array(part), fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1 }), (parts, sizes) => {
      fc.pre(parts.every((each) => !`\r\n${each.data}\r\n`.includes('\r\n--XX')));
      assert.deepEqual(read(write(parts), sizes), parts);
    }),
    { numRuns: 500 },
  );
});

test('file names and empty parts are kept, also without a line end after the last boundary', () => {
  const parts = [
    { name: 'a', data: '' },
    { name: 'archive', filename: 'x.tar', data: 'y' },
  ];
  assert.deepEqual(read(write(parts).subarray(0, -2)), parts);
});

test('every truncation is noticed', () => {
  const body = write([
    { name: 'a', data: 'one' },
    { name: 'b', data: 'two' },
  ]);
  for (let length = 0; length < body.length - 2; length += 1) {
    assert.throws(() => read(body.subarray(0, length)), MultipartError, String(length));
  }
});

test('what is not the form is refused', () => {
  const head = '--XX\r\nContent-Disposition: form-data; name="a"\r\n';
  for (const [body, message] of [
    ['', /ends too early/],
    ['preamble\r\n--XX--', /a boundary is expected/],
    ['--XY\r\n', /a boundary is expected/],
    ['--XXX\r\n', /a line end is expected after the boundary/],
    ['--XX\r\nContent-Type: text/plain\r\n\r\nx\r\n--XX--', /no "Content-Disposition/],
    ['--XX\r\nContent-Disposition: attachment; name="a"\r\n\r\nx\r\n--XX--', /no "Content-Disposition/],
    ['--XX\r\nContent-Disposition: form-data\r\n\r\nx\r\n--XX--', /no "Content-Disposition/],
    [`${head}X: ${'x'.repeat(9000)}\r\n\r\nx\r\n--XX--`, /headers of a part are longer/],
    [`${head}X: ${'x'.repeat(9000)}`, /headers of a part are longer/],
    [`${head}\r\nx\r\n--XX--\r\nmore`, /something follows/],
    [`${`${head}\r\nx\r\n`.repeat(33)}--XX--`, /more than 32 parts/],
  ] as const) {
    assert.throws(() => read(Buffer.from(body)), { name: 'MultipartError', message }, body.slice(0, 60));
  }
});
