/**
 * A host to connect to: a Debian root with a real sshd on a port of the loopback, users that may or may not become root,
 * and a smaller root inside. Nothing of this machine's own configuration is touched.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Connection, DataSource, Hop } from '../../connections/connection.ts';
import { openChain } from '../../connections/open.ts';
import { unpackDebian } from './_debian-root.ts';

/** What the root has besides. */
export const FAR_PACKAGES: readonly string[] = ['openssh-server', 'systemd-sysv', 'dbus', 'systemd-container'];

/** Passwords of the users there. */
export const PASSWORDS: Readonly<Record<string, string>> = { joe: `it's "joe" $x \\`, root: 'root word' };

/** A host that runs. */
export interface FarHost extends AsyncDisposable {
  /** The root, as this machine sees it. */
  readonly root: string;
  /** A root inside: an absolute path there. */
  readonly inner: string;
  readonly port: number;
  /** `ssh-ed25519 AAAA…` */
  readonly hostKey: string;
  /** The key that all users there take. */
  readonly key: string;
  /** The hop that leads there. */
  ssh(user: string): Hop;
  /** Their passwords. */
  readonly data: DataSource;
}

/**
 * Starts it. Users: `root`; `joe`, who is asked for his password by sudo; `ann`, who is not; `tim`, who may not.
 */
export async function startFarHost(): Promise<FarHost> {
  await using stack = new AsyncDisposableStack();
  const debian = stack.use(unpackDebian(FAR_PACKAGES));
  const root = debian.path;
  const keys = mkdtempSync(join(tmpdir(), 'buildos-far-'));
  stack.defer(() => rmSync(keys, { recursive: true, force: true }));
  const key = join(keys, 'key');
  for (const file of [key, join(keys, 'host')]) {
    execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', 'test', '-f', file]);
  }
  const hostKey = readFileSync(join(keys, 'host.pub'), 'utf8').split(' ').slice(0, 2).join(' ');
  const publicKey = readFileSync(`${key}.pub`, 'utf8');
  const port = await freePort();

  writeFileSync(join(root, 'etc/hosts'), `127.0.0.1 localhost ${hostname()}\n`);
  writeFileSync(join(root, 'etc/ssh/test_host_key'), readFileSync(join(keys, 'host')), { mode: 0o600 });
  writeFileSync(
    join(root, 'etc/ssh/test_config'),
    [
      `ListenAddress 127.0.0.1:${port}`,
      'HostKey /etc/ssh/test_host_key',
      'PidFile none',
      'UsePAM no',
      'PasswordAuthentication no',
      'AuthorizedKeysFile /etc/ssh/test_keys',
      'PermitRootLogin prohibit-password',
      'LogLevel ERROR',
      '',
    ].join('\n'),
  );
  writeFileSync(join(root, 'etc/ssh/test_keys'), publicKey, { mode: 0o644 });
  writeFileSync(join(root, 'etc/sudoers.d/test'), 'joe ALL=(ALL) ALL\nann ALL=(ALL) NOPASSWD: ALL\n', { mode: 0o440 });
  await using setup = await openChain([['chroot.shell', { into: root, network: false }]]);
  await setup.run(['sh', '-ec', 'for user in joe ann tim; do useradd --create-home --shell /bin/bash $user; done']);
  // Cheap to check: it is checked for every command.
  await setup.run(['chpasswd', '--crypt-method', 'SHA512', '--sha-rounds', '1000'], {
    input: `joe:${PASSWORDS['joe']}\nroot:${PASSWORDS['root']}\nann:x\ntim:x\n`,
  });
  const inner = '/srv/inner';
  mkdirSync(join(root, inner));
  // Links to the same files: it costs no time and no room.
  await setup.run([
    'sh',
    '-ec',
    `cd / && cp -al bin sbin lib lib64 usr etc ${inner} && cd ${inner} && mkdir proc sys dev run tmp root srv && mkdir -p var/tmp && chmod 1777 tmp var/tmp`,
  ]);

  const control = new AbortController();
  const sshd = await openChain([['chroot.shell', { into: root, network: false }]]);
  const running = sshd
    .run(['sh', '-c', 'mkdir -p /run/sshd && exec /usr/sbin/sshd -D -e -f /etc/ssh/test_config'], {
      signal: control.signal,
    })
    .catch((error: unknown) => error);
  stack.defer(async () => {
    control.abort();
    await running;
    await sshd[Symbol.asyncDispose]();
  });
  await awaitPort(port);
  const held = stack.move();
  return {
    root,
    inner,
    port,
    hostKey,
    key,
    ssh: (user) => ['ssh', { host: '127.0.0.1', port, user, key, hostKey, config: 'none' }],
    data: async ({ name }) => {
      const password = PASSWORDS[name.replace(/\.password$/, '')];
      return password === undefined ? undefined : Buffer.from(password);
    },
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  };
}

/** An empty folder there, for a test's files; gone with the connection's host. */
export async function makeFolder(on: Connection): Promise<string> {
  const made = await on.run(['mktemp', '-d', '-p', '/var/tmp']).catch(() => on.run(['mktemp', '-d', '-p', '/tmp']));
  return Buffer.from(made.stdout).toString().trim();
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === 'string') throw new TypeError('no port');
  return address.port;
}

async function awaitPort(port: number): Promise<void> {
  const { connect } = await import('node:net');
  for (let left = 100; ; left--) {
    const ok = await new Promise<boolean>((resolve) => {
      const socket = connect(port, '127.0.0.1', () => {
        socket.destroy();
        resolve(true);
      });
      socket.on('error', () => resolve(false));
    });
    if (ok) return;
    if (left === 0) throw new Error(`no sshd on port ${port}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
