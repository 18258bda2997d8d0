/**
 * The real monitor as a process, on a folder that plays the host's root. Everything else is a stand-in:
 *
 * - the helper is a FAKE: a socket that speaks the helper's protocol, runs bootstraps as plain children, plays an
 *   agent that does what its state file says, and counts reboots instead of rebooting;
 * - what is published comes from an HTTP server on the loopback, from memory.
 *
 * Whether the monitor says the right things to systemd is seen on a real notify socket.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { FetchError, TEXT_LIMITS, fetchDigest, fetchText, fetchToFile } from '../../monitor/fetch.ts';
import { get } from '../../tftp/client.ts';
import { serveFolder } from '../../tftp/server.ts';
import { sha256, Publisher } from './_monitor-publisher.ts';
import { FakeHelper } from './_monitor-helper.ts';
import { NotifySocket } from './_monitor-notify.ts';
import { Host, end, eventually, agentPackage } from './_monitor-host.ts';

const TOP = join(import.meta.dirname, '..', '..');
const LIMIT = { timeout: 90_000 };

const GOOD = 'echo hello from the bootstrap; mkdir -p "$1/bin"; echo tool > "$1/bin/tool"; test "$WHERE" = "$1"\n';

test(
  'one good toolchain among bad ones: ready, each failure reported, nothing taken that is wrong',
  LIMIT,
  async () => {
    await using publisher = await new Publisher().listen();
    const names = ['good', 'checksum', 'failing', 'endless', 'garbage', 'missing', 'leaves', 'agentless'];
    const toolchains = Object.fromEntries(names.map((name) => [name, publisher.url(`/${name}/list`)]));
    await using host = new Host({ toolchains });
    await using helper = new FakeHelper(host.root);
    const agent = await agentPackage(host.path('build'));
    publisher.toolchain('good', { script: GOOD, agent });
    publisher.toolchain('checksum', { script: GOOD, agent });
    publisher.files.set('/checksum/bootstrap.sh', 'echo something else\n');
    publisher.toolchain('failing', { script: 'echo broken >&2; exit 3\n', agent });
    publisher.toolchain('endless', { script: 'sleep 1000\n', agent, timeLimitSeconds: 1 });
    publisher.files.set('/garbage/list', '<html>Welcome to the captive portal</html>\n');
    publisher.toolchain('leaves', { script: 'true\n', agent });
    publisher.toolchain('agentless', { script: GOOD, agent: await agentPackage(host.path('run'), ['agent.mjs']) });
    using notify = new NotifySocket(host.path('notify'));
    const monitor = host.start({ notify, timing: ['retryFirstMs=60000'] });

    const status = await host.until(
      'ready',
      ({ state, toolchains }) => state === 'ready' && toolchains['good']?.agent === 'ready',
      40_000,
    );
    assert.deepEqual(
      Object.entries(status.toolchains).map(([name, { state }]) => `${name} ${state}`),
      names.map((name) => `${name} ${name === 'good' ? 'ready' : 'failed'}`),
    );
    const errorOf = (name: string): string =>
      `${status.toolchains[name]?.error ?? ''} (${status.toolchains[name]?.hint ?? ''})`;
    assert.match(errorOf('checksum'), /bootstrap\.sh: its SHA-256 is [0-9a-f]{64}, not [0-9a-f]{64} as the list says/);
    assert.match(errorOf('failing'), /failed: exit status 3 \(its output is in toolchains\/failing\/bootstrap\.log/);
    assert.match(errorOf('endless'), /did not end within 1 s and was stopped/);
    assert.match(errorOf('garbage'), /"# <version>" is expected, found "<html>/);
    assert.match(errorOf('missing'), /the server answers 404/);
    assert.match(errorOf('leaves'), /succeeded but did not leave bin\/tool/);
    assert.match(errorOf('agentless'), /lacks agent\.mjs or worker\.mjs/);
    assert.ok(status.problems.some((problem) => problem.includes('buildos.buildid_ulr=x: unknown (did you mean')));

    // What is there, and what is not.
    assert.equal(host.read('build/toolchains/good/bin/tool'), 'tool\n');
    assert.equal(host.read('build/agents/good/agent.mjs'), '// agent.mjs\n');
    assert.ok(!existsSync(host.path('build/tftp/toolchains/checksum/bootstrap.sh')));
    assert.ok(!existsSync(host.path('build/agents/failing')));
    const leftOver = readdirSync(host.path('build'), { recursive: true }).filter((name) =>
      /\.part$|\.new$/.test(String(name)),
    );
    assert.deepEqual(leftOver, []);
    assert.equal(helper.count('agent.start'), 1);

    // Over TFTP, with our client; foreign clients are tried in the tests of tftp/.
    const port = host.port();
    const tftp = async (name: string): Promise<string> =>
      Buffer.from(await get({ host: '127.0.0.1', port, name })).toString();
    assert.match(await tftp('toolchains/good/bootstrap.log'), /hello from the bootstrap/);
    assert.match(await tftp('toolchains/failing/bootstrap.log'), /broken/);
    assert.match(await tftp('monitor.log'), /notice  toolchain-ready good/);
    assert.ok((await get({ host: '127.0.0.1', port, name: 'toolchains/good/toolchain.tar' })).length > 1000);

    // systemd was told: alive while starting, READY=1 once and not before all were tried, STATUS with the truth, alive.
    await eventually('the watchdog is fed', () => notify.read().filter((one) => one === 'WATCHDOG=1').length > 1);
    const messages = notify.read();
    const ready = messages.filter((message) => message.startsWith('READY=1'));
    assert.equal(ready.length, 1);
    assert.match(ready[0] ?? '', /^READY=1\nSTATUS=Ready: /);
    const before = messages.slice(
      0,
      messages.findIndex((message) => message.startsWith('READY=1')),
    );
    assert.ok(before.some((message) => message.startsWith('EXTEND_TIMEOUT_USEC=')));
    assert.ok(before.some((message) => message.startsWith('STATUS=Starting: ')));
    assert.match(
      messages.findLast((message) => message.startsWith('STATUS=')) ?? '',
      /good 1\.0 ready, agent polling, 0 tasks/,
    );

    await end(monitor, 'SIGTERM');
    assert.equal(monitor.exitCode, 0);
    assert.match(notify.read().at(-1) ?? '', /^STOPPING=1/);
  },
);

test(
  'a monitor killed with -9 finds what is right, also when nothing can be fetched, and does nothing twice',
  LIMIT,
  async () => {
    await using publisher = await new Publisher().listen();
    await using host = new Host({ toolchains: { default: publisher.url('/default/list') } });
    await using helper = new FakeHelper(host.root);
    publisher.toolchain('default', { script: GOOD, agent: await agentPackage(host.path('build')) });
    const first = host.start();
    await host.until('ready', ({ toolchains }) => toolchains['default']?.agent === 'ready');
    const tar = sha256(readFileSync(host.path('build/tftp/toolchains/default/toolchain.tar')));
    await end(first, 'SIGKILL');

    publisher.isDown = true;
    publisher.asked.length = 0;
    rmSync(host.path('build/tftp/status.json'));
    host.start();
    const status = await host.until(
      'ready',
      ({ state, toolchains }) => state === 'ready' && toolchains['default']?.agent === 'ready',
    );
    assert.equal(status.toolchains['default']?.version, '1.0');
    assert.equal(helper.count('bootstrap.start'), 1);
    assert.ok(publisher.asked.every((path) => path === '/default/list'));
    assert.equal(sha256(readFileSync(host.path('build/tftp/toolchains/default/toolchain.tar'))), tar);
    await host.until('it says what it cannot look at', (now) =>
      now.status.includes('cannot look at toolchain default'),
    );
  },
);

test('a monitor killed with -9 during a bootstrap follows the one that runs', LIMIT, async () => {
  await using publisher = await new Publisher().listen();
  await using host = new Host({ toolchains: { default: publisher.url('/default/list') } });
  await using helper = new FakeHelper(host.root);
  publisher.toolchain('default', { script: `sleep 3; ${GOOD}`, agent: await agentPackage(host.path('build')) });
  const first = host.start();
  await eventually('a bootstrap runs', () => helper.count('bootstrap.start') === 1);
  await end(first, 'SIGKILL');
  const files = publisher.asked.filter((path) => path !== '/default/list').length;
  host.start();
  const status = await host.until('ready', ({ toolchains }) => toolchains['default']?.agent === 'ready');
  assert.equal(helper.count('bootstrap.start'), 1, 'it was not started again');
  assert.equal(publisher.asked.filter((path) => path !== '/default/list').length, files, 'no file was fetched again');
  assert.equal(
    status.events.filter((event) => event.name === 'monitor-start').length,
    2,
    'the first one is remembered',
  );
});

test('a failed toolchain is tried again, and at once when its list changes', LIMIT, async () => {
  await using publisher = await new Publisher().listen();
  await using host = new Host({ toolchains: { default: publisher.url('/default/list') } });
  await using helper = new FakeHelper(host.root);
  const agent = await agentPackage(host.path('build'));
  publisher.toolchain('default', { script: 'exit 1\n', agent });
  host.start({ timing: ['retryFirstMs=1500', 'retryMaxMs=60000'] });
  await host.until('failed', ({ toolchains }) => toolchains['default']?.state === 'failed');
  await eventually('a second try', () => helper.count('bootstrap.start') >= 2);
  publisher.toolchain('default', { version: '1.1', script: GOOD, agent });
  const status = await host.until('ready', ({ toolchains }) => toolchains['default']?.agent === 'ready');
  assert.equal(status.toolchains['default']?.version, '1.1');
  assert.equal(helper.count('reboot'), 0, 'nothing of it was in use, so there is nothing to reboot for');
});

test(
  'a new image: held while half published, then drained, and one reboot; the budget holds the next',
  LIMIT,
  async () => {
    await using publisher = await new Publisher().listen();
    const options = {
      buildidUrl: publisher.url('/image/buildos-buildid'),
      toolchains: { default: publisher.url('/default/list') },
    };
    await using host = new Host(options);
    await using helper = new FakeHelper(host.root);
    publisher.image('id-a');
    publisher.toolchain('default', { script: GOOD, agent: await agentPackage(host.path('build')) });
    const monitor = host.start();
    await host.until('ready', ({ state, toolchains }) => state === 'ready' && toolchains['default']?.agent === 'ready');

    // The build id is there, the initrd is still the old one.
    helper.tasks = 1;
    publisher.image('id-b', ['buildos-initrd']);
    const held = await host.until('held', ({ state }) => state === 'held');
    assert.match(
      held.status,
      /^Held on image id-a, not following image id-b: the SHA-256 of buildos-initrd as served is/,
    );
    assert.ok(held.events.some((event) => event.name === 'change-seen'));
    await sleep(1500);
    assert.ok(!existsSync(host.path('run/buildos/monitor/drain')));

    publisher.image('id-b');
    await host.until('draining', ({ state }) => state === 'draining');
    assert.deepEqual(JSON.parse(host.read('run/buildos/monitor/drain')), { reason: 'image id-a → id-b' });
    await host.until('waiting', ({ status }) =>
      /Draining for image id-a → id-b: waiting, agent default has 1 task/.test(status),
    );
    helper.undelivered = 1;
    helper.tasks = 0;
    await host.until('waiting', ({ status }) => status.includes('owes 1 result'));
    assert.equal(helper.count('reboot'), 0);
    helper.undelivered = 0;
    const rebooting = await host.until('rebooting', ({ state }) => state === 'rebooting');
    await eventually('the reboot is asked for', () => helper.count('reboot') === 1);
    assert.ok(rebooting.events.some((event) => event.name === 'reboot'));
    assert.equal(helper.count('agent.stop', 'default'), 1);
    const last = helper.verbs.filter((verb) => verb.verb === 'agent.stop' || verb.verb === 'reboot');
    assert.deepEqual(last.at(-1), { verb: 'reboot', reason: 'image id-a → id-b' });
    await sleep(2000);
    assert.equal(helper.count('reboot'), 1, 'once');
    await end(monitor, 'SIGTERM');
    const saved: unknown = JSON.parse(host.read('state/monitor/reboots.json'));
    assert.partialDeepStrictEqual(saved, { version: 1, reboots: [{ targets: ['image id-b'] }] });

    // The host comes up with the old image again: it holds for ten minutes and builds on.
    host.forget();
    const second = host.start();
    const after = await host.until(
      'held',
      ({ state, toolchains }) => state === 'held' && toolchains['default']?.agent === 'ready',
    );
    assert.match(after.status, /reboot 1 of 3 did not reach image id-b; not before \d{4}-/);
    await sleep(2500);
    assert.equal(helper.count('reboot'), 1);
    assert.ok(!existsSync(host.path('run/buildos/monitor/drain')), 'and its agents take tasks');
    await end(second, 'SIGTERM');

    // A budget that cannot be read is no licence to reboot.
    for (const spoil of [
      (): void => writeFileSync(host.path('state/monitor/reboots.json'), '{"version":1,"rebo'),
      (): void => {
        rmSync(host.path('state/monitor'), { recursive: true });
        writeFileSync(host.path('state/monitor'), 'not a folder: as unwritable as a full disk\n');
      },
    ]) {
      spoil();
      host.forget();
      const third = host.start();
      const status = await host.until('held', ({ state }) => state === 'held');
      assert.ok(
        status.problems.some((problem) => /reboot budget: Cannot (read|save)/.test(problem)),
        status.problems.join('\n'),
      );
      await host.until('held', ({ status }) => /this boot did not see the change happen/.test(status));
      await sleep(1500);
      assert.equal(helper.count('reboot'), 1);
      await end(third, 'SIGTERM');
    }
  },
);

test('a changed toolchain in use drains and reboots; what is in use is not touched before', LIMIT, async () => {
  await using publisher = await new Publisher().listen();
  await using host = new Host({ toolchains: { default: publisher.url('/default/list') } });
  await using helper = new FakeHelper(host.root);
  const agent = await agentPackage(host.path('build'));
  publisher.toolchain('default', { script: GOOD, agent });
  const first = host.start();
  await host.until('ready', ({ toolchains }) => toolchains['default']?.agent === 'ready');
  helper.tasks = 1;
  await end(first, 'SIGKILL');
  publisher.toolchain('default', { version: '2.0', script: `${GOOD}echo two\n`, agent });
  host.start();
  const status = await host.until(
    'draining',
    ({ state, toolchains }) => state === 'draining' && toolchains['default']?.agent === 'ready',
  );
  assert.equal(status.toolchains['default']?.version, '1.0');
  assert.equal(helper.count('bootstrap.start'), 1);
  helper.tasks = 0;
  await eventually('the reboot is asked for', () => helper.count('reboot') === 1);
});

test('the bundle runs like the sources, and wrong usage says what is right', LIMIT, async () => {
  await using publisher = await new Publisher().listen();
  await using host = new Host({ toolchains: { default: publisher.url('/default/list') } });
  await using helper = new FakeHelper(host.root);
  publisher.toolchain('default', { script: GOOD, agent: await agentPackage(host.path('build')) });
  const program = host.path('monitor.mjs');
  const esbuild = join(TOP, 'node_modules/.bin/esbuild');
  const words = [
    'monitor/main.ts',
    '--bundle',
    '--platform=node',
    '--format=esm',
    `--outfile=${program}`,
    '--log-level=error',
  ];
  const bundler = spawn(esbuild, words, { cwd: TOP, stdio: 'inherit' });
  assert.deepEqual(await once(bundler, 'exit'), [0, null]);
  host.start({ program });
  await host.until('ready', ({ toolchains }) => toolchains['default']?.agent === 'ready');
  assert.equal(helper.count('bootstrap.start'), 1);

  const wrong = spawn(process.execPath, [program, '--listen', 'nowhere'], { stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  wrong.stderr.on('data', (chunk: Buffer) => (said += chunk.toString()));
  assert.deepEqual(await once(wrong, 'close'), [64, null]);
  assert.match(said, /--listen is ADDRESS:PORT, not nowhere/);
});

test('fetch: every kind of bad server ends in a clear error within its bound, and leaves no file', LIMIT, async () => {
  await using publisher = await new Publisher().listen();
  const folder = mkdtempSync(join(tmpdir(), 'monitor-fetch-'));
  try {
    publisher.files.set('/good', 'good');
    publisher.files.set('/large', 'x'.repeat(100));
    publisher.files.set('/latin1', Buffer.from([0xe4, 0xf6, 0xfc]));
    const limits = { ...TEXT_LIMITS, maxBytes: 50, idleMs: 300, totalMs: 2000, tries: 2, pauseMs: 10 };
    assert.equal(await fetchText(publisher.url('/good'), limits), 'good');
    assert.equal(await fetchDigest(publisher.url('/good'), limits), sha256('good'));
    const cases: readonly (readonly [string, RegExp, number])[] = [
      [publisher.url('/large'), /larger than 50 bytes/, 1],
      [publisher.url('/missing'), /the server answers 404 Not Found/, 1],
      [publisher.url('/latin1'), /not UTF-8/, 1],
      [publisher.url('/silence'), /nothing came for 300 ms \(after 1 bytes\)/, 2],
      [publisher.url('/cut'), /terminated|other side closed|aborted/, 2],
      ['http://127.0.0.1:1/x', /ECONNREFUSED|bad port/, 0],
      ['ftp://127.0.0.1/x', /not a URL of http, https or tftp/, 0],
      ['nonsense', /not a URL of http, https or tftp/, 0],
    ];
    for (const [url, message, tries] of cases) {
      publisher.asked.length = 0;
      await assert.rejects(
        fetchText(url, limits),
        (error) => error instanceof FetchError && message.test(error.message),
      );
      assert.equal(publisher.asked.length, tries, url);
    }
    // The same over TFTP, from our own server.
    writeFileSync(join(folder, 'a file'), 'over TFTP');
    await using server = await serveFolder({ folder, address: '127.0.0.1', port: 0 });
    const tftp = (name: string): string => `tftp://127.0.0.1:${server.port}/${name}`;
    assert.equal(await fetchText(tftp('a%20file;mode=octet'), limits), 'over TFTP');
    assert.equal(await fetchDigest(tftp('a%20file'), limits), sha256('over TFTP'));
    await assert.rejects(fetchText(tftp('a%20file'), { ...limits, maxBytes: 3 }), FetchError);
    await assert.rejects(
      fetchText(tftp('missing'), limits),
      (error) => error instanceof FetchError && /not found/i.test(error.message),
    );

    const file = join(folder, 'deep/file');
    const wrong = fetchToFile(publisher.url('/good'), { file, sha256: sha256('bad') }, limits);
    await assert.rejects(wrong, /its SHA-256 is/);
    assert.deepEqual(readdirSync(dirname(file)), []);
    writeFileSync(file, 'old');
    await assert.rejects(fetchToFile(publisher.url('/cut'), { file, sha256: sha256('good') }, limits), FetchError);
    assert.equal(readFileSync(file, 'utf8'), 'old', 'a failed fetch leaves the old file');
    await fetchToFile(publisher.url('/good'), { file, sha256: sha256('good') }, limits);
    assert.equal(readFileSync(file, 'utf8'), 'good');
    chmodSync(file, 0o644);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
