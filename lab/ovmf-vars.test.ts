import assert from 'node:assert/strict';
import { test } from 'node:test';
import { enrollKeys } from './ovmf-vars.ts';

/** The head of OVMF_VARS_4M.fd of Debian 12, and free room behind it. */
function template(): Buffer {
  const head =
    '5f465648fffe04004800afb80000000284000000001000000000000000000000782cf3aa7b949a43a1802e144ec37792b8ff03005afe000000000000';
  const store = Buffer.alloc(0x1000, 0xff);
  store.fill(0, 0, 0x28);
  Buffer.from(head, 'hex').copy(store, 0x28);
  return store;
}

test('enrollKeys() writes PK, KEK, db and the switch, one behind the other', () => {
  const certificate = Buffer.from('a certificate');
  const before = template();
  const store = enrollKeys(before, certificate);
  assert.equal(store.length, before.length);
  const names: string[] = [];
  let at = 0x48 + 28;
  while (store.readUInt16LE(at) === 0x55aa) {
    const nameBytes = store.readUInt32LE(at + 36);
    const dataBytes = store.readUInt32LE(at + 40);
    const data = store.subarray(at + 60 + nameBytes, at + 60 + nameBytes + dataBytes);
    names.push(store.toString('utf16le', at + 60, at + 60 + nameBytes - 2));
    if (names.length <= 3) {
      assert.equal(data.readUInt32LE(16), dataBytes, 'EFI_SIGNATURE_LIST.SignatureListSize');
      assert.ok(data.subarray(28 + 16).equals(certificate));
    }
    at += Math.ceil((60 + nameBytes + dataBytes) / 4) * 4;
  }
  assert.deepEqual(names, ['PK', 'KEK', 'db', 'SecureBootEnable']);
  assert.ok(store.subarray(at).every((byte) => byte === 0xff));
});

test('enrollKeys() refuses another kind of store, and one that has variables', () => {
  assert.throws(() => enrollKeys(Buffer.alloc(0x1000), Buffer.of(1)), /no store of authenticated variables/);
  assert.throws(() => enrollKeys(enrollKeys(template(), Buffer.of(1)), Buffer.of(1)), /has variables already/);
});
