/** A server on a socket that another process has bound. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { type Socket, createSocket } from 'node:dgram';
import { join } from 'node:path';

import { makeFolders, test } from './_tftp-peer.ts';
import { hashOf, succeed } from './_tftp-programs.ts';

const HOST = '127.0.0.1';
const SERVER = join(import.meta.dirname, '../../tftp/server.ts');

test(
  'a bound socket is taken over as a descriptor, as from systemd',
  ['curl'],
  async (dir) => {
    const { root, work } = makeFolders(dir);
    const socket = createSocket('udp4');
    const { port } = socket.bindSync({ address: HOST });
    const fd = descriptorOf(socket);
    const script = `
    import { serveFolder } from ${JSON.stringify(SERVER)};
    await serveFolder({ folder: process.argv[1], fd: 3 });
    console.log('up');`;
    const args = ['--input-type=module-typescript', '-e', script, root];
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit', fd] });
    // The child has it; here it would take requests away.
    socket.close();
    const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()));
    try {
      await Promise.race([new Promise((resolve) => child.stdio[1]?.once('data', resolve)), exited]);
      assert.equal(child.exitCode, null);
      await succeed(work, ['curl', '-sS', '-o', 'f513', `tftp://${HOST}:${port}/f513`]);
      assert.equal(hashOf(join(work, 'f513')), hashOf(join(root, 'f513')));
    } finally {
      child.kill('SIGTERM');
      await exited;
    }
  },
  ['dgram'],
);

/** The descriptor of a socket, which Node keeps to itself: the one number `fd` in its hidden state. */
function descriptorOf(socket: Socket): number {
  const hidden = Object.getOwnPropertySymbols(socket).map((symbol): unknown => Reflect.get(socket, symbol));
  const descriptors = hidden.map((value): unknown => {
    const handle: unknown = typeof value === 'object' && value !== null ? Reflect.get(value, 'handle') : undefined;
    return typeof handle === 'object' && handle !== null ? Reflect.get(handle, 'fd') : undefined;
  });
  const found = descriptors.find((fd) => typeof fd === 'number' && fd > 2);
  assert.ok(typeof found === 'number', 'this Node hides the descriptor of a socket elsewhere');
  return found;
}
