import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseProperties, parseUnitLines, transientArgv } from './systemd.ts';

test('parseProperties() keeps = in values and empty values', () => {
  const found = parseProperties('ActiveState=active\nStatusText=a=b\nResult=\n\n');
  assert.deepEqual({ ...found }, { ActiveState: 'active', StatusText: 'a=b', Result: '' });
});

test('parseUnitLines() reads list-units, with and without the mark of a failed unit', () => {
  const answer = [
    '  buildos-machine-a-1.service loaded active exited Machine of build a-1',
    '● buildos-machine-a-2.service loaded failed failed Machine of build a-2',
    '',
  ].join('\n');
  assert.deepEqual(parseUnitLines(answer), [
    { unit: 'buildos-machine-a-1.service', load: 'loaded', active: 'active', sub: 'exited' },
    { unit: 'buildos-machine-a-2.service', load: 'loaded', active: 'failed', sub: 'failed' },
  ]);
});

test('transientArgv() keeps systemd from expanding variables in the command', () => {
  const unit = {
    unit: 'x.service',
    description: 'X',
    properties: [],
    environment: { A: '$B' },
    command: ['/bin/echo', '$A'],
  };
  assert.deepEqual(transientArgv(unit).slice(-5), [
    '--expand-environment=no',
    '--setenv=A=$B',
    '--',
    '/bin/echo',
    '$A',
  ]);
});
