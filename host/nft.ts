/**
 * nft: the firewall of the kernel, as rulesets of our own table.
 */
import { type Connection, text } from '../connections/connection.ts';

const TIMEOUT_MS = 20_000;

/** An element of a set that joins an IPv4 address and a port. */
export interface PortElement {
  readonly address: string;
  readonly port: number;
  readonly comment?: string;
}

/** Loads a ruleset in one transaction: all of it holds afterwards, or none. */
export async function loadRuleset(on: Connection, ruleset: string): Promise<void> {
  await on.run(['nft', '--file', '-'], { input: ruleset, timeoutMs: TIMEOUT_MS });
}

/**
 * The elements of a set of type `ipv4_addr . inet_service`.
 *
 * @returns empty when the set, its table or the program `nft` is not there
 */
export async function listPortSet(on: Connection, table: string, set: string): Promise<readonly PortElement[]> {
  const argv = ['nft', '--json', 'list', 'set', 'inet', table, set];
  const result = await on.run(argv, { timeoutMs: TIMEOUT_MS, okStatus: 'any' }).catch(() => undefined);
  return result?.status === 0 ? parsePortSet(text(result)) : [];
}

/**
 * Parses `nft --json list set`: `{"nftables":[…,{"set":{…,"elem":[{"elem":{"val":{"concat":[A,P]},"comment":C}}]}}]}`;
 * an element without a comment stands there as its value alone.
 *
 * @throws {SyntaxError} when it is not JSON
 */
export function parsePortSet(answer: string): readonly PortElement[] {
  const value: unknown = JSON.parse(answer);
  return items(field(value, 'nftables')).flatMap((object) =>
    items(field(field(object, 'set'), 'elem')).flatMap((entry) => {
      const element = field(entry, 'elem') ?? { val: entry };
      const [address, port] = items(field(field(element, 'val'), 'concat'));
      const comment = field(element, 'comment');
      if (typeof address !== 'string' || typeof port !== 'number') return [];
      return [{ address, port, ...(typeof comment === 'string' && { comment }) }];
    }),
  );
}

function field(value: unknown, key: string): unknown {
  return typeof value === 'object' && value !== null ? Reflect.get(value, key) : undefined;
}

function items(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}
