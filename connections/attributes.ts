/**
 * Attributes of a connection: what is known only by looking, such as who we are there. Each is looked up once, when it
 * is first asked for. The next hop starts with none of them, but for those that are declared to pass on.
 */
import { type Connection, lines } from './connection.ts';

/** Something to know about the far end of a connection. */
export interface Attribute<T> {
  readonly name: string;
  /** Whether what holds here holds behind every further hop too. Default: it does not. */
  readonly passesOn?: true;
  look(on: Connection): Promise<T>;
}

/** Who and where we are. */
export interface Identity {
  readonly uid: number;
  /** The user's name; the number where it has none. */
  readonly user: string;
  /** The user's home folder; `/` where it has none. */
  readonly home: string;
  /** As uname(2) has it. */
  readonly hostName: string;
  /** As uname(2) has it: `x86_64`, `aarch64`. */
  readonly machine: string;
}

/** Who we are there, and on what machine: one small shell script. */
export const IDENTITY: Attribute<Identity> = {
  name: 'identity',
  look: async (on) => {
    const script = 'id -u; id -un 2>/dev/null || id -u; uname -n; uname -m; eval "echo ~$(id -un 2>/dev/null)"';
    const [uid = '', user = uid, hostName = '', machine = '', home = '/'] = lines(await on.run(['sh', '-c', script]));
    return { uid: Number(uid), user, hostName, machine, home: home.startsWith('/') ? home : '/' };
  },
};

/** Whether services can run there: systemd is the init. Chroots say no, for all that is behind them too. */
export const HAS_SERVICES: Attribute<boolean> = {
  name: 'hasServices',
  passesOn: true,
  look: async (on) => (await on.run(['test', '-d', '/run/systemd/system'], { okStatus: [0, 1] })).status === 0,
};

/** Whether one command sees the processes of another. Not so in a chroot.shell, nor behind it. */
export const SHARES_PROCESSES: Attribute<boolean> = {
  name: 'sharesProcesses',
  passesOn: true,
  look: () => Promise.resolve(true),
};

interface Known {
  readonly attribute: Attribute<unknown>;
  readonly value: Promise<unknown>;
}

const known = new WeakMap<Connection, Map<string, Known>>();

/** Looks an attribute up, unless it is known. A look that failed is not kept. */
export async function lookUp<T>(on: Connection, attribute: Attribute<T>): Promise<T> {
  const found = of(on).get(attribute.name);
  // What is kept under a name was put there by the attribute of that name.
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion
  if (found !== undefined) return (await found.value) as T;
  const value = attribute.look(on);
  of(on).set(attribute.name, { attribute, value });
  value.catch(() => of(on).delete(attribute.name));
  return await value;
}

/** States an attribute that needs no look. */
export function setAttribute<T>(on: Connection, attribute: Attribute<T>, value: T): void {
  of(on).set(attribute.name, { attribute, value: Promise.resolve(value) });
}

/** Gives the next hop what passes on. */
export function passOn(from: Connection, to: Connection): void {
  for (const [name, one] of of(from)) if (one.attribute.passesOn === true) of(to).set(name, one);
}

/** Makes `to` another name of `from`: what is found out about one is known of the other. */
export function shareAttributes(from: Connection, to: Connection): void {
  known.set(to, of(from));
}

function of(connection: Connection): Map<string, Known> {
  let map = known.get(connection);
  if (map === undefined) known.set(connection, (map = new Map()));
  return map;
}
