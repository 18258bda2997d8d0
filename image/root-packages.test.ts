/** Which packages are of the first stage of a root. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseControl } from './deb-control.ts';
import { splitStages } from './root-packages.ts';

const split = (...stanzas: readonly string[]): readonly string[] => {
  const { base, rest } = splitStages(stanzas.map((text) => ({ fields: parseControl(text) })));
  const names = (all: typeof base): string => all.map(({ fields }) => fields['Package']).join(' ');
  return [names(base), names(rest)];
};

test('the first stage is what is essential or required, apt, and what they depend on', () => {
  assert.deepEqual(
    split(
      'Package: apt\nDepends: libapt (>= 1)',
      'Package: dash\nEssential: yes\nPre-Depends: debianutils:any',
      'Package: debianutils',
      'Package: kmod\nDepends: libc',
      'Package: libapt\nDepends: libc, gpgv | sqv',
      'Package: libc',
      'Package: mount\nPriority: required',
      'Package: sqv',
    ),
    ['apt dash debianutils libapt libc mount sqv', 'kmod'],
  );
});

test('what a package depends on by another name is there, too; what has no dependencies brings nothing', () => {
  assert.deepEqual(
    split(
      'Package: bash\nEssential: yes\nDepends:',
      'Package: mawk\nProvides: awk',
      'Package: x\nEssential: yes\nDepends: awk',
      'Package: y',
    ),
    ['bash mawk x', 'y'],
  );
});
