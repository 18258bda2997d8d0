/** Users, as /etc/passwd and /etc/group have them. Passwords are locked; who may log in comes by ssh keys. */
import { z } from 'zod';
import { OWN } from './_file-change.ts';
import { arg, textThat } from './args.ts';
import { DATA_REF, type DataRef, describeRef } from './data.ts';
import { type FactRequest, type Facts } from './facts.ts';
import { ACCOUNT_ID, ACCOUNT_NAME, GROUP, findLine, groupMatches, makeGroup } from './group.ts';
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

const FIELD: z.ZodType<string> = textThat((path) => /^\/[^:\n\0]*$/.test(path), 'an absolute path without ":"');

const USER: z.ZodType<UserOptions> = z.strictObject({
  name: ACCOUNT_NAME,
  uid: ACCOUNT_ID.exactOptional(),
  gid: ACCOUNT_ID.exactOptional(),
  home: FIELD.exactOptional(),
  shell: FIELD.exactOptional(),
  groups: z.array(ACCOUNT_NAME).exactOptional(),
  makeHome: z.boolean().exactOptional(),
});

/** A user is there, with a group of the same name. Unapplied: the user goes away, its files stay. */
export const present: (user: UserOptions) => PropertyApplication = defineProperty<[user: UserOptions]>({
  id: 'user.present',
  kind: 'posix',
  describe: ({ name, uid }) => `user ${name}${uid === undefined ? '' : ` (${uid})`}`,
  about:
    'A user is there, with a group of the same name and a locked password. Unapplied: the user goes away, its files stay.',
  example: [{ name: 'build', uid: 1000, home: '/build', shell: '/bin/bash', groups: ['adm'], makeHome: true }],
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
  unapply: async (host, { name }) => void (await host.run(['userdel', '--', name], OWN)),
});

/**
 * A user's password, as a hash of crypt(3) that is prerequisite data. Unapplied: the password is locked.
 */
export const hasPasswordHash: (name: string, data: DataRef) => PropertyApplication = defineProperty<
  [name: string, data: DataRef]
>({
  id: 'user.hasPasswordHash',
  kind: 'posix',
  touches: 'own-files',
  about:
    'The password of a user, as a hash of crypt(3) that is prerequisite data: it is in no definition, message, plan or ' +
    'argument of a program. Unapplied: the password is locked.',
  example: ['build', { context: 'my-host', name: 'build.hash' }],
  args: [arg('name', ACCOUNT_NAME, 'the user'), arg('data', DATA_REF, 'context and name of the hash')],
  manages: (name) => [`password ${name}`],
  describe: (name, data) => `user ${name} has the password of ${describeRef(data)}`,
  data: (_name, data) => [data],
  facts: () => [{ fact: 'text', path: SHADOW }],
  check: async (host, name, data) => {
    const found = findLine(host.facts, SHADOW, name)?.[1];
    return found !== undefined && found === hashOf((await host.data(data)).reveal(), data);
  },
  plan: (_host, name) => [`${SHADOW}: ${name}: [secret]`],
  apply: async (host, name, data) => {
    const hash = hashOf((await host.data(data)).reveal(), data);
    await host.run(['chpasswd', '--encrypted'], { input: `${name}:${hash}\n` });
  },
  checkUnapplied: ({ facts }, name) => /^[!*]/.test(findLine(facts, SHADOW, name)?.[1] ?? '!'),
  unapply: async (host, name) => void (await host.run(['usermod', '--password', '!', '--', name])),
});

const PASSWD = '/etc/passwd';
const SHADOW = '/etc/shadow';
const NO_HOME = '/nonexistent';
const NO_SHELL = '/usr/sbin/nologin';

const DATABASES: readonly FactRequest[] = [
  { fact: 'text', path: PASSWD },
  { fact: 'text', path: GROUP },
];

/** The hash without its newline; a password in the clear would be in /etc/shadow for good. */
function hashOf(bytes: Uint8Array, data: DataRef): string {
  const hash = Buffer.from(bytes).toString('utf8').trim();
  if (/^\$[0-9a-z]+\$[^:\s]+$/.test(hash)) return hash;
  throw new FailedChangeError(`Cannot use ${describeRef(data)} as a password: it is no hash of crypt(3)`, {
    hint: 'Make one with "openssl passwd -6" or "mkpasswd"; it begins like $6$ or $y$.',
  });
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

const missingGroups = (facts: Facts, user: UserOptions): string[] =>
  (user.groups ?? []).filter((group) => !(findLine(facts, GROUP, group)?.[3] ?? '').split(',').includes(user.name));

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
  for (const command of commands) await host.run(command, OWN);
  if (user.makeHome === true && user.home !== undefined && facts.file(user.home) === undefined) {
    await host.run(['install', '-d', '-m', '0755', '-o', name, '-g', name, '--', user.home], OWN);
  }
}
