import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parsePortSet } from './nft.ts';

/** As nft 1.1.3 prints it. */
const ANSWER = `{"nftables": [{"metainfo": {"version": "1.1.3", "json_schema_version": 1}}, {"set": {"family": "inet",
"name": "tftp", "table": "buildos", "type": ["ipv4_addr", "inet_service"], "handle": 2, "elem": [
{"elem": {"val": {"concat": ["169.254.1.2", 4000]}, "comment": "default-7"}}, {"concat": ["169.254.1.3", 4001]}]}}]}`;

test('parsePortSet() reads elements with and without a comment', () => {
  assert.deepEqual(parsePortSet(ANSWER), [
    { address: '169.254.1.2', port: 4000, comment: 'default-7' },
    { address: '169.254.1.3', port: 4001 },
  ]);
});

test('parsePortSet() gives nothing for an empty set and for other JSON', () => {
  for (const other of [
    '{"nftables":[{"set":{"name":"tftp"}}]}',
    '{}',
    '[]',
    'null',
    '{"nftables":[{"set":{"elem":[7,{}]}}]}',
  ]) {
    assert.deepEqual(parsePortSet(other), []);
  }
});
