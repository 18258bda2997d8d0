/** A helper as a process that can be killed: `node _helper-process.ts SOCKET FOLDER NETNS [HANG-AT]`. */
import { lockOf, perform } from '../../helper/perform.ts';
import { serveHelper } from '../../helper/server.ts';
import { openHost } from './_helper-host.ts';

const [path = '', folder = '', netns = '', hangAt] = process.argv.slice(2);
const log = (line: string): void => void process.stdout.write(`${line}\n`);
const host = openHost({ folder, netns, log, ...(hangAt !== undefined && { hangAt: Number(hangAt) }) });

await serveHelper({
  listen: { path },
  perform: (verb, say, gone) => perform(verb, { ...host, log: say }, gone),
  lockOf,
  log,
});
log('listens');
