import assert from 'node:assert/strict';
import { test } from 'node:test';

import * as fc from 'fast-check';

import { type GrantLimits, checkOack, formatOptions, grantOptions, parseOptions } from './options.ts';

const LIMITS: GrantLimits = {
  blksizeMax: 65464,
  windowsizeMax: 64,
  windowBytesMax: 128 * 1024,
  tsize: 1000,
  offset: false,
};

test('parseOptions() reads names in any case, and leaves the unknown, repeated and invalid out', () => {
  assert.deepEqual(
    parseOptions([
      ['BLKSIZE', '1428'],
      ['blksize', '512'],
      ['multicast', ''],
      ['TimeOut', '5'],
    ]),
    { blksize: 1428, timeout: 5 },
  );
  for (const value of ['', '7', '65465', '-8', '+8', '8.0', '0x10', ' 8', '1e3', '9'.repeat(16)]) {
    assert.deepEqual(parseOptions([['blksize', value]]), {}, value);
  }
  assert.deepEqual(parseOptions([['timeout', '0']]), {});
  assert.deepEqual(parseOptions([['timeout', '256']]), {});
  assert.deepEqual(parseOptions([['windowsize', '0']]), {});
  assert.deepEqual(parseOptions([['windowsize', '65536']]), {});
  assert.deepEqual(parseOptions([['constructor', '1']]), {});
});

test('grantOptions() answers what was asked, in its order and spelling', () => {
  const { granted, oack } = grantOptions(
    [
      ['TSIZE', '0'],
      ['blkSize', '8192'],
      ['unknown', '1'],
      ['timeout', '3'],
      ['blksize', '512'],
    ],
    LIMITS,
  );
  assert.deepEqual(granted, { tsize: 1000, blksize: 8192, timeout: 3 });
  assert.deepEqual(oack, [
    ['TSIZE', '1000'],
    ['blkSize', '8192'],
    ['timeout', '3'],
  ]);
});

test('grantOptions() lowers blksize and windowsize, never raises them, and bounds the window in bytes', () => {
  const grant = (blksize: string, windowsize: string): unknown =>
    grantOptions(
      [
        ['blksize', blksize],
        ['windowsize', windowsize],
      ],
      { ...LIMITS, blksizeMax: 16384 },
    ).granted;
  assert.deepEqual(grant('65464', '65535'), { blksize: 16384, windowsize: 8 });
  assert.deepEqual(grant('8', '2'), { blksize: 8, windowsize: 2 });
  assert.deepEqual(grant('1468', '64'), { blksize: 1468, windowsize: 64 });
});

test('grantOptions() gives no OACK when nothing is left', () => {
  assert.deepEqual(grantOptions([['multicast', '']], LIMITS).oack, []);
  assert.deepEqual(grantOptions([['blksize', '7']], LIMITS).oack, []);
  assert.deepEqual(grantOptions([['offset', '7']], LIMITS).oack, []);
  assert.deepEqual(grantOptions([['tsize', '0']], { ...LIMITS, tsize: undefined }).oack, []);
});

test('tsize goes past 4 GiB', () => {
  const { oack } = grantOptions([['tsize', '0']], { ...LIMITS, tsize: 5_000_000_000 });
  assert.deepEqual(oack, [['tsize', '5000000000']]);
});

test('checkOack() takes what keeps to the question', () => {
  const asked = { blksize: 1468, windowsize: 32, tsize: 0, timeout: 5 };
  assert.deepEqual(checkOack([], asked), {});
  assert.deepEqual(checkOack([['BLKSIZE', '1024']], asked), { blksize: 1024 });
  assert.deepEqual(checkOack(formatOptions(asked), asked), asked);
});

test('checkOack() refuses more, other and invalid values', () => {
  const asked = { blksize: 1468, windowsize: 32, timeout: 5 };
  const refusedOf = (name: string, value: string): unknown => checkOack([[name, value]], asked);
  assert.deepEqual(refusedOf('blksize', '1469'), { refused: 'option blksize is 1469, more than the 1468 asked' });
  assert.deepEqual(refusedOf('blksize', '7'), { refused: 'option blksize has the value "7"' });
  assert.deepEqual(refusedOf('timeout', '6'), { refused: 'option timeout is 6, not the 5 asked' });
  assert.deepEqual(refusedOf('tsize', '6'), { refused: 'option "tsize" was not asked' });
  assert.deepEqual(refusedOf('toString', '6'), { refused: 'option "toString" was not asked' });
});

test('checkOack() refuses an answer that passes over the offset: the bytes would go to the wrong place', () => {
  assert.deepEqual(checkOack([], { offset: 100 }), { refused: 'option offset=100 was not granted' });
  assert.deepEqual(checkOack([['offset', '0']], { offset: 100 }), { refused: 'option offset is 0, not the 100 asked' });
});

test('what a server grants, a client accepts', () => {
  const asked = fc.record(
    {
      blksize: fc.integer({ min: 8, max: 65464 }),
      timeout: fc.integer({ min: 1, max: 255 }),
      tsize: fc.integer({ min: 0, max: 1e15 - 1 }),
      windowsize: fc.integer({ min: 1, max: 65535 }),
    },
    { requiredKeys: [] },
  );
  fc.assert(
    fc.property(asked, (options) => {
      const { granted, oack } = grantOptions(formatOptions(options), LIMITS);
      assert.deepEqual(checkOack(oack, options), granted);
      assert.ok((granted.blksize ?? 512) * (granted.windowsize ?? 1) <= 128 * 1024);
    }),
  );
});
