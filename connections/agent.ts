/**
 * The hop `agent`: our JavaScript on a host that has a shell. Node with its loader and libraries goes there once, into a
 * folder named by its digest; the bundle goes there each time, over stdin.
 *
 * The folder is below ~/.cache/buildos. It is complete or not there; one that was not used for 30 days is removed when a
 * new one comes.
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { pipeline } from 'node:stream/promises';
import { createGzip } from 'node:zlib';
import { startAgent } from './_agent.ts';
import { IDENTITY, lookUp } from './attributes.ts';
import { runtimeIn } from './chroot-fork.ts';
import { type AgentSource, type Connection, type Hop, type NodeRuntime, HopError, lines } from './connection.ts';
import { localNative } from './native.ts';

/** uname(2)'s names of what Node calls x64 and arm64. */
const MACHINES: Readonly<Record<string, string>> = { x64: 'x86_64', arm64: 'aarch64' };

/** Arguments: DIGEST. Says where runtimes are and whether this one is there. */
const LOOK = `
folder=\${XDG_CACHE_HOME:-$HOME/.cache}/buildos
echo "$folder"
if [ -x "$folder/node-$1/node" ]; then touch -- "$folder/node-$1" && echo there; else echo missing; fi
`;

/**
 * Arguments: FOLDER NAME. Reads a compressed tar. Unpacked beside its place, it takes it in one step. A stream that is
 * cut off fails, and then nothing stays.
 */
const UNPACK = `
umask 022
mkdir -p -- "$1" || exit 1
find "$1" -maxdepth 1 -name 'node-*' -mtime +30 -exec rm -rf {} +
find "$1" -maxdepth 1 -name 'part.*' -mmin +60 -exec rm -rf {} +
new=$(mktemp -d -- "$1/part.XXXXXXXX") || exit 1
trap 'rm -rf -- "$new"' EXIT
trap 'exit 143' HUP INT TERM
mkdir "$new/node" && tar -xzf - -C "$new/node" && [ -e "$new/node/complete" ] || exit 1
mv -T -- "$new/node" "$1/$2" 2>/dev/null || [ -x "$1/$2/node" ]
`;

/** Half a minute for each 10 MB, about what a slow line needs. */
const UNPACK_MS = 600_000;

/**
 * Opens an agent on a host.
 *
 * @param source - the agent's bundle
 * @throws {HopError} when the host is of another architecture, or our Node cannot be brought there
 */
export async function openAgent(base: Connection, source: AgentSource | undefined): Promise<Connection> {
  const hop: Hop = ['agent'];
  if (source === undefined) {
    throw new HopError(hop, 'no agent was given when the chain was opened', {
      hint: 'This is a defect of the command: it has to give openChain() an agent.',
    });
  }
  const local = await localNative(() => base, source).runtime();
  const { machine } = await lookUp(base, IDENTITY);
  if (MACHINES[local.arch] !== machine) {
    throw new HopError(hop, `our Node is for ${local.arch}, and this host is ${machine}`, {
      hint: 'Use hops and properties that need a shell only.',
    });
  }
  const name = `node-${await (digest ??= digestOf(local))}`;
  const look = await base.run(['sh', '-c', LOOK, 'look', name.slice('node-'.length)]);
  const [folder = '', found] = lines(look);
  if (!folder.startsWith('/'))
    throw new HopError(hop, `"${folder}" cannot be the folder of caches`, { hint: 'Is HOME set there?' });
  if (found !== 'there') {
    await base.run(['sh', '-c', UNPACK, 'unpack', folder, name], { input: tarOf(local), timeoutMs: UNPACK_MS });
  }
  const runtime = runtimeIn(`${folder}/${name}`, local);
  return await startAgent({ hop, base, agent: source, runtime, wrap: (node) => node, config: {} });
}

let digest: Promise<string> | undefined;

/** SHA-256 over the names and contents of the files, in hex. */
async function digestOf({ files }: NodeRuntime): Promise<string> {
  const all = createHash('sha256');
  for (const { name, path } of files) {
    const one = createHash('sha256');
    await pipeline(createReadStream(path), one);
    all.update(`${name} ${one.digest('hex')}\n`);
  }
  return all.digest('hex');
}

/** The files of a runtime as a compressed tar (ustar, POSIX.1-1988); the last is empty and called `complete`. */
async function* tarOf({ files }: NodeRuntime): AsyncGenerator<Uint8Array> {
  const gzip = createGzip({ level: 1 });
  const fill = async (): Promise<void> => {
    for (const { name, path } of files) {
      const { size } = await stat(path);
      gzip.write(tarHeader(name, size));
      for await (const chunk of createReadStream(path, { highWaterMark: 1024 * 1024 })) {
        if (!gzip.write(chunk)) await new Promise((resolve) => gzip.once('drain', resolve));
      }
      gzip.write(Buffer.alloc((512 - (size % 512)) % 512));
    }
    gzip.write(tarHeader('complete', 0));
    gzip.end(Buffer.alloc(1024));
  };
  const filled = fill().catch((error: unknown) =>
    gzip.destroy(error instanceof Error ? error : new Error(String(error))),
  );
  for await (const chunk of gzip) if (chunk instanceof Uint8Array) yield chunk;
  await filled;
}

/** One header: name, mode, owner, size, time, checksum, type; then the magic word. */
function tarHeader(name: string, sizeBytes: number): Buffer {
  const header = Buffer.alloc(512);
  const octal = (value: number, digits: number): string => `${value.toString(8).padStart(digits, '0')}\0`;
  header.write(name, 0);
  header.write(octal(0o755, 7), 100);
  header.write(octal(0, 7) + octal(0, 7), 108);
  header.write(octal(sizeBytes, 11) + octal(0, 11), 124);
  header.write('        0', 148);
  header.write('ustar\u000000', 257);
  const sum = header.reduce((all, byte) => all + byte, 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  return header;
}
