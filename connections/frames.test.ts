import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { FrameDecoder, encodeFrame, pieces } from './_frames.ts';

const frame = fc.record(
  {
    kind: fc.integer({ min: 0, max: 255 }),
    call: fc.integer({ min: 0, max: 0xff_ff_ff_ff }),
    payload: fc.uint8Array({ maxLength: 300 }),
  },
  { noNullPrototype: true },
);

test('frames come back as they were, however the stream is cut', () => {
  fc.assert(
    fc.property(
      fc.array(frame, { maxLength: 8 }),
      fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1 }),
      (frames, cuts) => {
        const stream = Buffer.concat(frames.map(({ kind, call, payload }) => encodeFrame(kind, call, payload)));
        const decoder = new FrameDecoder();
        const found = [];
        for (let at = 0, next = 0; at < stream.length; next++) {
          const size = cuts[next % cuts.length] ?? 1;
          found.push(...decoder.push(stream.subarray(at, at + size)));
          at += size;
        }
        assert.deepEqual(
          found.map(({ kind, call, payload }) => ({ kind, call, payload: new Uint8Array(payload) })),
          frames,
        );
      },
    ),
    { numRuns: 200 },
  );
});

test('what is no frame is refused, and shown', () => {
  assert.throws(() => new FrameDecoder().push(Buffer.from('sh: node: not found\n')), /sh: node: not found/);
  assert.throws(() => new FrameDecoder().push(Buffer.alloc(16)), RangeError);
});

test('pieces() cuts without losing a byte', () => {
  const bytes = Buffer.alloc(200_001, 'abc');
  assert.deepEqual(Buffer.concat([...pieces(bytes)]), bytes);
  assert.deepEqual([...pieces(new Uint8Array())], []);
});
