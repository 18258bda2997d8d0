/** Opens chains: every hop is checked before the first is contacted, then each is opened through the one before. */
import { normaliseChain } from './chain.ts';
import type { Chain, Connection } from './connection.ts';
import { checkHop } from './hops.ts';
import { openLocal } from './local.ts';

/**
 * Opens a chain.
 *
 * @param chain - in any shape that normaliseChain takes
 * @returns the far end; disposing it lets go of every hop, the last first
 * @throws {ChainError} before anything is contacted
 * @throws {HopError} when a hop cannot be opened; hops opened before it are let go
 */
export async function openChain(chain: Chain): Promise<Connection> {
  const checked = normaliseChain(chain).map(checkHop);
  await using stack = new AsyncDisposableStack();
  let connection = openLocal();
  for (const { row, args } of checked.slice(1)) {
    connection = stack.use(await row.open(connection, args));
  }
  const opened = connection;
  const held = stack.move();
  return {
    chain: opened.chain,
    kind: opened.kind,
    run: (argv, options) => opened.run(argv, options),
    readFile: (path) => opened.readFile(path),
    writeFile: (path, content, options) => opened.writeFile(path, content, options),
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  };
}
