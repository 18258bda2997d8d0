/** What a run needs besides properties: hops on top of a connection, and files of the controller. */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { shareAttributes } from '../connections/attributes.ts';
import { type Connection, type Hop, HopError } from '../connections/connection.ts';
import { checkHop } from '../connections/hops.ts';
import { FailedChangeError, type Source } from './property.ts';

/** Opens hops on top of a connection; disposing lets go of these only. */
export async function openHops(base: Connection, hops: readonly Hop[]): Promise<Connection> {
  const checked = hops.map(checkHop);
  const stack = new AsyncDisposableStack();
  let connection = base;
  try {
    for (const { row, args } of checked)
      connection = stack.use(await row.open(connection, args, connection.native?.agent));
  } catch (error) {
    await stack.disposeAsync();
    if (error instanceof HopError)
      throw new FailedChangeError(error.message, {
        cause: error,
        ...(error.hint === undefined ? {} : { hint: error.hint }),
      });
    throw error;
  }
  const opened: Connection = { ...connection, [Symbol.asyncDispose]: () => stack.disposeAsync() };
  shareAttributes(connection, opened);
  return opened;
}

/**
 * Reads a file of the controller.
 *
 * @throws {FailedChangeError} when it is not there, or its digest is another one
 */
export async function readSource(source: Source): Promise<Uint8Array> {
  let bytes: Uint8Array;
  try {
    bytes = await readFile(source.source);
  } catch (cause) {
    throw new FailedChangeError(`Cannot read the source "${source.source}"`, { cause });
  }
  const sha256 = createHash('sha256').update(bytes).digest('hex');
  if (sha256 !== source.sha256) {
    throw new FailedChangeError(
      `Cannot use the source "${source.source}": its SHA-256 is ${sha256}, and the definition says ${source.sha256}`,
      { hint: 'The file changed after the host was defined; define it again.' },
    );
  }
  return bytes;
}
