/**
 * One read with our client, told as loadgen tells it: a JSON line. The time is that of the transfer, without the start of Node.
 *
 *     node bench/tftp/get.ts HOST PORT NAME BLKSIZE WINDOWSIZE
 */
import { get } from '../../tftp/client.ts';

const [host = '', port = '', name = '', blksize = '', windowsize = ''] = process.argv.slice(2);
const options = { host, port: Number(port), name, blksize: Number(blksize), windowsize: Number(windowsize) };
const startedMs = performance.now();
let bytes = 0;
let failure = '';
try {
  const content = await get(options);
  bytes = content.length;
  if (!isPattern(content)) failure = 'the content is not what was served';
} catch (error) {
  failure = error instanceof Error ? error.message : String(error);
}
const seconds = (performance.now() - startedMs) / 1000;
const { user, system } = process.cpuUsage();
const line = {
  seconds,
  bytes,
  MBps: bytes / seconds / 1e6,
  failed: failure === '' ? 0 : 1,
  client_cpu_s: (user + system) / 1e6,
  blk: options.blksize,
  win: options.windowsize,
  last_error: failure.slice(0, 200),
};
process.stdout.write(`${JSON.stringify(line)}\n`);

/** Whether every whole 8-byte word is what mkpattern.py wrote. */
function isPattern(content: Uint8Array): boolean {
  const view = new DataView(content.buffer, content.byteOffset, content.byteLength);
  for (let word = 0; word < content.length >> 3; word += 1) {
    if (view.getUint32(word * 8, true) !== (word ^ 0x5bd1e995) >>> 0 || view.getUint32(word * 8 + 4, true) !== 0)
      return false;
  }
  return true;
}
