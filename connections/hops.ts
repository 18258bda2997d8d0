/**
 * The table of hops: what arguments each takes and what opens it. A new hop is one row here and one file beside it.
 */
import { ChainError, formatChainText } from './chain.ts';
import type { ChrootOptions } from './_chroot.ts';
import { openAgent } from './agent.ts';
import { openChrootFork } from './chroot-fork.ts';
import { openChrootShell } from './chroot-shell.ts';
import { openChroot } from './chroot.ts';
import type { AgentSource, Connection, Hop } from './connection.ts';
import { openMachined } from './machined.ts';
import { openNetns } from './netns.ts';
import { openNsenter } from './nsenter.ts';
import { openNspawn } from './nspawn.ts';
import { openAs, openSetuid } from './setuid.ts';
import { openSsh } from './ssh.ts';
import { openSu } from './su.ts';
import { openSudo } from './sudo.ts';

/** Types of arguments, by name. */
interface ArgumentTypes {
  string: string;
  number: number;
  boolean: boolean;
}

const isOfType = <T extends keyof ArgumentTypes>(value: unknown, type: T): value is ArgumentTypes[T] =>
  typeof value === type;

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

  /** Those that were given, of one type. */
  given<K extends string, T extends keyof ArgumentTypes>(
    names: readonly K[],
    type: T,
  ): { [N in K]?: ArgumentTypes[T] } {
    const found: { [N in K]?: ArgumentTypes[T] } = {};
    for (const name of names) {
      const value = this.#hop[1]?.[name];
      if (isOfType(value, type)) found[name] = value;
    }
    return found;
  }
}

/** One row of the table. */
interface HopRow {
  readonly about: string;
  readonly args: Readonly<Record<string, Argument>>;
  /** `native`: it needs our JavaScript to stand on. */
  readonly standsOn: 'nothing' | 'any' | 'native';
  readonly gives: 'posix' | 'native' | 'posix or native';
  readonly needsRoot?: true;
  /** What will be run, in words. */
  explain(args: Arguments): string;
  open(base: Connection, args: Arguments, agent: AgentSource | undefined): Promise<Connection>;
}

const USER: Argument = { type: 'string', about: 'the user; default root' };

const CHROOT_ARGS: HopRow['args'] = {
  into: { type: 'string', required: true, about: 'absolute path of the root' },
  network: { type: 'boolean', about: "give it this host's /etc/resolv.conf; default true (chroot.fork: false)" },
  binds: { type: 'string', about: 'read-only binds: /outside:/inside[,…]' },
  shares: { type: 'string', about: 'writable binds: /outside:/inside[,…]' },
};

/** Name → what it takes and how it is opened. */
export const HOPS: Readonly<Record<string, HopRow>> = {
  local: {
    about: 'this process; only the first hop',
    args: {},
    standsOn: 'nothing',
    gives: 'native',
    explain: () => 'programs are started by this process; they end with it',
    open: async (base) => base,
  },
  ssh: {
    about: 'another host, by OpenSSH',
    args: {
      host: { type: 'string', required: true, about: 'name, address, or alias of the ssh configuration' },
      port: { type: 'number', about: 'default 22' },
      user: { type: 'string', about: 'default: as ssh has it' },
      key: { type: 'string', about: 'file of a private key; then no other is tried' },
      hostKey: { type: 'string', about: '"ssh-ed25519 AAAA…": accept this key only' },
      knownHosts: { type: 'string', about: "file of known hosts, instead of the user's" },
      config: { type: 'string', about: 'file of the ssh configuration, or none' },
      connectTimeout: { type: 'number', about: 'seconds; default 10' },
    },
    standsOn: 'any',
    gives: 'posix',
    explain: (args) => {
      const user = args.string('user');
      const trust =
        args.string('hostKey') !== undefined
          ? 'only with the pinned host key'
          : `only if its key is in ${args.string('knownHosts') ?? 'the known hosts'}`;
      return (
        `"ssh" connects once to ${user === undefined ? '' : `${user}@`}${args.string('host') ?? ''} port ${args.number('port') ?? 22}, ` +
        `${trust}, asking nobody; each command is a session of that connection, in the shell of that user`
      );
    },
    open: (base, args) =>
      openSsh(base, {
        host: args.string('host') ?? '',
        ...args.given(['port', 'connectTimeout'], 'number'),
        ...args.given(['user', 'key', 'hostKey', 'knownHosts', 'config'], 'string'),
      }),
  },
  sudo: {
    about: 'another user, by sudo',
    args: { user: USER },
    standsOn: 'any',
    gives: 'posix',
    explain: (args) =>
      `"sudo -n -H -u ${args.string('user') ?? 'root'}" runs each command; if it wants a password, that is given by askpass. ` +
      'Nothing, if we are that user already and it is root',
    open: (base, args) => openSudo(base, args.given(['user'], 'string')),
  },
  su: {
    about: 'another user, by su',
    args: { user: USER },
    standsOn: 'any',
    gives: 'posix',
    explain: (args) =>
      `"su ${args.string('user') ?? 'root'}" runs each command; if it wants a password, that is given by a pipe of its own. ` +
      'Nothing, if we are that user already and it is root',
    open: (base, args) => openSu(base, args.given(['user'], 'string')),
  },
  setuid: {
    about: 'another user, with our JavaScript',
    args: { user: { type: 'string', required: true, about: 'name or number' } },
    standsOn: 'native',
    gives: 'native',
    needsRoot: true,
    explain: (args) =>
      `another Node is started, becomes ${args.string('user') ?? ''} with that user's groups, and runs each command`,
    open: (base, args) => openSetuid(base, { user: args.string('user') ?? '' }),
  },
  as: {
    about: 'another user, the best way there is',
    args: { user: { type: 'string', required: true, about: 'the user' } },
    standsOn: 'any',
    gives: 'posix or native',
    explain: (args) => `as "setuid" where our JavaScript runs as root, else as "su": to ${args.string('user') ?? ''}`,
    open: (base, args) => openAs(base, { user: args.string('user') ?? '' }),
  },
  chroot: {
    about: 'a root below this one, the best way there is',
    args: CHROOT_ARGS,
    standsOn: 'any',
    gives: 'posix or native',
    needsRoot: true,
    explain: (args) =>
      `as "chroot.fork" where our JavaScript runs and "network" is false, else as "chroot.shell": into ${args.string('into') ?? ''}`,
    open: (base, args) => openChroot(base, chrootOptions(args)),
  },
  'chroot.shell': {
    about: 'a root below this one, mounts for each command',
    args: CHROOT_ARGS,
    standsOn: 'any',
    gives: 'posix',
    needsRoot: true,
    explain: (args) =>
      `each command gets namespaces of its own ("unshare"), /proc, /sys, /dev, /run and /tmp mounted in them, and "chroot ${args.string('into') ?? ''}"`,
    open: (base, args) => openChrootShell(base, chrootOptions(args)),
  },
  'chroot.fork': {
    about: 'a root below this one, with our JavaScript, even if it is empty',
    args: CHROOT_ARGS,
    standsOn: 'native',
    gives: 'native',
    needsRoot: true,
    explain: (args) =>
      `Node is bound into ${args.string('into') ?? ''} and started there, in namespaces of its own with /proc, /sys, /dev, /run and /tmp mounted; it runs each command`,
    open: (base, args) => openChrootFork(base, chrootOptions(args)),
  },
  nspawn: {
    about: 'a container, started from a directory for the connection',
    args: {
      directory: { type: 'string', required: true, about: 'absolute path of its root' },
      boot: { type: 'boolean', about: 'start its init; default false' },
      network: { type: 'boolean', about: "this host's network; default true" },
    },
    standsOn: 'any',
    gives: 'posix',
    needsRoot: true,
    explain: (args) =>
      `"systemd-nspawn --directory=${args.string('directory') ?? ''}${args.boolean('boot') === true ? ' --boot' : ''}" runs as long as the connection; ` +
      'each command enters it ("nsenter")',
    open: (base, args) =>
      openNspawn(base, {
        directory: args.string('directory') ?? '',
        ...args.given(['boot', 'network'], 'boolean'),
      }),
  },
  machined: {
    about: 'a container that runs and is registered with systemd-machined',
    args: { name: { type: 'string', required: true, about: 'as "machinectl list" shows it' } },
    standsOn: 'any',
    gives: 'posix',
    needsRoot: true,
    explain: (args) =>
      `"machinectl show ${args.string('name') ?? ''}" names its init; each command enters that ("nsenter")`,
    open: (base, args) => openMachined(base, { name: args.string('name') ?? '' }),
  },
  netns: {
    about: 'a named network namespace',
    args: { name: { type: 'string', required: true, about: 'as "ip netns list" shows it' } },
    standsOn: 'any',
    gives: 'posix',
    needsRoot: true,
    explain: (args) => `"ip netns exec ${args.string('name') ?? ''}" runs each command`,
    open: (base, args) => openNetns(base, { name: args.string('name') ?? '' }),
  },
  nsenter: {
    about: 'the namespaces and the root of a process',
    args: { pid: { type: 'number', required: true, about: 'its process id' } },
    standsOn: 'any',
    gives: 'posix',
    needsRoot: true,
    explain: (args) => `"nsenter -t ${args.number('pid') ?? 0}" runs each command`,
    open: (base, args) => openNsenter(base, { pid: args.number('pid') ?? 0 }),
  },
  agent: {
    about: 'our JavaScript, on a host that has a shell',
    args: {},
    standsOn: 'any',
    gives: 'native',
    explain: () => 'Node is copied into ~/.cache/buildos unless it is there, and started; it runs each command',
    open: (base, _, agent) => openAgent(base, agent),
  },
};

function chrootOptions(args: Arguments): ChrootOptions {
  return {
    into: args.string('into') ?? '',
    binds: parseBinds(args.string('binds')),
    shares: parseBinds(args.string('shares')),
    ...args.given(['network'], 'boolean'),
  };
}

/** A hop that fits its row. */
export interface CheckedHop {
  readonly hop: Hop;
  readonly row: HopRow;
  readonly args: Arguments;
}

/**
 * Finds the row of a hop and checks its arguments. Contacts nothing.
 *
 * @throws {ChainError} for an unknown hop, an unknown or missing argument, or a wrong type
 */
export function checkHop(hop: Hop): CheckedHop {
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
  const checked = { hop, row, args: new Arguments(hop) };
  if ('binds' in row.args) chrootOptions(checked.args); // so that a wrong list is found now
  return checked;
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

/**
 * Checks a whole chain: each hop by itself, and what it stands on. Contacts nothing.
 *
 * @throws {ChainError}
 */
export function checkChain(chain: readonly Hop[]): readonly CheckedHop[] {
  const checked = chain.map(checkHop);
  let before: CheckedHop | undefined;
  for (const one of checked) {
    if (one.row.standsOn === 'native' && before?.row.gives === 'posix') {
      throw new ChainError(
        `${formatChainText([one.hop])} needs our JavaScript to stand on, and ${formatChainText([before.hop])} gives a shell`,
        'Put the hop "agent" between them.',
      );
    }
    before = one;
  }
  return checked;
}
