/**
 * `helper.mjs`: the one root program that the user `build` can ask. It is started by `buildos-helper.socket`, which
 * gives it the listening socket, owned by `build` with mode 0600.
 *
 * Exit status: 0 after SIGTERM; 1 for an error at the start.
 */
import { statSync } from 'node:fs';
import { openLocal } from '../connections/local.ts';
import { listenFds, notify } from '../host/sd-notify.ts';
import { HOST_LAYOUT } from './names.ts';
import { openPeerLookup } from './peer.ts';
import { lockOf, perform } from './perform.ts';
import { type ServerOptions, serveHelper } from './server.ts';
import { HELPER_SOCKET } from './verb.ts';

/** Lines go to the journal, through stdout. */
const log = (line: string): void => {
  process.stdout.write(`${line.replaceAll('\n', '\n  ')}\n`);
};

async function main(): Promise<void> {
  await using on = openLocal();
  const [fd] = listenFds();
  if (fd === undefined) {
    throw new Error('Cannot start: no socket came from systemd; start it with: systemctl start buildos-helper.socket');
  }
  const peers = await openPeers();
  const server = await serveHelper({
    listen: { fd },
    ...(peers && { peers }),
    perform: (verb, say, gone) => perform(verb, { on, layout: HOST_LAYOUT, log: say }, gone),
    lockOf,
    log,
  });
  const ended = new Promise<void>((resolve) => process.once('SIGTERM', () => resolve()));
  notify('READY=1\nSTATUS=Waiting for requests');
  await ended;
  notify('STOPPING=1');
  await server.close();
}

/** Allowed are root and the owner of the socket's file, whom the socket unit names. */
async function openPeers(): Promise<ServerOptions['peers']> {
  const lookUp = await openPeerLookup();
  if (lookUp === undefined) {
    log('warning: this Node has no node:ffi, so only the mode of the socket tells who may ask');
    return undefined;
  }
  return { lookUp, uids: [0, statSync(HELPER_SOCKET).uid] };
}

try {
  await main();
  process.exit(0);
} catch (error) {
  log(error instanceof Error ? (error.stack ?? error.message) : String(error));
  process.exit(1);
}
