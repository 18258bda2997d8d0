/**
 * What is published must be signed, by Debian's minisign here, where the host is told a key: nothing else is taken, at
 * the first bootstrap and when it changes. The monitor is a process; the helper and the publisher are played, see
 * monitor.test.ts.
 */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { test } from 'node:test';
import { Signer } from './_minisign.ts';
import { FakeHelper } from './_monitor-helper.ts';
import { Host, agentPackage, eventually } from './_monitor-host.ts';
import { Publisher } from './_monitor-publisher.ts';

const LIMIT = { timeout: 90_000 };
const GOOD = 'mkdir -p "$1/bin"; echo tool > "$1/bin/tool"\n';

/** Signs what is published at a path, as it is now. */
function sign(publisher: Publisher, path: string, signer: Signer, ...options: readonly string[]): void {
  publisher.files.set(`${path}.minisig`, signer.sign(publisher.files.get(path) ?? '', ...options));
}

test('a toolchain is bootstrapped from a list that the trusted key has signed, and from no other', LIMIT, async () => {
  using ours = new Signer();
  using theirs = new Signer();
  await using publisher = await new Publisher().listen();
  const names = ['signed', 'old', 'altered', 'unsigned', 'other', 'mistyped', 'free'];
  const trust = Object.fromEntries(names.slice(0, -2).map((name) => [name, ours.publicKey]));
  await using host = new Host({
    toolchains: Object.fromEntries(names.map((name) => [name, publisher.url(`/${name}/list`)])),
    trust: { ...trust, mistyped: 'RWmistyped' },
  });
  await using helper = new FakeHelper(host.root);
  const agent = await agentPackage(host.path('build'));
  for (const name of names) publisher.toolchain(name, { script: GOOD, agent });
  for (const name of ['signed', 'altered', 'mistyped']) sign(publisher, `/${name}/list`, ours);
  sign(publisher, '/old/list', ours, '-l');
  sign(publisher, '/other/list', theirs);
  publisher.toolchain('altered', { script: `${GOOD}: and more\n`, agent });
  host.start({ timing: ['retryFirstMs=60000'] });

  const good = ['signed', 'old', 'free'];
  const status = await host.until(
    'ready',
    ({ state, toolchains }) => state === 'ready' && good.every((name) => toolchains[name]?.agent === 'ready'),
  );
  assert.deepEqual(
    Object.entries(status.toolchains).map(([name, { state }]) => `${name} ${state}`),
    names.map((name) => `${name} ${good.includes(name) ? 'ready' : 'failed'}`),
  );
  const said = (name: string): string =>
    `${status.toolchains[name]?.error ?? ''} (${status.toolchains[name]?.hint ?? ''})`;
  assert.match(
    said('altered'),
    /^Cannot trust http:\S+\/altered\/list: its signature does not fit the content \(one of/,
  );
  assert.match(
    said('unsigned'),
    /^Cannot trust http:\S+\/unsigned\/list without its signature: Cannot fetch http:\S+\/unsigned\/list\.minisig: .* 404 .*\(publish it with --sign/,
  );
  assert.ok(
    said('other').includes(
      `/other/list: its signature is of the key ${theirs.keyId}, not of ${ours.keyId} that is trusted (sign with`,
    ),
    said('other'),
  );
  assert.match(said('mistyped'), /Cannot read the minisign public key "RWmistyped".*\(it is the second line/);
  assert.deepEqual(
    status.problems.filter((problem) => problem.includes('_trust')),
    [
      'kernel option buildos.toolchain_trust.free: not given, so this host follows whatever is published, whoever has put it there (publish with --sign, and give hosts the public key)',
    ],
  );

  // Of a list that is not trusted nothing else is even fetched.
  const untrusted = publisher.asked.filter((path) => /^\/(altered|unsigned|other|mistyped)\//.test(path));
  assert.deepEqual(
    untrusted.filter((path) => !/\/list(\.minisig)?$/.test(path)),
    [],
  );
  assert.equal(helper.count('bootstrap.start'), good.length);

  // A list that is right is taken at once.
  publisher.toolchain('altered', { version: '1.1', script: GOOD, agent });
  sign(publisher, '/altered/list', ours);
  const mended = await host.until('mended', ({ toolchains }) => toolchains['altered']?.agent === 'ready');
  assert.equal(mended.toolchains['altered']?.version, '1.1');
  assert.equal(helper.count('reboot'), 0);
});

test('a change that is not signed is held, and no reboot begins; signed, it is followed', LIMIT, async () => {
  using ours = new Signer();
  using theirs = new Signer();
  await using publisher = await new Publisher().listen();
  await using host = new Host({
    buildidUrl: publisher.url('/image/buildos-buildid'),
    buildidTrust: ours.publicKey,
    toolchains: { default: publisher.url('/default/list') },
    trust: { default: ours.publicKey },
  });
  await using helper = new FakeHelper(host.root);
  const agent = await agentPackage(host.path('build'));
  publisher.image('id-a');
  sign(publisher, '/image/SHA256SUMS', ours);
  publisher.toolchain('default', { script: GOOD, agent });
  sign(publisher, '/default/list', ours);
  host.start();
  await host.until('ready', ({ state, toolchains }) => state === 'ready' && toolchains['default']?.agent === 'ready');
  publisher.asked.length = 0;

  // The toolchain: another list, with the signature of the one before.
  const before = new Map(publisher.files);
  publisher.toolchain('default', { version: '2.0', script: `${GOOD}echo two\n`, agent });
  const held = await host.until('held', ({ state }) => state === 'held');
  assert.match(
    held.status,
    /^Held on image id-a, not following toolchain default [0-9a-f]{12}: Cannot trust http:\S+\/default\/list: its signature does not fit the content/,
  );
  assert.equal(held.toolchains['default']?.version, '1.0');
  for (const [path, content] of before) publisher.files.set(path, content);
  await host.until('ready again', ({ state }) => state === 'ready');

  // The image: whole, and signed by somebody else.
  publisher.image('id-b');
  sign(publisher, '/image/SHA256SUMS', theirs);
  const { status } = await host.until('held', (now) => now.state === 'held' && now.status.includes('image id-b'));
  assert.match(status, /^Held on image id-a, not following image id-b: Cannot trust http:\S+\/image\/SHA256SUMS: its/);
  assert.ok(status.includes(`of the key ${theirs.keyId}, not of ${ours.keyId} that is trusted`), status);

  assert.ok(publisher.asked.includes('/image/SHA256SUMS.minisig'));
  assert.deepEqual(
    publisher.asked.filter((path) => /image\/buildos-(image|initrd)|default\/(bootstrap|agent)/.test(path)),
    [],
    'nothing large was fetched',
  );
  assert.ok(!existsSync(host.path('run/buildos/monitor/drain')));
  assert.equal(helper.count('reboot'), 0);

  sign(publisher, '/image/SHA256SUMS', ours);
  await eventually('the reboot is asked for', () => helper.count('reboot') === 1);
  const reboot = helper.verbs.find(({ verb }) => verb === 'reboot');
  assert.deepEqual(reboot, { verb: 'reboot', reason: 'image id-a → id-b' });
});
