import assert from 'node:assert/strict';
import { test } from 'node:test';
import { anything, array, assert as check, constantFrom, dictionary, property, string } from 'fast-check';
import { VERB_NAMES, VerbError, parseVerb } from './verb.ts';

const START = {
  verb: 'machine.start',
  volume: 'default',
  build: 'default-7',
  toolchain: 'default',
  address: '169.254.1.2',
  port: 20_000,
  cpus: 2,
  memoryMiB: 1024,
  tasksMax: 4096,
  timeoutSeconds: 3600,
};
const BOOTSTRAP = {
  verb: 'bootstrap.start',
  toolchain: 'default',
  command: ['sh', '/build/tftp/toolchains/default/bootstrap.sh'],
  environment: { CC: 'gcc' },
  timeLimitSeconds: 900,
};

/** One good request for each verb. */
const GOOD = [
  { verb: 'machine.snapshot', volume: 'default', machine: 'linux_debian_13-gcc_14.2', build: 'default-7' },
  { verb: 'machine.delete', volume: 'default', build: 'default-7' },
  START,
  { verb: 'machine.stop', build: 'default-7' },
  { verb: 'machine.list' },
  { verb: 'machine.wait', build: 'default-7' },
  BOOTSTRAP,
  { verb: 'bootstrap.state', toolchain: 'default' },
  { verb: 'bootstrap.stop', toolchain: 'default' },
  { verb: 'agent.start', toolchain: 'default' },
  { verb: 'agent.stop', toolchain: 'default' },
  { verb: 'agent.restart', toolchain: 'default' },
  { verb: 'agent.state', toolchain: 'default' },
  { verb: 'hostname.set', name: 'host-7' },
  { verb: 'reboot', reason: 'a new build id' },
];

test('parseVerb() takes a good request of every verb as it is', () => {
  assert.deepEqual(
    GOOD.map(({ verb }) => verb),
    VERB_NAMES,
  );
  for (const request of GOOD) assert.deepEqual(parseVerb(JSON.parse(JSON.stringify(request))), request);
});

test('parseVerb() refuses names that could become another path, option, unit or property', () => {
  const bad = [
    '',
    '.',
    '..',
    '.builds',
    '-x',
    'a/b',
    '../a',
    'a\0',
    'a\n',
    'a b',
    'a@b',
    'a%n',
    'a:b',
    'ä',
    'x'.repeat(65),
  ];
  for (const name of [...bad, undefined, null, 7, ['a'], { toString: 'a' }]) {
    for (const key of ['volume', 'machine', 'build']) {
      assert.throws(() => parseVerb({ ...GOOD[0], [key]: name }), VerbError, `${key} ${JSON.stringify(name)}`);
    }
    assert.throws(() => parseVerb({ verb: 'agent.start', toolchain: name }), VerbError);
  }
  // A build becomes a host name.
  for (const build of ['a_b', 'a.b', 'a-', 'x'.repeat(33)]) {
    assert.throws(() => parseVerb({ verb: 'machine.stop', build }), VerbError, build);
  }
});

test('parseVerb() takes only addresses a machine may have', () => {
  const bad = [
    '169.254.0.0',
    '169.254.255.255',
    '169.254.111.222',
    '169.254.1.256',
    '169.254.1',
    '169.254.01.2',
    '10.0.0.1',
  ];
  for (const address of [...bad, '169.254.1.2/16', ' 169.254.1.2', 'fe80::1', '']) {
    assert.throws(() => parseVerb({ ...START, address }), VerbError, address);
  }
  assert.ok(parseVerb({ ...START, address: '169.254.255.254' }));
});

test('parseVerb() holds numbers to their ranges', () => {
  const bad = { port: 1023, cpus: 0, memoryMiB: 1, tasksMax: 1, timeoutSeconds: 0 };
  for (const [key, value] of Object.entries(bad)) {
    for (const wrong of [value, -1, 1.5, 1e12, Number.NaN, '20000', null]) {
      assert.throws(() => parseVerb({ ...START, [key]: wrong }), VerbError, `${key} ${String(wrong)}`);
    }
  }
});

test('parseVerb() refuses commands and variables that are no single words', () => {
  for (const command of [
    [],
    'sh',
    [''],
    ['-c'],
    ['sh', 'a\nb'],
    ['sh', 'a\0'],
    ['sh', 7],
    Array(65).fill('x'),
    ['x'.repeat(4097)],
  ]) {
    assert.throws(() => parseVerb({ ...BOOTSTRAP, command }), VerbError, JSON.stringify(command).slice(0, 60));
  }
  for (const environment of [[], null, { 'A=B': 'c' }, { A: 'b\nc' }, { A: 1 }, { '': 'x' }, { '1A': 'x' }]) {
    assert.throws(() => parseVerb({ ...BOOTSTRAP, environment }), VerbError, JSON.stringify(environment));
  }
});

test('parseVerb() refuses an argument it does not know, and says which it does', () => {
  assert.throws(() => parseVerb({ ...START, memoryMB: 1 }), {
    name: 'VerbError',
    message: 'Cannot take machine.start: unknown argument "memoryMB"',
    hint: 'machine.start takes volume, build, toolchain, address, port, cpus, memoryMiB, tasksMax, timeoutSeconds',
  });
  assert.throws(() => parseVerb({ ...START, port: 'ssh' }), {
    message: 'Cannot take machine.start: port is "ssh", not a whole number from 1024 to 65535',
    argument: 'port',
  });
  assert.throws(() => parseVerb({ verb: 'shell' }), { message: 'Cannot take the request: unknown verb "shell"' });
});

test('parseVerb() is not misled by what objects inherit', () => {
  for (const verb of ['toString', 'constructor', '__proto__', 'hasOwnProperty']) {
    assert.throws(() => parseVerb({ verb }), VerbError);
  }
  assert.throws(() => parseVerb(JSON.parse('{"verb":"machine.list","__proto__":{"build":"x"}}')), VerbError);
  assert.throws(() => parseVerb(Object.create({ verb: 'machine.list' })), VerbError);
  const noted = { ...BOOTSTRAP, environment: JSON.parse('{"__proto__":"x"}') as unknown };
  assert.throws(() => parseVerb(noted), VerbError);
});

test('parseVerb() answers any JSON with a verb or a VerbError', () => {
  const taken = (value: unknown): boolean => {
    try {
      parseVerb(value);
    } catch (error) {
      assert.ok(error instanceof VerbError);
      assert.ok(error.message.length < 500);
    }
    return true;
  };
  check(property(anything(), taken));
  const keys = constantFrom(...new Set(GOOD.flatMap((request) => Object.keys(request))), '__proto__', 'x');
  const requests = dictionary(keys, anything());
  check(property(constantFrom(...VERB_NAMES), requests, (verb, request) => taken({ ...request, verb })));
});

test('parseVerb() lets no word through that holds a control character, and no name with a slash', () => {
  check(
    property(string({ unit: 'binary', maxLength: 70 }), array(string({ unit: 'binary' })), (name, words) => {
      for (const request of [
        { verb: 'agent.start', toolchain: name },
        { verb: 'machine.stop', build: name },
        { verb: 'hostname.set', name },
        { verb: 'reboot', reason: name },
        { ...BOOTSTRAP, command: words },
      ]) {
        let parsed: unknown;
        try {
          parsed = parseVerb(request);
        } catch {
          continue;
        }
        const text = JSON.stringify(parsed);
        assert.doesNotMatch(text, /\\u00[01]|\\[nrtbf]/);
        if ('toolchain' in request && request.verb === 'agent.start')
          assert.match(name, /^[A-Za-z0-9][A-Za-z0-9_.-]*$/);
      }
    }),
  );
});
