/** Users, as /etc/passwd and /etc/group have them. Passwords are locked; who may log in comes by ssh keys. */
import { z } from 'zod';
import { arg, textThat } from './args.ts';
import { type FactRequest, type Facts } from './facts.ts';
import {
  type HostWriter,
  type PropertyApplication,
  FailedChangeError,
  InapplicablePropertyError,
  defineProperty,
} from './property.ts';

/** A user as it should be. */
export type UserOptions = {
  readonly name: string;
  /** Default: the next free system id. */
  readonly uid?: number;
  /** Id of the user's own group, which has the user's name; default the uid. */
  readonly gid?: number;
  /** Default /nonexistent. */
  readonly home?: string;
  /** Default /usr/sbin/nologin. */
  readonly shell?: string;
  /** Other groups the user is in; more memberships are left alone. They must exist. */
  readonly groups?: readonly string[];
  /** Whether the home directory is made; default false. */
  readonly makeHome?: boolean;
};

const NAME: z.ZodType<string> = textThat(
  (name) => /^[a-z_][a-z0-9_-]{0,31}$/.test(name),
  'the name of a user or group',
);
const ID: z.ZodType<number> = z.int().min(0).max(4_294_967_294);
const FIELD: z.ZodType<string> = textThat((path) => /^\/[^:\n\0]*$/.test(path), 'an absolute path without ":"');

const USER: z.ZodType<UserOptions> = z.strictObject({
  name: NAME,
  uid: ID.exactOptional(),
  gid: ID.exactOptional(),
  home: FIELD.exactOptional(),
  shell: FIELD.exactOptional(),
  groups: z.array(NAME).exactOptional(),
  makeHome: z.boolean().exactOptional(),
});

const GROUP_OPTIONS: z.ZodType<{ readonly name: string; readonly gid?: number }> = z.strictObject({
  name: NAME,
  gid: ID.exactOptional(),
});

/** A user is there, with a group of the same name. Unapplied: the user goes away, its files stay. */
export const present: (user: UserOptions) => PropertyApplication = defineProperty<[user: UserOptions]>({
  id: 'user.present',
  kind: 'posix',
  describe: ({ name, uid }) => `user ${name}${uid === undefined ? '' : ` (${uid})`}`,
  about:
    'A user is there, with a group of the same name and a locked password. Unapplied: the user goes away, its files stay.',
  args: [
    arg('user', USER, 'default: the next free system id, no home (/nonexistent), no shell (nologin), no other groups'),
  ],
  manages: ({ name }) => [`user ${name}`, `group ${name}`],
  hostattrs: (known, { name, uid, home }) => {
    const clash = known.users.find((other) => uid !== undefined && other.uid === uid && other.name !== name);
    if (clash !== undefined)
      throw new InapplicablePropertyError(`"${known.name}" gives uid ${uid} to "${clash.name}" and "${name}"`);
    return { users: [{ name, uid: uid ?? null, home: home ?? NO_HOME }], groups: [name] };
  },
  facts: ({ home }) => [...DATABASES, ...(home === undefined ? [] : [{ fact: 'file', path: home } as const])],
  check: ({ facts }, user) =>
    passwdMatches(facts, user) &&
    missingGroups(facts, user).length === 0 &&
    (user.makeHome !== true || user.home === undefined || facts.file(user.home)?.type === 'directory'),
  apply: async (host, user) => await makeUser(host, user),
  checkUnapplied: ({ facts }, { name }) => findLine(facts, PASSWD, name) === undefined,
  unapply: async (host, { name }) => void (await host.run(['userdel', '--', name])),
});

/** A group is there. Unapplied: it goes away. */
export const groupPresent: (group: { readonly name: string; readonly gid?: number }) => PropertyApplication =
  defineProperty<[group: { readonly name: string; readonly gid?: number }]>({
    id: 'group.present',
    kind: 'posix',
    describe: ({ name, gid }) => `group ${name}${gid === undefined ? '' : ` (${gid})`}`,
    about: 'A group is there. Unapplied: it goes away.',
    args: [arg('group', GROUP_OPTIONS, 'default: the next free system id')],
    manages: ({ name }) => [`group ${name}`],
    hostattrs: (_known, { name }) => ({ groups: [name] }),
    facts: () => DATABASES,
    check: ({ facts }, { name, gid }) => groupMatches(facts, name, gid),
    apply: async (host, { name, gid }) => await makeGroup(host, name, gid),
    checkUnapplied: ({ facts }, { name }) => findLine(facts, GROUP, name) === undefined,
    unapply: async (host, { name }) => void (await host.run(['groupdel', '--', name])),
  });

const PASSWD = '/etc/passwd';
const GROUP = '/etc/group';
const NO_HOME = '/nonexistent';
const NO_SHELL = '/usr/sbin/nologin';

const DATABASES: readonly FactRequest[] = [
  { fact: 'text', path: PASSWD },
  { fact: 'text', path: GROUP },
];

function findLine(facts: Facts, path: string, name: string): readonly string[] | undefined {
  const line = facts
    .text(path)
    ?.split('\n')
    .find((one) => one.startsWith(`${name}:`));
  return line?.split(':');
}

function passwdMatches(facts: Facts, user: UserOptions): boolean {
  const fields = findLine(facts, PASSWD, user.name);
  if (fields === undefined) return false;
  const [, , uid = '', gid = '', , home, shell] = fields;
  return (
    (user.uid === undefined || uid === String(user.uid)) &&
    findLine(facts, GROUP, user.name)?.[2] === gid &&
    groupMatches(facts, user.name, user.gid ?? user.uid) &&
    home === (user.home ?? NO_HOME) &&
    shell === (user.shell ?? NO_SHELL)
  );
}

function groupMatches(facts: Facts, name: string, gid: number | undefined): boolean {
  const fields = findLine(facts, GROUP, name);
  return fields !== undefined && (gid === undefined || fields[2] === String(gid));
}

const missingGroups = (facts: Facts, user: UserOptions): string[] =>
  (user.groups ?? []).filter((group) => !(findLine(facts, GROUP, group)?.[3] ?? '').split(',').includes(user.name));

async function makeGroup(host: HostWriter, name: string, gid: number | undefined): Promise<void> {
  const id = gid === undefined ? [] : ['--gid', String(gid)];
  const known = findLine(host.facts, GROUP, name) !== undefined;
  await host.run(known ? ['groupmod', ...id, '--', name] : ['groupadd', '--system', ...id, '--', name]);
}

async function makeUser(host: HostWriter, user: UserOptions): Promise<void> {
  const { name } = user;
  const { facts } = host;
  const unknown = (user.groups ?? []).filter((group) => findLine(facts, GROUP, group) === undefined);
  if (unknown.length > 0) {
    throw new FailedChangeError(`Cannot put "${name}" into groups that do not exist: ${unknown.join(', ')}`, {
      hint: 'Make them before, with group.present or the package that brings them.',
    });
  }
  const commands: string[][] = [];
  const gid = user.gid ?? user.uid;
  if (!groupMatches(facts, name, gid)) await makeGroup(host, name, gid);
  if (!passwdMatches(facts, user)) {
    const words = [
      ...(user.uid === undefined ? [] : ['--uid', String(user.uid)]),
      '--gid',
      name,
      '--shell',
      user.shell ?? NO_SHELL,
    ];
    const home = user.home ?? NO_HOME;
    const known = findLine(facts, PASSWD, name) !== undefined;
    commands.push(
      known
        ? ['usermod', ...words, '--home', home, '--', name]
        : ['useradd', '--system', '--no-create-home', ...words, '--home-dir', home, '--', name],
    );
  }
  if ((user.groups ?? []).length > 0)
    commands.push(['usermod', '--append', '--groups', (user.groups ?? []).join(','), '--', name]);
  for (const command of commands) await host.run(command);
  if (user.makeHome === true && user.home !== undefined && facts.file(user.home) === undefined) {
    await host.run(['install', '-d', '-m', '0755', '-o', name, '-g', name, '--', user.home]);
  }
}
