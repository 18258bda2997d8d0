/**
 * The table of hops: what arguments each takes and what opens it. A new hop is one row here and one file beside it.
 */
import { ChainError, formatChainText } from './chain.ts';
import { openChroot } from './chroot.ts';
import type { Connection, Hop } from './connection.ts';
import { openLocal } from './local.ts';
import { openNetns, openNsenter } from './netns.ts';
import { openSudo } from './sudo.ts';

/** What an argument of a hop is. */
interface Argument {
  readonly type: 'string' | 'number' | 'boolean';
  readonly required?: true;
  readonly about: string;
}

/** The arguments of one hop, checked against its row. */
class Arguments {
  readonly #hop: Hop;

  constructor(hop: Hop) {
    this.#hop = hop;
  }

  string(name: string): string | undefined {
    const value = this.#hop[1]?.[name];
    return typeof value === 'string' ? value : undefined;
  }

  number(name: string): number | undefined {
    const value = this.#hop[1]?.[name];
    return typeof value === 'number' ? value : undefined;
  }

  boolean(name: string): boolean | undefined {
    const value = this.#hop[1]?.[name];
    return typeof value === 'boolean' ? value : undefined;
  }
}

/** One row of the table. */
interface HopRow {
  readonly about: string;
  readonly args: Readonly<Record<string, Argument>>;
  open(base: Connection, args: Arguments): Promise<Connection>;
}

/** Name → what it takes and how it is opened. */
export const HOPS: Readonly<Record<string, HopRow>> = {
  local: {
    about: 'this process; only the first hop',
    args: {},
    open: async () => openLocal(),
  },
  sudo: {
    about: 'another user, without a password',
    args: { user: { type: 'string', about: 'the user; default root' } },
    open: (base, args) => {
      const user = args.string('user');
      return openSudo(base, user === undefined ? {} : { user });
    },
  },
  chroot: {
    about: 'a root below this one; needs root',
    args: {
      into: { type: 'string', required: true, about: 'absolute path of the root' },
      network: { type: 'boolean', about: "give it this host's /etc/resolv.conf and /etc/hosts; default true" },
      binds: { type: 'string', about: 'read-only binds: /outside:/inside[,…]' },
      shares: { type: 'string', about: 'writable binds: /outside:/inside[,…]' },
    },
    open: (base, args) => {
      const network = args.boolean('network');
      return openChroot(base, {
        into: args.string('into') ?? '',
        binds: parseBinds(args.string('binds')),
        shares: parseBinds(args.string('shares')),
        ...(network === undefined ? {} : { network }),
      });
    },
  },
  netns: {
    about: 'a named network namespace; needs root',
    args: { name: { type: 'string', required: true, about: 'as "ip netns list" shows it' } },
    open: (base, args) => openNetns(base, { name: args.string('name') ?? '' }),
  },
  nsenter: {
    about: 'the namespaces and the root of a process; needs root',
    args: { pid: { type: 'number', required: true, about: 'its process id' } },
    open: (base, args) => openNsenter(base, { pid: args.number('pid') ?? 0 }),
  },
};

/**
 * Finds the row of a hop and checks its arguments. Contacts nothing.
 *
 * @throws {ChainError} for an unknown hop, an unknown or missing argument, or a wrong type
 */
export function checkHop(hop: Hop): { readonly row: HopRow; readonly args: Arguments } {
  const [name, given = {}] = hop;
  const row = Object.hasOwn(HOPS, name) ? HOPS[name] : undefined;
  if (row === undefined) {
    throw new ChainError(`there is no hop "${name}"`, `Hops are: ${Object.keys(HOPS).join(', ')}.`);
  }
  const known = Object.entries(row.args).map(([key, { type, about }]) => `${key} (${type}: ${about})`);
  const hint = known.length === 0 ? `"${name}" takes no arguments.` : `"${name}" takes ${known.join('; ')}.`;
  for (const [key, value] of Object.entries(given)) {
    const argument = Object.hasOwn(row.args, key) ? row.args[key] : undefined;
    if (argument === undefined)
      throw new ChainError(`${formatChainText([hop])} has an unknown argument "${key}"`, hint);
    if (typeof value !== argument.type) {
      throw new ChainError(`argument "${key}" of ${formatChainText([hop])} is not a ${argument.type}`, hint);
    }
  }
  for (const [key, argument] of Object.entries(row.args)) {
    if (argument.required === true && !Object.hasOwn(given, key)) {
      throw new ChainError(`hop "${name}" lacks the argument "${key}"`, hint);
    }
  }
  return { row, args: new Arguments(hop) };
}

/** Reads `/outside:/inside,…`. */
function parseBinds(list: string | undefined): { readonly from: string; readonly to: string }[] {
  return (list ?? '')
    .split(',')
    .filter((item) => item !== '')
    .map((item) => {
      const [from = '', to = '', ...more] = item.split(':');
      if (!from.startsWith('/') || !to.startsWith('/') || more.length > 0) {
        throw new ChainError(`"${item}" is not a bind`, 'A bind is /outside:/inside, both absolute.');
      }
      return { from, to };
    });
}
