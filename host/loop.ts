/**
 * losetup: files as block devices.
 */
import { type Connection, text } from '../connections/connection.ts';

const TIMEOUT_MS = 20_000;

/** A file that is attached; disposing it detaches. */
export interface LoopDevice extends AsyncDisposable {
  /** such as `/dev/loop0` */
  readonly device: string;
}

/** What `losetup --list` knows of one device. */
export interface AttachedFile {
  readonly device: string;
  readonly file: string;
  readonly readOnly: boolean;
}

/** Attaches a file to the first free loop device, at offset 0, with its whole size. */
export async function attachLoop(
  on: Connection,
  file: string,
  options: { readonly readOnly?: boolean } = {},
): Promise<LoopDevice> {
  const flags = options.readOnly === true ? ['--read-only'] : [];
  const result = await on.run(['losetup', '--find', '--show', ...flags, '--', file], { timeoutMs: TIMEOUT_MS });
  const device = text(result).trim();
  if (!/^\/dev\/loop\d+$/.test(device)) {
    throw new Error(`Cannot attach "${file}": losetup answered ${JSON.stringify(device)}, not a loop device`);
  }
  return { device, [Symbol.asyncDispose]: () => detachLoop(on, device) };
}

/** Detaches a loop device; one in use goes away when its last user does (the kernel's lazy detach). */
export async function detachLoop(on: Connection, device: string): Promise<void> {
  await on.run(['losetup', '--detach', device], { timeoutMs: TIMEOUT_MS });
}

/** The loop devices that hold a file. */
export async function listLoops(on: Connection, file: string): Promise<readonly AttachedFile[]> {
  const argv = ['losetup', '--json', '--list', '--output', 'NAME,BACK-FILE,RO', '--associated', file];
  const answer = text(await on.run(argv, { timeoutMs: TIMEOUT_MS }));
  return parseLoops(answer);
}

/**
 * Parses `losetup --json --list --output NAME,BACK-FILE,RO`; no device at all prints nothing.
 *
 * @throws {SyntaxError} when it is not JSON
 */
export function parseLoops(answer: string): readonly AttachedFile[] {
  if (answer.trim() === '') return [];
  const value: unknown = JSON.parse(answer);
  const rows: unknown = typeof value === 'object' && value !== null ? Reflect.get(value, 'loopdevices') : undefined;
  if (!Array.isArray(rows)) return [];
  return rows.flatMap((row: unknown) => {
    if (typeof row !== 'object' || row === null) return [];
    const [device, file]: unknown[] = [Reflect.get(row, 'name'), Reflect.get(row, 'back-file')];
    if (typeof device !== 'string' || typeof file !== 'string') return [];
    return [{ device, file, readOnly: Reflect.get(row, 'ro') === true }];
  });
}
