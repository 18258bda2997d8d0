/** ssh against a real sshd, sudo and su with real passwords: what is refused, how that is told, what a lost line leaves. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Chain, CommandError, HopError, text } from '../../connections/connection.ts';
import { openChain } from '../../connections/open.ts';
import { cannotChroot } from './_debian-root.ts';
import { processesAfter } from './_exact.ts';
import { type FarHost, PASSWORDS, startFarHost } from './_far-host.ts';

const OPTIONS = { timeout: 60_000, skip: cannotChroot };

let far: FarHost;

before(async () => {
  if (cannotChroot === false) far = await startFarHost();
});

after(async () => {
  await far?.[Symbol.asyncDispose]();
});

/** Opens a chain that must be refused; gives what is said. */
async function refused(chain: Chain, data = far.data): Promise<HopError> {
  const error = await openChain(chain, { data }).then(
    () => assert.fail('it was opened'),
    (thrown: unknown) => thrown,
  );
  assert.ok(error instanceof HopError, String(error));
  assert.ok(error.hint !== undefined && error.hint !== '', 'has a hint');
  return error;
}

const sshFolders = (): string[] => readdirSync('/tmp').filter((name) => name.startsWith(`buildos-ssh-${process.pid}-`));

const OTHER_KEY = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHwq0BmFV1c9x1vFh2vKZ0m1tq6Fj3c4z1wW9c0bq0ab';

test('ssh: a host key that is not pinned, unknown, or changed is refused', OPTIONS, async () => {
  const { port, key } = far;
  const wrong = await refused([
    ['ssh', { host: '127.0.0.1', port, user: 'ann', key, hostKey: OTHER_KEY, config: 'none' }],
  ]);
  assert.match(wrong.message, /not the pinned one/);
  const knownHosts = join(far.root, 'known_hosts');
  const known = { host: '127.0.0.1', port, user: 'ann', key, knownHosts, config: 'none' };
  writeFileSync(knownHosts, '');
  const unknown = await refused([['ssh', known]]);
  assert.match(unknown.message, /is not known/);
  assert.match(unknown.hint ?? '', /:host-key/);
  writeFileSync(knownHosts, `[127.0.0.1]:${port} ${OTHER_KEY}\n`);
  assert.match((await refused([['ssh', known]])).message, /another one than before/);
  writeFileSync(knownHosts, `[127.0.0.1]:${port} ${far.hostKey}\n`);
  await using good = await openChain([['ssh', known]]);
  assert.equal(text(await good.run(['id', '-un'])), 'ann\n');
});

test('ssh: keys that are refused, hosts that are not there, words that are no host', OPTIONS, async () => {
  const { port, key, hostKey } = far;
  const options = { port, hostKey, config: 'none' };
  const nobody = await refused([['ssh', { ...options, host: '127.0.0.1', user: 'nobody-here', key }]]);
  assert.match(nobody.message, /nobody-here@127\.0\.0\.1 refuses our keys/);
  const keyless = await refused([['ssh', { ...options, host: '127.0.0.1', user: 'ann', key: '/nonexistent' }]]);
  assert.match(keyless.message, /refuses our keys/);
  assert.match(
    (await refused([['ssh', { host: '127.0.0.1', port: 1, config: 'none' }]])).message,
    /cannot be reached.*refused/i,
  );
  const unreachable = await refused([['ssh', { host: '192.0.2.1', connectTimeout: 1, config: 'none' }]]);
  assert.match(unreachable.message, /cannot be reached/);
  await assert.rejects(openChain([['ssh', { host: '-oProxyCommand=id' }]]), /cannot be a host/);
  assert.deepEqual(sshFolders(), []);
});

test('ssh: one connection for all commands, more of them at once than sshd takes', OPTIONS, async () => {
  await using ann = await openChain([far.ssh('ann')]);
  const clients = await Promise.all(
    Array.from({ length: 24 }, async (_, at) =>
      text(await ann.run(['sh', '-c', `sleep 0.2; echo ${at} $SSH_CONNECTION`])),
    ),
  );
  assert.deepEqual(
    clients.map((line) => Number(line.split(' ')[0])),
    Array.from({ length: 24 }, (_, at) => at),
  );
  assert.equal(new Set(clients.map((line) => line.split(' ')[2])).size, 1);
});

test('ssh: a command that ignores SIGTERM ends too when its time is over', OPTIONS, async () => {
  await using ann = await openChain([far.ssh('ann')]);
  const script = "trap '' TERM; while :; do sleep 0.0987; done";
  await assert.rejects(ann.run(['sh', '-c', script], { timeoutMs: 300 }), CommandError);
  assert.deepEqual(await processesAfter((words) => words.includes('0.0987'), 4000), []);
});

test('ssh: a lost connection is told as such, and what ran there ends, as root too', OPTIONS, async () => {
  const chain = await openChain([far.ssh('joe'), ['sudo']], { data: far.data });
  const running = chain.run(['sh', '-c', 'sleep 98761; true']).catch((error: unknown) => error);
  await sleep(500);
  const [master = ''] = await processesAfter(
    // Other tests have masters of their own.
    (words) => words.startsWith('ssh ') && words.includes(' -M ') && words.includes(`-p ${far.port} `),
    0,
  );
  process.kill(Number(master.split(' ')[0]), 'SIGKILL');
  const error = await running;
  assert.ok(error instanceof HopError, String(error));
  assert.match(error.message, /connection is lost/);
  assert.deepEqual(await processesAfter((words) => words.includes('sleep 98761'), 4000), []);
  await assert.rejects(chain.run(['true']), /connection is lost/);
  await chain[Symbol.asyncDispose]();
  assert.deepEqual(sshFolders(), []);
});

test('ssh: the end of a connection leaves no process and no file', OPTIONS, async () => {
  {
    await using ann = await openChain([far.ssh('ann')]);
    await ann.run(['true']);
    assert.equal(sshFolders().length, 1);
  }
  assert.deepEqual(sshFolders(), []);
  assert.deepEqual(
    await processesAfter((words) => words.startsWith('ssh ') && words.includes(`-p ${far.port}`), 1000),
    [],
  );
});

test('sudo: a password that is missing or wrong, a user that may not, a user that is not', OPTIONS, async () => {
  const missing = await refused([far.ssh('joe'), ['sudo']], async () => undefined);
  assert.match(missing.message, /wants a password, and there is no data ".*\/joe\.password"/);
  const started = Date.now();
  const wrong = await refused([far.ssh('joe'), ['sudo']], async () => Buffer.from('wrong'));
  assert.match(wrong.message, /the password ".*\/joe\.password" is wrong/);
  assert.ok(Date.now() - started < 20_000, 'bounded');
  assert.match((await refused([far.ssh('joe'), ['sudo']], async () => Buffer.from('a\nb'))).message, /several lines/);
  await refused([far.ssh('ann'), ['sudo', { user: 'nobody-here' }]]);
  assert.match((await refused([far.ssh('tim'), ['sudo']], async () => Buffer.from('x'))).message, /tim/);
});

test('su: a password that is missing or wrong', OPTIONS, async () => {
  assert.match(
    (await refused([far.ssh('tim'), ['su']], async () => undefined)).message,
    /no data ".*\/root\.password"/,
  );
  assert.match((await refused([far.ssh('tim'), ['su']], async () => Buffer.from('wrong'))).message, /is wrong/);
});

test('a password is in no list of processes, no environment, no file', OPTIONS, async () => {
  const password = PASSWORDS['joe'] ?? '';
  await using root = await openChain([far.ssh('joe'), ['sudo']], { data: far.data });
  let leaks = '';
  const look = (): void => {
    for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)) {
      for (const file of ['cmdline', 'environ']) {
        try {
          if (readFileSync(`/proc/${pid}/${file}`).includes(password)) leaks += `${pid} ${file}\n`;
        } catch {
          // It ended while we looked.
        }
      }
    }
  };
  const running = root.run(['sh', '-c', 'sleep 0.5; env'], { input: 'stdin' });
  for (let at = 0; at < 5; at++) {
    await sleep(80);
    look();
  }
  assert.equal(text(await running).includes(password), false);
  assert.equal(leaks, '');
  assert.equal(text(await root.run(['cat'], { input: 'stdin' })), 'stdin');
  const found = await root.run(['grep', '-rlsF', '--', password, '/tmp', '/run', '/home', '/root', '/var/tmp'], {
    okStatus: 'any',
  });
  assert.equal(text(found), '');
  assert.ok(existsSync(far.root));
});
