/**
 * The hop `ssh`: another host, by OpenSSH. One master connection a chain (ControlMaster); each command is a session of it.
 *
 * Nobody is asked anything (BatchMode): keys come from an agent or a file. The host's key has to be known: pinned by
 * `hostKey`, or in a file of known hosts; what is unknown or changed is refused.
 *
 * sshd does not end what a lost connection or a cut session leaves running, so every command is on a leash there.
 */
import { randomBytes } from 'node:crypto';
import { HOLD, READY, startHolder } from './_holder.ts';
import { leashed } from './_leash.ts';
import { posixConnection, withEnvironment } from './_posix.ts';
import { type Connection, type Hop, HopError, shellQuote } from './connection.ts';

/** What openSsh needs. */
export interface SshOptions {
  /** A name, an address, or an alias of the ssh configuration. */
  readonly host: string;
  readonly port?: number;
  readonly user?: string;
  /** File of a private key, where ssh runs; then no other key is tried. */
  readonly key?: string;
  /** The host's public key, `ssh-ed25519 AAAA…`; then no other is accepted. */
  readonly hostKey?: string;
  /** File of known hosts, where ssh runs, instead of the user's. */
  readonly knownHosts?: string;
  /** File of the ssh configuration, or `none`; default: the user's and the system's. */
  readonly config?: string;
  /** Seconds until a host that does not answer counts as unreachable; default 10. */
  readonly connectTimeout?: number;
}

/** sshd's default for sessions of one connection is 10; one is for ending others. */
const MAX_SESSIONS = 8;
/** A longer command is sent by stdin: Linux takes no word beyond 128 KiB (MAX_ARG_STRLEN), and ssh makes one of all. */
const MAX_COMMAND_BYTES = 100_000;
const CONNECT_SECONDS = 10;

/** Arguments: FOLDER HOSTKEY SSH…. */
const MASTER = `${HOLD}
folder=$1 key=$2; shift 2
umask 077
hold 'rm -rf -- "$1"' "$folder"
mkdir -- "$folder" || fail "cannot make $folder"
if [ -n "$key" ]; then printf 'buildos-pinned %s\\n' "$key" > "$folder/known_hosts" || exit 1; fi
$dies "$@" &
master=$!
trap 'kill "$master"; wait "$master"; rm -rf -- "$folder"; exit 143' TERM
wait "$master"
status=$?
rm -rf -- "$folder"
exit "$status"
`;

/**
 * Arguments: xID. Ends the leash with that id and all of its process group; a second later by force. The x keeps the
 * search from finding itself.
 */
const CUT = `
groups=
for file in $(grep -lsz -- "^\${1#x}\\$" /proc/[0-9]*/cmdline); do
  pid=\${file#/proc/}
  group=-\${pid%/cmdline}
  if kill -s 0 -- "$group"; then groups="$groups $group"; fi # its watcher has the same words, but leads no group
done 2>/dev/null
[ -n "$groups" ] || exit 0
kill -s TERM -- $groups
for nap in 1 2 3 4 5 6 7 8 9 10; do
  kill -s 0 -- $groups || exit 0
  sleep 0.1
done
kill -s KILL -- $groups
`;

/**
 * Opens a connection to another host.
 *
 * @throws {HopError} when the host is unreachable, its key is not the one known, or it refuses ours
 */
export async function openSsh(base: Connection, options: SshOptions): Promise<Connection> {
  const hop: Hop = ['ssh', { ...options }];
  checkOptions(hop, options);
  const { host } = options;
  const id = randomBytes(6).toString('hex');
  const folder = `/tmp/buildos-ssh-${process.pid}-${id}`;
  const socket = `${folder}/master`;

  const words = ['sh', '-c', MASTER, 'ssh-master', folder, options.hostKey ?? '', ...masterWords(options, folder)];
  const seconds = options.connectTimeout ?? CONNECT_SECONDS;
  const holder = await startHolder(base, words, (seconds * 3 + 5) * 1000);
  if ('failed' in holder) throw new HopError(hop, ...explain(holder.failed, options));

  let lastCommand = 0;
  const client = (command: string): readonly string[] => [
    'ssh',
    '-F',
    'none',
    '-S',
    socket,
    '-T',
    '-e',
    'none',
    '-o',
    'BatchMode=yes',
    '-o',
    'LogLevel=ERROR',
    // Without a master there must be no connection, not another one.
    '-o',
    'ProxyCommand=false',
    '--',
    host,
    command,
  ];
  const isAlive = async (): Promise<boolean> => {
    const check = ['ssh', '-F', 'none', '-S', socket, '-O', 'check', '--', host];
    return (await base.run(check, { okStatus: 'any', timeoutMs: 10_000 })).status === 0;
  };
  const sessions = new Slots(MAX_SESSIONS);

  return posixConnection({
    hop,
    base: { ...base, run: (argv, runOptions) => sessions.use(() => base.run(argv, runOptions)) },
    wrap: (argv, runOptions) => {
      const leash = [...leashed(withEnvironment(argv, runOptions))];
      leash[3] = `${id}-${++lastCommand}`; // its name, by which it is found and cut
      const command = `exec ${shellQuote(leash)}`;
      if (Buffer.byteLength(command) <= MAX_COMMAND_BYTES) return client(command);
      const first = Buffer.from(command);
      return { words: client(`exec sh -c 'eval "$(head -c ${first.length})"'`), first };
    },
    examine: async ({ status, stderr }) => {
      // 255 is what ssh ends with when it fails itself, and a command may end with it too.
      if (status !== 255 || (await isAlive())) return;
      const said = Buffer.from(stderr).toString('utf8').trim();
      throw new HopError(hop, `the connection is lost${said === '' ? '' : `: ${said}`}`, {
        hint: 'What ran there was ended. Does the host still answer?',
      });
    },
    cut: async (cutWords) => {
      const name = new RegExp(`${id}-\\d+`).exec(cutWords.at(-1) ?? '')?.[0] ?? `${id}-${lastCommand}`;
      const command = `exec ${shellQuote(['sh', '-c', CUT, 'cut', `x${name}`])}`;
      await base.run(client(command), { okStatus: 'any', timeoutMs: 10_000 }).catch(() => undefined);
    },
    close: () => holder.close(),
  });
}

function masterWords(options: SshOptions, folder: string): readonly string[] {
  const { host, port, user, key, hostKey, knownHosts, config } = options;
  const set = (name: string, value: string): string[] => ['-o', `${name}=${value}`];
  return [
    'ssh',
    ...(config === undefined ? [] : ['-F', config]),
    '-M',
    '-N',
    '-S',
    `${folder}/master`,
    '-T',
    '-a',
    '-x',
    '-e',
    'none',
    ...set('BatchMode', 'yes'),
    ...set('StrictHostKeyChecking', 'yes'),
    ...set('ConnectTimeout', String(options.connectTimeout ?? CONNECT_SECONDS)),
    ...set('ServerAliveInterval', '15'),
    ...set('ServerAliveCountMax', '3'),
    ...set('RemoteCommand', 'none'),
    ...set('ClearAllForwardings', 'yes'),
    ...set('ControlPersist', 'no'),
    ...set('PermitLocalCommand', 'yes'),
    ...set('LocalCommand', `echo ${READY}`),
    ...(port === undefined ? [] : ['-p', String(port)]),
    ...(user === undefined ? [] : ['-l', user]),
    ...(key === undefined ? [] : ['-i', key, ...set('IdentitiesOnly', 'yes')]),
    ...(knownHosts === undefined ? [] : set('UserKnownHostsFile', knownHosts)),
    ...(hostKey === undefined
      ? []
      : [
          ...set('HostKeyAlias', 'buildos-pinned'),
          ...set('UserKnownHostsFile', `${folder}/known_hosts`),
          ...set('GlobalKnownHostsFile', '/dev/null'),
        ]),
    '--',
    host,
  ];
}

function checkOptions(hop: Hop, { host, user, port, hostKey, connectTimeout }: SshOptions): void {
  if (!/^[A-Za-z0-9_][A-Za-z0-9_.:%-]*$/.test(host)) throw new HopError(hop, `"${host}" cannot be a host`);
  if (user !== undefined && !/^[A-Za-z0-9_][A-Za-z0-9_.-]*\$?$/.test(user)) {
    throw new HopError(hop, `"${user}" cannot be a user`);
  }
  if (port !== undefined && !(Number.isInteger(port) && port > 0 && port < 65_536)) {
    throw new HopError(hop, `${port} cannot be a port`);
  }
  if (connectTimeout !== undefined && !(Number.isInteger(connectTimeout) && connectTimeout > 0)) {
    throw new HopError(hop, `${connectTimeout} cannot be a number of seconds`);
  }
  if (hostKey !== undefined && !/^[a-z0-9@.-]+ [A-Za-z0-9+/]+=*$/.test(hostKey)) {
    throw new HopError(hop, `"${hostKey}" cannot be a host key`, {
      hint: 'It is like "ssh-ed25519 AAAA…", the second and third field of what ssh-keyscan prints.',
    });
  }
}

/** What ssh says → the reason and what to try. */
function explain(said: string, options: SshOptions): [reason: string, options: { readonly hint: string }] {
  const { host } = options;
  const target = `${options.user === undefined ? '' : `${options.user}@`}${host}`;
  const quote = said.split('\n').slice(-6).join('; ');
  if (
    /HOST IDENTIFICATION HAS CHANGED|host key .* has changed/i.test(said) ||
    /Host key verification failed/.test(said)
  ) {
    if (options.hostKey !== undefined) {
      return [`the key of ${host} is not the pinned one`, { hint: 'If it was renewed on purpose, pin the new one.' }];
    }
    const changed = /CHANGED/i.test(said);
    return [
      changed ? `the key of ${host} is another one than before` : `the key of ${host} is not known`,
      {
        hint: changed
          ? `If it was renewed on purpose: ssh-keygen -R ${host}, then log in once by hand.`
          : `Pin it with :host-key "ssh-ed25519 AAAA…" (ssh-keyscan -t ed25519 ${host}; compare it with the host's), or log in once by hand.`,
      },
    ];
  }
  if (/Permission denied/.test(said)) {
    return [
      `${target} refuses our keys: ${quote}`,
      {
        hint: `Is the public key in ${options.user ?? 'the user'}'s authorized_keys there? Without :key, "ssh-add -l" shows what is offered.`,
      },
    ];
  }
  if (
    /refused|timed out|No route|unreachable|Could not resolve|not known|not ready|closed by remote|reset by peer/i.test(
      said,
    )
  ) {
    return [
      `${host} cannot be reached: ${quote}`,
      { hint: `Is it up, is its name right, and does sshd listen on port ${options.port ?? 22}?` },
    ];
  }
  return [quote, { hint: `Try by hand: ssh ${target}` }];
}

/** So many at once; others wait in line. */
class Slots {
  #free: number;
  readonly #line: (() => void)[] = [];

  constructor(count: number) {
    this.#free = count;
  }

  async use<T>(work: () => Promise<T>): Promise<T> {
    if (this.#free === 0) await new Promise<void>((resolve) => this.#line.push(resolve));
    else this.#free -= 1;
    try {
      return await work();
    } finally {
      const next = this.#line.shift();
      if (next === undefined) this.#free += 1;
      else next();
    }
  }
}
