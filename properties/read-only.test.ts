import assert from 'node:assert/strict';
import { test } from 'node:test';
import { toyDefinition, toyHost } from './_toy.ts';
import { planHost } from './plan.ts';
import { type PropertyApplication, defineProperty } from './property.ts';
import { checkReadOnly, declareReadOnly } from './read-only.ts';

const LOOKS: readonly string[] = [
  'cat /etc/passwd',
  'test -e /x',
  'find / -type f -print -quit',
  'systemctl is-enabled -- a.service',
  'systemctl --no-pager show a.service',
  'sysctl -n net.ipv4.ip_forward',
  'date +%s',
  'date -u --date=now +%s',
  'swapon --show=NAME --noheadings',
  'ip -j addr show dev lo',
  'dpkg-query -W -f x',
  'passwd -S root',
  'hostname -f',
];

const ACTS: readonly string[] = [
  'rm /x',
  'sh -c true',
  'env true',
  'find / -delete',
  'find / -exec rm {} +',
  'find / -fprintf /x y',
  'systemctl start a.service',
  'systemctl',
  'sysctl -w a=b',
  'sysctl a=b',
  'sysctl --system',
  'date -s now',
  'date 010100002030',
  'swapon /dev/sda',
  'ip link set lo down',
  'ip addr add 1.2.3.4 dev show',
  'passwd -d root',
  'hostname other',
  'apt-mark hold x',
  'dpkg-divert --add /x',
  'toString',
  '__proto__',
];

test('what only looks may run, what may change something may not', () => {
  for (const command of LOOKS) checkReadOnly(command.split(' '));
  for (const command of ACTS) {
    assert.throws(() => checkReadOnly(command.split(' ')), /to look: /, command);
  }
});

test('a program can be declared, also for some words only', () => {
  assert.throws(() => checkReadOnly(['mytool', 'list']), /"mytool" is not declared read-only/);
  const mytool = declareReadOnly('mytool', (words) => words[0] === 'list');
  checkReadOnly(mytool('list'));
  assert.throws(() => checkReadOnly(mytool('erase')), /it may change something/);
});

test('a check that would change something is stopped before it does, whatever its types were told', async () => {
  const remove: string[] = ['set', 'a', '1'];
  const sly: () => PropertyApplication = defineProperty<[]>({
    id: 'test.sly',
    kind: 'posix',
    describe: () => 'sly',
    check: async (host) => {
      const untyped: { run(argv: unknown): Promise<unknown> } = Object.create(host);
      await untyped.run(remove);
      return true;
    },
    apply: () => {},
  });
  const host = toyHost();
  await assert.rejects(
    planHost(toyDefinition(sly()), host.connection, { memory: 'none' }),
    /Cannot run "set a 1" to look/,
  );
  assert.deepEqual(host.ran, []);
});

test('a reader has no way to write, also where types do not look', async () => {
  let members: string[] = [];
  const nosy: () => PropertyApplication = defineProperty<[]>({
    id: 'test.nosy',
    kind: 'posix',
    describe: () => 'nosy',
    check: (host) => {
      members = Object.keys(host);
      return true;
    },
    apply: () => {},
  });
  await planHost(toyDefinition(nosy()), toyHost().connection, { memory: 'none' });
  assert.deepEqual(members.sort(), ['attrs', 'data', 'facts', 'isContained', 'isLive', 'readFile', 'run']);
});
