/** A server of a machine in a process of its own, for tests that kill it: `node _tftp-child.ts FOLDER DRIVER ADDRESS RULE`. */
import { serveMachine } from '../../tftp/instance.ts';

const [, , folder = '', driver = '', address = '', rule = ''] = process.argv;
if (rule !== 'once' && rule !== 'replace' && rule !== 'append') throw new RangeError(`no such rule: ${rule}`);
if (driver !== 'dgram' && driver !== 'gso') throw new RangeError(`no such driver: ${driver}`);
const options = { folder, address, peer: address, driver, writable: { up: { maxBytes: 1_000_000, rule } } } as const;
const server = await serveMachine(options);
process.stdout.write(`${server.port}\n`);
