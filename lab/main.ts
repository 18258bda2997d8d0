/**
 * The lab's servers, in their network namespace: `node lab/main.ts CONFIG.json`, started through `ip netns exec`.
 *
 * Says what happens as JSON lines on standard output (message.ts). Ends when it is told to, or when its parent is gone.
 */
import { readFile } from 'node:fs/promises';
import { serveFolder } from '../tftp/server.ts';
import { serveHttpFiles } from './http-files.ts';
import { type LabMessage, parseLabConfig } from './message.ts';

const parent = process.ppid;
await main(process.argv[2] ?? '');

async function main(file: string): Promise<void> {
  const config = parseLabConfig(await readFile(file, 'utf8'));
  const servers = new AsyncDisposableStack();
  servers.use(
    await serveFolder({
      folder: config.tftpFolder,
      address: config.address,
      port: 69,
      onTransfer: ({ name, peer, bytes, durationMs, result, error }) => {
        const event = { atMs: Date.now(), name, peer, bytes, durationMs, result };
        say({ source: 'tftp', ...event, ...(error === undefined ? {} : { error }) });
      },
      onError: (error) => problem('TFTP', error),
    }),
  );
  servers.use(
    await serveHttpFiles({
      folder: config.httpFolder,
      address: config.address,
      port: 80,
      onRequest: (event) => say({ source: 'http', atMs: Date.now(), ...event }),
    }),
  );
  const controllerUrl = config.controller && (await openController(config.address, config.controller, servers));
  say({
    source: 'ready',
    httpUrl: `http://${config.address}`,
    ...(controllerUrl === undefined ? {} : { controllerUrl }),
  });
  const end = (): void => void servers.disposeAsync().finally(() => process.exit(0));
  process.once('SIGTERM', end);
  process.once('SIGINT', end);
  // The kernel kills us with the parent where setpriv is there to ask for it; this is for where it is not.
  setInterval(() => process.ppid !== parent && end(), 500);
}

/** Loaded only when asked for: the network alone must work without a controller. */
async function openController(
  address: string,
  options: { readonly folder: string; readonly port: number },
  servers: AsyncDisposableStack,
): Promise<string> {
  const { openController: open } = await import('../controller/server.ts');
  const controller = servers.use(await open({ ...options, address, onError: (error) => problem('controller', error) }));
  return controller.url;
}

function say(message: LabMessage): void {
  process.stdout.write(`${JSON.stringify(message)}\n`);
}

function problem(where: string, error: unknown): void {
  say({
    source: 'problem',
    atMs: Date.now(),
    message: `${where}: ${error instanceof Error ? error.message : String(error)}`,
  });
}
