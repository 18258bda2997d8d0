import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Connection, CommandError } from '../connections/connection.ts';
import { deleteSubvolume, findSubvolume } from './btrfs.ts';

/** A connection that notes what is run, and fails or answers as told. */
function fake(answer: (argv: readonly string[], count: number) => string | undefined): {
  on: Connection;
  ran: string[];
} {
  const ran: string[] = [];
  const on: Connection = {
    chain: [['local']],
    kind: 'posix',
    run: async (argv, options) => {
      ran.push(argv.join(' '));
      const said = answer(argv, ran.length);
      const result = { status: said === undefined ? 1 : 0, stdout: Buffer.from(said ?? ''), stderr: Buffer.from('no') };
      if (said === undefined && options?.okStatus !== 'any')
        throw new CommandError({ argv, failure: 'status', ...result });
      return result;
    },
    readFile: async () => new Uint8Array(),
    writeFile: async () => {},
    [Symbol.asyncDispose]: async () => {},
  };
  return { on, ran };
}

test('deleteSubvolume() looks for nested ones only when it must', async () => {
  const plain = fake(() => '');
  await deleteSubvolume(plain.on, '/v/a');
  assert.deepEqual(plain.ran, ['btrfs subvolume delete -- /v/a']);
  const nested = fake((_, count) => (count === 1 ? undefined : ''));
  await deleteSubvolume(nested.on, '/v/a');
  assert.deepEqual(nested.ran, [
    'btrfs subvolume delete -- /v/a',
    'find /v/a -type d -inum 256 -exec btrfs property set -f -t subvol {} ro false ;',
    'find /v/a -depth -mindepth 1 -type d -inum 256 -exec btrfs subvolume delete -- {} ;',
    'btrfs subvolume delete -- /v/a',
  ]);
});

test('findSubvolume() tells read-only, writable and none apart', async () => {
  assert.deepEqual(await findSubvolume(fake(() => 'ro=true\n').on, '/v/a'), { readOnly: true });
  assert.deepEqual(await findSubvolume(fake(() => 'ro=false\n').on, '/v/a'), { readOnly: false });
  assert.equal(await findSubvolume(fake(() => undefined).on, '/v/a'), undefined);
});
