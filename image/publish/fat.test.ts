import assert from 'node:assert/strict';
import { test } from 'node:test';
import { layOutFat } from './fat.ts';

const PATH = ['EFI', 'BOOT', 'BOOTX64.EFI'];

/** Follows the specification from the boot sector to the file. @returns where its clusters are, and its size */
function findFile(head: Buffer): {
  readonly clusters: readonly number[];
  readonly start: number;
  readonly sizeBytes: number;
} {
  const clusterBytes = head.readUInt8(13) * 512;
  const fat = head.readUInt16LE(14) * 512;
  const root = fat + head.readUInt8(16) * head.readUInt16LE(22) * 512;
  const data = root + head.readUInt16LE(17) * 32;
  const at = (cluster: number): number => data + (cluster - 2) * clusterBytes;
  let folder = root;
  for (const name of PATH) {
    const short = name
      .split('.')
      .map((part, index) => part.padEnd(index === 0 ? 8 : 3))
      .join('')
      .padEnd(11);
    let entry = folder;
    while (head.toString('latin1', entry, entry + 11) !== short) entry += 32;
    const first = head.readUInt16LE(entry + 26);
    if (name !== PATH.at(-1)) {
      folder = at(first);
      continue;
    }
    const clusters: number[] = [];
    for (let cluster = first; cluster < 0xfff8; cluster = head.readUInt16LE(fat + 2 * cluster)) clusters.push(cluster);
    return { clusters, start: at(first), sizeBytes: head.readUInt32LE(entry + 28) };
  }
  throw new Error('no such file');
}

test('layOutFat() leads to the file, which is in one piece and begins where a page does', () => {
  for (const sizeBytes of [1, 5_000_000, 60_000_000, 400_000_000]) {
    const { head, tailBytes } = layOutFat({ path: PATH, sizeBytes, serial: 7 });
    const { clusters, start, sizeBytes: found } = findFile(head);
    assert.equal(found, sizeBytes);
    assert.equal(start, head.length);
    assert.equal(start % 4096, 0);
    const clusterBytes = head.readUInt8(13) * 512;
    assert.equal(clusters.length, Math.ceil(sizeBytes / clusterBytes));
    assert.ok(clusters.every((cluster, index) => cluster === (clusters[0] ?? 0) + index));
    const sectors = head.readUInt16LE(19) || head.readUInt32LE(32);
    assert.equal(sectors * 512, head.length + sizeBytes + tailBytes);
    const count = Math.floor((sectors * 512 - start) / clusterBytes) + 2;
    assert.ok(count >= 4085 && count < 65_525, `${count} clusters make it FAT16`);
    assert.ok(head.readUInt16LE(22) * 256 >= count + 2, 'the table has room for all');
  }
});

test('layOutFat() refuses a file that FAT16 cannot hold', () => {
  assert.throws(() => layOutFat({ path: PATH, sizeBytes: 2 ** 31 + 1, serial: 0 }), /2 GiB is all it can hold/);
});
