/** Opens chains: every hop is checked before the first is contacted, then each is opened through the one before. */
import { shareAttributes } from './attributes.ts';
import { normaliseChain } from './chain.ts';
import type { AgentSource, Chain, Connection, DataSource } from './connection.ts';
import { checkChain } from './hops.ts';
import { openLocal } from './local.ts';

/** What a chain may need besides its hops. */
export interface OpenOptions {
  /** Where passwords and the like come from. */
  readonly data?: DataSource;
  /** The agent for native hops; without it there are none but `local`. */
  readonly agent?: AgentSource;
  /** Told when a hop is open, with the connection up to it. */
  readonly onHop?: (connection: Connection) => void | Promise<void>;
}

/**
 * Opens a chain.
 *
 * @param chain - in any shape that normaliseChain takes
 * @returns the far end; disposing it lets go of every hop, the last first
 * @throws {ChainError} before anything is contacted
 * @throws {HopError} when a hop cannot be opened; hops opened before it are let go
 */
export async function openChain(chain: Chain, options: OpenOptions = {}): Promise<Connection> {
  const checked = checkChain(normaliseChain(chain));
  const { data, agent } = options;
  await using stack = new AsyncDisposableStack();
  let opened = stack.use(
    openLocal({
      killWithUs: 'group',
      ...(data === undefined ? {} : { data }),
      ...(agent === undefined ? {} : { agent }),
    }),
  );
  await options.onHop?.(opened);
  for (const { row, args } of checked.slice(1)) {
    opened = stack.use(await row.open(opened, args, agent));
    await options.onHop?.(opened);
  }
  const held = stack.move();
  const connection: Connection = { ...opened, [Symbol.asyncDispose]: () => held.disposeAsync() };
  shareAttributes(opened, connection);
  return connection;
}
