/** Keeps `npm ci` working where the registry lacks packages of other platforms: npm then wants them in the lock file all the same. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

interface Locked {
  readonly packages: Readonly<Record<string, { readonly optionalDependencies?: Readonly<Record<string, string>> }>>;
}

test('every optional dependency is in package-lock.json, also those of other platforms', () => {
  const file = join(import.meta.dirname, '../package-lock.json');
  const { packages }: Locked = JSON.parse(readFileSync(file, 'utf8'));
  const missing = Object.entries(packages).flatMap(([path, { optionalDependencies }]) =>
    Object.keys(optionalDependencies ?? {}).filter(
      (name) => !(`node_modules/${name}` in packages) && !(`${path}/node_modules/${name}` in packages),
    ),
  );
  assert.deepEqual(missing, []);
});
