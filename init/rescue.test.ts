import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { describeFailure } from './rescue.ts';
import { InitError } from './step.ts';

test('a failed step is told with its name, reason and what to try', () => {
  const error = new InitError('root file system', 'mount: no\nmore', { hint: 'boot again' });
  assert.equal(
    describeFailure(error),
    [
      '',
      '*** Build OS cannot start on this host ***',
      '  step: root file system',
      '  why:  mount: no',
      '        more',
      '  try:  boot again',
      '',
    ].join('\n'),
  );
});

test('a fault of our own is told with its trace', () => {
  const text = describeFailure(new TypeError('x is undefined'));
  assert.match(text, /step: start\n {2}why: {2}x is undefined\n {2}try: {2}this is a fault of Build OS/);
  assert.match(text, /at .*rescue\.test\.ts/);
});

test('the rescue shell never ends by itself', () => {
  const script = readFileSync(join(import.meta.dirname, 'rescue.sh'), 'utf8');
  assert.match(script, /while :; do "\$busybox" sleep 3600; done\n$/);
});
