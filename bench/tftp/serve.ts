/**
 * The server under measurement: one folder, read and write, and nothing of the command line around it, so that CPU and memory
 * are those of `tftp/`. SIGUSR2 collects garbage (with `--expose-gc`); SIGTERM ends it in order, so that `--cpu-prof` writes.
 *
 *     node bench/tftp/serve.ts FOLDER ADDRESS PORT dgram|gso
 */
import { serveWritableFolder } from '../../tftp/instance.ts';

const [folder = '', address = '', port = '', driver = ''] = process.argv.slice(2);
const controller = new AbortController();

const options = { folder, address, port: Number(port), maxBytes: 2 ** 32, signal: controller.signal, driver };
await using server = await serveWritableFolder(options);
// Whoever started it may ask whether the driver is the one it wanted.
process.stdout.write(`${JSON.stringify({ address: server.address, port: server.port })}\n`);
process.on('SIGUSR2', () => globalThis.gc?.());
await new Promise<void>((resolve) => process.once('SIGTERM', () => resolve()));
