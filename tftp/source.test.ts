import assert from 'node:assert/strict';
import { mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

import { encodeNetascii } from './netascii.ts';
import { NetasciiSource } from './source.ts';

test('a netascii source gives again what it gave before: a window may be sent anew, from anywhere', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'tftp-source-'));
  try {
    const text = Buffer.alloc(700_000);
    for (let at = 0; at < text.length; at += 1) text[at] = at % 61 === 0 ? 10 : 97 + ((at >> 4) % 26);
    writeFileSync(join(folder, 'text'), text);
    const encoded = encodeNetascii(text);
    using source = await NetasciiSource.open(openSync(join(folder, 'text'), 'r'));
    assert.equal(source.size, encoded.length);
    // Forward, a window back, to the end, and all the way back.
    for (const offset of [0, 90_000, 60_000, 180_000, 170_000, source.size - 100, 300_000, 0, 600_000]) {
      const into = [new Uint8Array(60), new Uint8Array(40)];
      source.read(offset, into);
      assert.deepEqual(Buffer.concat(into), Buffer.from(encoded.subarray(offset, offset + 100)), `at ${offset}`);
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
});
