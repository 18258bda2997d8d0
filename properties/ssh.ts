/** sshd: its settings, its host keys, and the keys of those who may log in. */
import { z } from 'zod';
import { FileError, lines, text } from '../connections/connection.ts';
import { OWN } from './_file-change.ts';
import { type Arg, arg, textThat } from './args.ts';
import { definePropertyList, onChange } from './combinators.ts';
import { unifiedDiff } from './diff.ts';
import type { FactRequest } from './facts.ts';
import { PATH, hasContent } from './file.ts';
import { ACCOUNT_NAME } from './group.ts';
import {
  type HostReader,
  type HostWriter,
  type PropertyApplication,
  FailedChangeError,
  defineProperty,
} from './property.ts';
import { dropIn, reloaded } from './systemd.ts';

const KEY = /^((sk-)?(ssh|ecdsa)-[a-z0-9@.-]+) [A-Za-z0-9+/]+=*( [^\n]*)?$/;

const KEYS: Arg<readonly string[]> = arg(
  'keys',
  z
    .array(textThat((key) => KEY.test(key), 'a public key, such as "ssh-ed25519 AAAA… name"'))
    .min(1, 'it must not be empty'),
  'public keys, as in a file id_ed25519.pub',
);

/** A user's authorized_keys has these keys. Unapplied: they are taken out. */
export const authorizedKeys: (user: string, keys: readonly string[]) => PropertyApplication = defineProperty<
  [user: string, keys: readonly string[]]
>({
  id: 'ssh.authorizedKeys',
  kind: 'posix',
  about:
    'The holders of these keys may log in as a user who is there: ~/.ssh/authorized_keys has them, and other keys stay. It is ' +
    'written as that user. Unapplied: they are taken out.',
  example: ['root', ['ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHUvE2kn0Qz1R0vJmGrzq8YcLrbvTq0fXgB4Zf0mJq8s joe@desk']],
  args: [arg('user', ACCOUNT_NAME, 'who'), KEYS],
  parts: (user, keys) => keys.map((key): [string, readonly string[]] => [user, [key]]),
  manages: (user, keys) => keys.map((key) => `ssh key ${user} ${key}`),
  describe: (user, keys) => `${keys.length === 1 ? 'a key' : `${keys.length} keys`} may log in as ${user}`,
  check: async (host, user, keys) => {
    const found = await look(host, user);
    return found?.safe === true && keys.every((key) => found.lines.includes(key));
  },
  plan: async (host, user, keys) => {
    const found = await look(host, user);
    if (found === undefined) return [`there is no user ${user} yet`];
    return unifiedDiff(found.path, textOf(found.lines), textOf(withKeys(found.lines, keys)));
  },
  apply: async (host, user, keys) => {
    const found = await look(host, user);
    if (found === undefined) {
      throw new FailedChangeError(`Cannot let anybody log in as ${user}: there is no such user`, {
        hint: `Make it before: user.present({ name: '${user}', home: '/home/${user}', makeHome: true, shell: '/bin/bash' }).`,
      });
    }
    await write(host, user, found.home, withKeys(found.lines, keys));
  },
  checkUnapplied: async (host, user, keys) => {
    const found = await look(host, user);
    return found === undefined || !keys.some((key) => found.lines.includes(key));
  },
  unapply: async (host, user, keys) => {
    const found = await look(host, user);
    if (found === undefined) return;
    const kept = found.lines.filter((line) => !keys.includes(line));
    await write(host, user, found.home, kept);
  },
});

/** Settings of sshd by their keyword: sshd_config(5). */
export type SshdSettings = Readonly<Record<string, string | number | boolean>>;

/** sshd has these settings, in a file of their own; when it runs, it reads them anew. Unapplied: they go away. */
export const settings: (name: string, settings: SshdSettings) => PropertyApplication = definePropertyList<
  [name: string, settings: SshdSettings]
>({
  id: 'ssh.settings',
  about:
    'sshd has these settings, in /etc/ssh/sshd_config.d/NAME.conf; when it runs, it reads them anew. The first of two settings ' +
    'counts, by the names of the files. Unapplied: they go away.',
  example: ['keys-only', { PasswordAuthentication: false, PermitRootLogin: 'prohibit-password' }],
  args: [
    arg(
      'name',
      textThat((name) => /^[A-Za-z0-9_-]+$/.test(name), 'letters, digits, "_" and "-"'),
      'of the file',
    ),
    arg(
      'settings',
      z.record(
        z.string().regex(/^[A-Z][A-Za-z0-9]+$/, 'it is no keyword of sshd_config(5), such as PermitRootLogin'),
        z.union([z.string().regex(/^[^\n]+$/, 'it must be one line'), z.number(), z.boolean()]),
      ),
      'values by keyword; true and false become yes and no',
    ),
  ],
  describe: (name, settings) => `sshd ${name}: ${Object.keys(settings).join(' ')}`,
  properties: (name, settings) => [
    onChange(hasContent(`/etc/ssh/sshd_config.d/${name}.conf`, settingsText(settings)), reloaded(['ssh.service'])),
  ],
});

/** Host keys are made by each host at its boot, where it has none; an image has none. */
export const hostKeysMadeAtBoot: (path?: string) => PropertyApplication = definePropertyList<[path?: string]>({
  id: 'ssh.hostKeysMadeAtBoot',
  about:
    'The host makes its own host key when sshd starts and there is none; an image carries none, or all hosts would have the same. ' +
    'On a live host the keys stay. Unapplied: the package makes keys again, and new ones are made where there are none.',
  example: ['/state/ssh/ssh_host_ed25519_key'],
  args: [arg('path', PATH.optional(), 'of the private key; default /etc/ssh/ssh_host_ed25519_key')],
  describe: () => 'host keys are made at boot',
  properties: (path = `${SSH}/ssh_host_ed25519_key`) => [
    noHostKeys(),
    hasContent(`${SSH}/sshd_config.d/host-key.conf`, `HostKey ${path}\n`),
    dropIn(
      'ssh.service',
      'host-key.conf',
      [
        '[Service]',
        'ExecStartPre=',
        `ExecStartPre=/bin/mkdir -p ${path.slice(0, path.lastIndexOf('/'))}`,
        `ExecStartPre=/bin/sh -c "[ -s ${path} ] || ssh-keygen -q -t ed25519 -N '' -f ${path}"`,
        'ExecStartPre=/usr/sbin/sshd -t',
        '',
      ].join('\n'),
    ),
  ],
});

/** An image has no host keys in /etc/ssh; on a live host nothing happens. Unapplied: new ones are made. */
export const noHostKeys: () => PropertyApplication = defineProperty<[]>({
  id: 'ssh.noHostKeys',
  kind: 'posix',
  touches: 'own-files',
  about:
    'An image has no host keys in /etc/ssh; on a live host nothing happens. Unapplied: keys that lack are made. See ' +
    'ssh.hostKeysMadeAtBoot().',
  example: [],
  args: [],
  describe: () => 'no host keys in the image',
  facts: () => HOST_KEYS.map((path): FactRequest => ({ fact: 'file', path })),
  check: async (host) => (await host.isLive()) || HOST_KEYS.every((path) => host.facts.file(path) === undefined),
  apply: async (host) => void (await host.run(['rm', '-f', '--', ...HOST_KEYS], OWN)),
  checkUnapplied: (host) => HOST_KEYS.some((path) => host.facts.file(path) !== undefined),
  unapply: async (host) => void (await host.run(['ssh-keygen', '-A'])),
});

const SSH = '/etc/ssh';

const HOST_KEYS: readonly string[] = ['rsa', 'ecdsa', 'ed25519'].flatMap((type) =>
  ['', '.pub'].map((suffix) => `${SSH}/ssh_host_${type}_key${suffix}`),
);

/** A user's authorized_keys; `safe` when nobody else may write or read it, so that sshd takes it. */
interface Keys {
  readonly home: string;
  readonly path: string;
  readonly lines: readonly string[];
  readonly safe: boolean;
}

/** @returns undefined when there is no such user */
async function look(host: HostReader, user: string): Promise<Keys | undefined> {
  const entry = await host.run(['getent', 'passwd', user], { okStatus: 'any' });
  const home = text(entry).trim().split(':')[5];
  if (entry.status !== 0 || home === undefined) return undefined;
  const path = `${home}/.ssh/authorized_keys`;
  const marks = lines(await host.run(['stat', '-c', '%a %U', '--', `${home}/.ssh`, path], { okStatus: 'any' }));
  const safe = marks.length === 2 && marks[0] === `700 ${user}` && marks[1] === `600 ${user}`;
  return { home, path, lines: await linesOf(host, path), safe };
}

async function linesOf(host: HostReader, path: string): Promise<readonly string[]> {
  try {
    return Buffer.from(await host.readFile(path))
      .toString('utf8')
      .split('\n')
      .filter(Boolean);
  } catch (error) {
    if (error instanceof FileError) return [];
    throw error;
  }
}

/**
 * `keys HOME`, as the user: who owns a folder may put a link in the place of what is in it, and root would follow it.
 */
const WRITE = `
set -e
umask 077
cd -- "$1"
[ -d .ssh ] || mkdir .ssh
chmod 0700 .ssh
new=$(mktemp .ssh/authorized_keys.XXXXXXXX)
trap 'rm -f -- "$new"' EXIT
cat > "$new"
mv -fT -- "$new" .ssh/authorized_keys
trap - EXIT
`;

async function write(host: HostWriter, user: string, home: string, keys: readonly string[]): Promise<void> {
  const as = ['setpriv', `--reuid=${user}`, `--regid=${user}`, '--init-groups', '--'];
  await host.run([...as, 'sh', '-c', WRITE, 'keys', home], { input: textOf(keys), cwd: '/' });
}

const withKeys = (old: readonly string[], keys: readonly string[]): readonly string[] => [
  ...old,
  ...keys.filter((key) => !old.includes(key)),
];

const textOf = (keys: readonly string[]): string => keys.map((key) => `${key}\n`).join('');

function settingsText(settings: SshdSettings): string {
  const word = (value: string | number | boolean): string =>
    typeof value === 'boolean' ? (value ? 'yes' : 'no') : String(value);
  return Object.entries(settings)
    .map(([keyword, value]) => `${keyword} ${word(value)}\n`)
    .join('');
}
