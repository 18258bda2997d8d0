import assert from 'node:assert/strict';
import { test } from 'node:test';
import { layersOf } from './_parts.ts';
import { mergeLayers } from './image-parts.ts';

const merged = (...layers: readonly (readonly string[])[]): { visible: string[]; hidden: string[] } => {
  const { visible, hidden } = mergeLayers(layersOf(...layers));
  return {
    visible: [...visible].map(([path, { part }]) => `${path} ${part.name}`),
    hidden: hidden
      .filter(({ entry }) => entry.kind !== 'directory')
      .map(({ entry, by }) => `${entry.path} by ${by.entry.path}`),
  };
};

test('mergeLayers() shows the upper of two files, and folders together', () => {
  assert.deepEqual(merged(['etc/', 'etc/a', 'etc/b'], ['etc/', 'etc/b', 'etc/c']), {
    visible: ['etc layer 2', 'etc/a layer 1', 'etc/b layer 2', 'etc/c layer 2'],
    hidden: ['etc/b by etc/b'],
  });
});

test('mergeLayers() takes away what a whiteout names, with all that is in it', () => {
  assert.deepEqual(merged(['etc/', 'etc/a/', 'etc/a/x', 'etc/ab'], ['etc/', '-etc/a']), {
    visible: ['etc layer 2', 'etc/ab layer 1'],
    hidden: ['etc/a/x by etc/a'],
  });
});

test('mergeLayers() lets nothing show through an opaque folder, or a file in the place of a folder', () => {
  assert.deepEqual(merged(['a/', 'a/x', 'b/', 'b/y'], ['a!', 'a/new', 'b']), {
    visible: ['a layer 2', 'a/new layer 2', 'b layer 2'],
    hidden: ['a/x by a', 'b/y by b'],
  });
});

test('mergeLayers() shows again what a third layer brings back', () => {
  assert.deepEqual(merged(['a'], ['-a'], ['a']), { visible: ['a layer 3'], hidden: ['a by a'] });
});
