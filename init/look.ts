/** What stage 1 finds: reads only, changes nothing. */
import { type Connection, FileError, text } from '../connections/connection.ts';
import { BUSYBOX, LAYERS, type Layer, NEWROOT, PAYLOAD_JSON, type Payload } from './layout.ts';
import type { HostFacts, RootFacts } from './plan.ts';
import { InitError } from './step.ts';

const LOOK_TIMEOUT_MS = 30_000;

/**
 * First line: type of the initramfs's file system, its free blocks, their size. Then for each layer its size, the blocks
 * that hold it, their size; or an empty line when it is not there.
 */
const SIZES = `"$0" stat -f -c '%t %a %S' /; for f; do "$0" stat -c '%s %b %B' "$f" || echo; done`;

/** TMPFS_MAGIC of linux/magic.h: it counts blocks. (With `root=` on the command line the kernel takes ramfs, which does not.) */
const TMPFS = '1021994';

/** Looks at the initramfs and the host; needs /proc. */
export async function lookAtRoot(on: Connection): Promise<RootFacts> {
  const payload = parsePayload(await readText(on, PAYLOAD_JSON, 'payload'));
  const paths = payload.layers.map(({ name }) => `${LAYERS}/${name}`);
  const sizes = await on.run([BUSYBOX, 'sh', '-c', SIZES, BUSYBOX, ...paths], {
    okStatus: 'any',
    timeoutMs: LOOK_TIMEOUT_MS,
  });
  const [space = '', ...found] = text(sizes).split('\n');
  const [type, ...free] = space.split(' ');
  const [freeBlocks = 0, freeBlockSize = 0] = free.map(Number);
  return {
    payload,
    layers: payload.layers.map((_, index) => {
      const [sizeBytes, blocks = 0, blockSize = 0] = (found[index] ?? '').split(' ').filter(Boolean).map(Number);
      const stored = Math.min(blocks * blockSize, sizeBytes ?? 0);
      return { sizeBytes, storedBytes: type === TMPFS ? stored : undefined };
    }),
    initramfsFreeBytes: freeBlocks * freeBlockSize,
    memoryMiB: parseMemoryMiB(await readText(on, '/proc/meminfo', 'payload')),
  };
}

/** Looks at the mounted root. */
export async function lookAtHost(on: Connection, memoryMiB: number): Promise<HostFacts> {
  return { memoryMiB, passwd: await readText(on, `${NEWROOT}/etc/passwd`, 'host') };
}

/** The names of the consoles that the kernel writes to, such as `tty0`, `ttyS0`; the last one is /dev/console. */
export async function lookAtConsoles(on: Connection): Promise<string[]> {
  const content = await on.readFile('/sys/class/tty/console/active').catch(() => new Uint8Array());
  return Buffer.from(content).toString('utf8').split(/\s+/).filter(Boolean);
}

/** The kernel command line, as given. */
export async function lookAtCommandLine(on: Connection): Promise<string> {
  return await readText(on, '/proc/cmdline', 'options');
}

/**
 * Reads /buildos/payload.json. Without zod: it is three values, and init should start fast.
 *
 * @throws {InitError} when it is not what image/ writes
 */
export function parsePayload(content: string): Payload {
  const fail = (reason: string, cause?: unknown): InitError =>
    new InitError('payload', `${PAYLOAD_JSON} is not usable: ${reason}`, {
      hint: 'the initrd is damaged or from another version: publish the image again',
      cause,
    });
  let data: unknown;
  try {
    data = JSON.parse(content);
  } catch (error) {
    throw fail('not JSON', error);
  }
  const { buildId, layers } = record(data);
  if (typeof buildId !== 'string' || buildId === '') throw fail('no buildId');
  if (!Array.isArray(layers) || layers.length === 0) throw fail('no layers');
  return {
    buildId,
    layers: layers.map((layer: unknown): Layer => {
      const { name, size, sha256 } = record(layer);
      if (typeof name !== 'string' || !/^[a-z0-9][a-z0-9.-]*$/.test(name)) throw fail('a layer without a name');
      if (typeof size !== 'number' || !Number.isSafeInteger(size) || size <= 0) throw fail(`no size of ${name}`);
      if (typeof sha256 !== 'string' || !/^[0-9a-f]{64}$/.test(sha256)) throw fail(`no sha256 of ${name}`);
      return { name, size, sha256 };
    }),
  };
}

/** `MemTotal` of /proc/meminfo in MiB; 0 when it is not there. */
export function parseMemoryMiB(meminfo: string): number {
  const match = /^MemTotal:\s+(\d+) kB/m.exec(meminfo);
  return Math.floor(Number(match?.[1] ?? 0) / 1024);
}

function record(data: unknown): Readonly<Record<string, unknown>> {
  return typeof data === 'object' && data !== null ? { ...data } : {};
}

async function readText(on: Connection, path: string, step: string): Promise<string> {
  try {
    return Buffer.from(await on.readFile(path)).toString('utf8');
  } catch (error) {
    const missing = error instanceof FileError && error.code === 'ENOENT';
    const reason = missing ? `The initrd or the image lacks ${path}` : `Cannot read ${path}`;
    throw new InitError(step, reason, {
      hint: missing
        ? 'the initrd is cut short or incomplete: compare it with SHA256SUMS and publish the image again'
        : 'try again; if it stays, test the memory of this host',
      cause: error,
    });
  }
}
