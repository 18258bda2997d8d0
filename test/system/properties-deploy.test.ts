/**
 * One definition of a host, over ssh and sudo with a password, as an operator does it with the command line: planned,
 * deployed, planned again; a property leaves it and is taken back. A plan changes nothing, a second deploy touches nothing,
 * and the secrets are seen nowhere. About 30 seconds.
 */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { text } from 'node:stream/consumers';
import { formatChainText } from '../../connections/chain.ts';
import { openChain } from '../../connections/open.ts';
import { unapplied } from '../../properties/combinators.ts';
import { atMost, deploys } from '../../properties/conditions.ts';
import { checkReport, deploy } from '../../properties/deploy.ts';
import * as file from '../../properties/file.ts';
import { loadHostDefinition } from '../../properties/load-host.ts';
import { planHost } from '../../properties/plan.ts';
import { cannotChroot } from './_debian-root.ts';
import { type FarHost, PASSWORDS, startFarHost } from './_far-host.ts';

const OPTIONS = { timeout: 120_000, skip: cannotChroot };
const TOP = join(import.meta.dirname, '../..');
const SECRET = 'a private key, three words more';

let far: FarHost;
let folder: string;
/** All that the command line said in these tests. */
let said = '';

before(async () => {
  if (cannotChroot !== false) return;
  far = await startFarHost();
  folder = mkdtempSync(join(tmpdir(), 'buildos-deploy-'));
  put(join(folder, 'data/my-host/tls.key'), SECRET);
  put(join(folder, 'data', hostname(), 'joe.password'), `${PASSWORDS['joe']}\n`);
});

after(async () => {
  await far?.[Symbol.asyncDispose]();
  if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
});

function put(path: string, content: string): void {
  mkdirSync(join(path, '..'), { recursive: true });
  writeFileSync(path, content);
}

/** Properties of the first version; the second lacks those marked with `leaves`. */
const PROPERTIES: readonly { readonly code: string; readonly leaves?: true }[] = [
  { code: `user.present({ name: 'web', home: '/srv/web', makeHome: true })` },
  { code: `user.present({ name: 'temp' })`, leaves: true },
  { code: `file.hasContent('/etc/motd', 'welcome\\n')` },
  { code: `file.hasLines('/etc/services', ['buildos 6969/udp', 'gone 1/udp'])` },
  { code: `file.hasData('/etc/tls.key', { context: 'my-host', name: 'tls.key' }, { owner: 'web' })` },
  {
    code: `systemd.unit('my.service', ${JSON.stringify('[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n')})`,
    leaves: true,
  },
  { code: `systemd.enabled(['my.service'])`, leaves: true },
  { code: `onChange(file.hasContent('/etc/watched', '1'), file.hasContent('/etc/follower', '1'))` },
  { code: `as('web', file.hasContent('/srv/web/own', 'mine', { owner: 'web' }))` },
  { code: `whenContained(file.hasContent('/etc/where', 'inside'), file.hasContent('/etc/where', 'outside'))` },
  {
    code: `osCase({ 'debian:trixie': file.hasContent('/etc/os', 'trixie'), otherwise: file.hasContent('/etc/os', '?') })`,
  },
  { code: `file.directory('/srv/kept')` },
  { code: `file.directory('/srv/left')`, leaves: true },
  { code: `kernel.option('quiet')` },
];

/** Writes the definition as a user does, and gives its path. */
function define(version: 1 | 2): string {
  const imports = ['file', 'kernel', 'systemd', 'user'].map(
    (name) => `import * as ${name} from ${JSON.stringify(join(TOP, `properties/${name}.ts`))};`,
  );
  const code = PROPERTIES.filter(({ leaves }) => version === 1 || leaves !== true)
    .map((one) => `    ${one.code.replace(version === 2 ? `, 'gone 1/udp'` : '\0', '')},`)
    .join('\n');
  const path = join(folder, `my-host-${version}.ts`);
  writeFileSync(
    path,
    `${imports.join('\n')}
import { onChange } from ${JSON.stringify(join(TOP, 'properties/combinators.ts'))};
import { as, osCase, whenContained } from ${JSON.stringify(join(TOP, 'properties/conditions.ts'))};
export const host = {
  name: 'my-host',
  summary: 'a host for tests',
  base: { distribution: 'debian', suite: 'trixie' },
  properties: [\n${code}\n  ],
};
`,
  );
  return path;
}

/** Runs the command line; its output is kept. */
async function buildos(...words: readonly string[]): Promise<{ readonly status: number; readonly out: string }> {
  const child = spawn(process.execPath, [join(TOP, 'cli/main.ts'), ...words], { stdio: ['ignore', 'pipe', 'pipe'] });
  const ended = new Promise<number>((resolve) => child.on('close', (status) => resolve(status ?? -1)));
  const [out, err, status] = await Promise.all([text(child.stdout), text(child.stderr), ended]);
  said += out + err;
  return { status, out: `${out}${err}` };
}

async function host(verb: 'plan' | 'deploy', version: 1 | 2, ...more: string[]): ReturnType<typeof buildos> {
  const on = formatChainText([far.ssh('joe'), ['sudo']]);
  const path = define(version);
  return await buildos('host', verb, path, '--on', on, '--data', `tree:${join(folder, 'data')}`, ...more);
}

/** Inode, change and modification time, mode, owner, size, link target of all that is there. */
function snapshot(): string {
  const format = '%i %T@ %C@ %m %U:%G %s %l %p\\n';
  // sudo notes when a user was last asked for his password, and ssh when he was last there.
  const words = [
    far.root,
    '(',
    '-path',
    '*/var/lib/sudo',
    '-o',
    '-path',
    '*/var/log',
    ')',
    '-prune',
    '-o',
    '-printf',
    format,
  ];
  return execFileSync('find', words, { encoding: 'utf8', maxBuffer: 256 * 1024 * 1024 });
}

const inRoot = (path: string): string => readFileSync(join(far.root, path), 'utf8');

test('a plan shows what would change, and changes nothing', OPTIONS, async () => {
  const before = snapshot();
  const { status, out } = await host('plan', 1);
  assert.equal(status, 2, out);
  assert.match(out, /\n {6}\+welcome\n/);
  assert.match(out, /\/etc\/tls\.key: \[secret\]/);
  assert.match(out, /~ user web/);
  assert.equal(snapshot(), before);
});

test('deploy makes all of it hold, inside as inside', OPTIONS, async () => {
  const outside = hostname();
  const { status, out } = await host('deploy', 1);
  assert.equal(status, 0, out);
  assert.match(out, /my-host on .*: \d+ changed/);
  assert.equal(inRoot('etc/tls.key'), SECRET);
  assert.equal(statSync(join(far.root, 'etc/tls.key')).mode & 0o777, 0o600);
  assert.equal(inRoot('etc/follower'), '1');
  assert.equal(inRoot('etc/where'), 'inside');
  assert.equal(inRoot('etc/os'), 'trixie');
  const own = statSync(join(far.root, 'srv/web/own'));
  assert.equal(String(own.uid), /^web:x:(\d+):/m.exec(inRoot('etc/passwd'))?.[1]);
  const wants = join(far.root, 'etc/systemd/system/multi-user.target.wants');
  assert.deepEqual(
    readdirSync(wants).filter((name) => name.startsWith('my.')),
    ['my.service'],
  );
  assert.equal(hostname(), outside);
});

test('then a plan has nothing to do, and neither it nor another deploy touches an inode', OPTIONS, async () => {
  const before = snapshot();
  const plan = await host('plan', 1);
  assert.equal(plan.status, 0, plan.out);
  assert.match(plan.out, /nothing to do/);
  const again = await host('deploy', 1);
  assert.equal(again.status, 0, again.out);
  assert.match(again.out, /no changes/);
  assert.equal(snapshot(), before);
});

test('what left the definition is planned to be taken back, and is; the rest stays', OPTIONS, async () => {
  const before = snapshot();
  const plan = await host('plan', 2, '--json');
  assert.equal(plan.status, 2, plan.out);
  const { left }: { left: { description: string; action: string }[] } = JSON.parse(plan.out);
  assert.deepEqual(
    left.map(({ action, description }) => `${action} ${description}`),
    [
      'unapply not: /srv/left is a directory',
      'unapply not: enabled: my.service',
      'unapply not: unit my.service',
      'unapply not: /etc/services has the line "gone 1/udp"',
      'unapply not: user temp',
    ],
  );
  assert.equal(snapshot(), before);
  const deployed = await host('deploy', 2);
  assert.equal(deployed.status, 0, deployed.out);
  assert.doesNotMatch(inRoot('etc/services'), /^gone/m);
  assert.match(inRoot('etc/services'), /^buildos 6969\/udp$/m);
  assert.doesNotMatch(inRoot('etc/passwd'), /^temp:/m);
  for (const path of [
    'etc/systemd/system/my.service',
    'etc/systemd/system/multi-user.target.wants/my.service',
    'srv/left',
  ]) {
    assert.ok(!existsSync(join(far.root, path)), path);
  }
  assert.ok(existsSync(join(far.root, 'srv/kept')));
  const after = await host('plan', 2);
  assert.equal(after.status, 0, after.out);
});

test('the same list over another chain gives the same bytes, its memory included', OPTIONS, async () => {
  const inner = join(far.root, far.inner);
  const loaded = await loadHostDefinition(define(2));
  const { properties, ...rest } = loaded.define(undefined);
  // Data comes from elsewhere in this process, and `as` needs no second look.
  const definition = { ...rest, properties: properties.filter(({ p }) => p !== 'file.hasData') };
  for (const root of [inner, far.root]) {
    await using connection = await openChain([['chroot.shell', { into: root, network: false }]]);
    checkReport(await deploy(definition, connection));
  }
  for (const path of ['etc/motd', 'etc/where', 'etc/os', 'srv/web/own', 'var/lib/buildos/properties/my-host.json']) {
    assert.equal(readFileSync(join(inner, path), 'utf8'), inRoot(path), path);
  }
});

test('a host deploys another one inside of it; at most daily is once', OPTIONS, async () => {
  const base = { distribution: 'debian', suite: 'trixie' } as const;
  const inside = { name: 'inside', summary: 'inside', base, properties: [file.hasContent('/etc/deep', 'deep')] };
  const properties = [
    deploys([['chroot.shell', { into: far.inner, network: false }]], inside),
    atMost('daily', unapplied(file.hasContent('/etc/rare', ''))),
  ];
  const outer = { name: 'outer', summary: 'outer', base, properties };
  await using connection = await openChain([['chroot.shell', { into: far.root, network: false }]]);
  writeFileSync(join(far.root, 'etc/rare'), '');
  const outcomes = async (): Promise<string[]> =>
    (await deploy(outer, connection)).results.map(({ outcome }) => outcome);
  assert.equal((await planHost(outer, connection)).outcome, 'pending');
  assert.deepEqual(await outcomes(), ['changed', 'changed']);
  assert.equal(inRoot(join(far.inner, 'etc/deep')), 'deep');
  assert.ok(existsSync(join(far.root, far.inner, 'var/lib/buildos/properties/inside.json')));
  writeFileSync(join(far.root, 'etc/rare'), ''); // not looked at again today
  assert.deepEqual(await outcomes(), ['ok', 'ok']);
  assert.ok(existsSync(join(far.root, 'etc/rare')));
  assert.equal((await planHost(outer, connection)).outcome, 'ok');
});

test('prop check, apply and unapply work on one property, and say so by their status', OPTIONS, async () => {
  const on = ['--on', formatChainText([['chroot.shell', { into: far.root }]])];
  const words = ['file.hasContent', '/etc/by-hand', 'x', '{"mode":384}'];
  assert.equal((await buildos('prop', 'check', ...words, ...on)).status, 2);
  assert.equal((await buildos('prop', 'apply', ...words, ...on)).status, 0);
  assert.equal(statSync(join(far.root, 'etc/by-hand')).mode & 0o777, 0o600);
  assert.equal((await buildos('prop', 'check', ...words, ...on)).status, 0);
  assert.equal((await buildos('prop', 'unapply', ...words, ...on)).status, 0);
  assert.ok(!existsSync(join(far.root, 'etc/by-hand')));
  const failed = await buildos('prop', 'apply', 'user.present', '{"name":"x","groups":["no-such"]}', ...on);
  assert.equal(failed.status, 1);
  assert.match(failed.out, /groups that do not exist: no-such/);
});

test('what makes no sense is told before anything is contacted', OPTIONS, async () => {
  const nowhere = ['--on', '((:ssh :host "192.0.2.1" :connect-timeout 60))'];
  const path = define(1);
  const missing = await buildos('host', 'plan', path, ...nowhere, '--data', 'env');
  assert.equal(missing.status, 1);
  assert.match(missing.out, /Cannot find the data my-host\/tls.key: not in the environment/);
  const chain = await buildos('host', 'plan', path, '--on', '["ssh",{"host":"x"}]');
  assert.equal(chain.status, 64);
  assert.match(chain.out, /is one hop, not a list of hops/);
});

test('no secret was said or kept anywhere but in its file', OPTIONS, () => {
  const kept = readdirSync(join(far.root, 'var/lib/buildos'), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => readFileSync(join(entry.parentPath, entry.name), 'utf8'));
  assert.ok(kept.length > 0 && said.length > 1000);
  const shapes = [
    SECRET,
    PASSWORDS['joe'] ?? '',
    Buffer.from(SECRET).toString('base64'),
    Buffer.from(SECRET).toString('hex'),
  ];
  for (const shape of shapes) for (const one of [said, ...kept]) assert.ok(!one.includes(shape), one);
});
