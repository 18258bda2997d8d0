/**
 * The server under measurement: one folder, read and write, and nothing of the command line around it, so that CPU and memory
 * are those of `tftp/`. SIGUSR2 collects garbage (with `--expose-gc`); SIGTERM ends it in order, so that `--cpu-prof` writes.
 * Prints a JSON line when it listens; with `try` it ends after that.
 *
 *     node bench/tftp/serve.ts FOLDER ADDRESS PORT dgram|gso [try]
 */
import { serveWritableFolder } from '../../tftp/instance.ts';

const [folder = '', address = '', port = '', name, only] = process.argv.slice(2);
const driver: 'dgram' | 'gso' = name === 'gso' ? 'gso' : 'dgram';
const options = { folder, address, port: Number(port), maxBytes: 2 ** 32, driver };

await using server = await serveWritableFolder(options);
const inUse: unknown = 'driver' in server ? server.driver : 'dgram';
process.stdout.write(`${JSON.stringify({ address: server.address, port: server.port, driver: inUse })}\n`);
if (only !== 'try') {
  process.on('SIGUSR2', () => globalThis.gc?.());
  await new Promise<void>((resolve) => process.once('SIGTERM', () => resolve()));
}
