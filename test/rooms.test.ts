/**
 * Keeps the map: every room imports only what the table below allows, the top level holds nothing else, and
 * nobody reaches into another room's private files (`_name.ts`).
 */
import assert from 'node:assert/strict';
import { globSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { test } from 'node:test';

const ROOT = join(import.meta.dirname, '..');

/** What each room may import from other rooms. `*` is everything. */
const ROOMS: Readonly<Record<string, readonly string[]>> = {
  manifests: [],
  tftp: [],
  connections: [],
  host: ['connections'],
  helper: ['host', 'connections'],
  properties: ['host', 'connections', 'manifests'],
  image: ['properties', 'host', 'connections', 'manifests'],
  init: ['host', 'connections'],
  monitor: ['helper', 'host', 'connections', 'manifests', 'tftp'],
  machines: ['helper', 'host', 'connections', 'manifests', 'properties'],
  agent: ['helper', 'machines', 'tftp', 'host', 'connections', 'manifests'],
  controller: ['manifests'],
  toolchains: ['image', 'manifests'],
  lab: ['controller', 'image', 'machines', 'toolchains', 'tftp', 'host', 'connections', 'manifests', 'properties'],
  cli: ['*'],
  bench: ['*'],
  test: ['*'],
};

/** Narrower tables for a part of a room. */
const PARTS: Readonly<Record<string, readonly string[]>> = {
  'agent/worker': ['manifests', 'tftp'],
};

/** Top-level folders that hold no code. */
const NOT_ROOMS = new Set(['docs', 'node_modules', 'work', 'out']);

const sources = globSync('**/*.ts', { cwd: ROOT, exclude: (name) => name === 'node_modules' || name === 'work' });

/** The relative imports of a source, as paths from the top; packages and `node:` are left out. */
function importsOf(source: string): string[] {
  const text = readFileSync(join(ROOT, source), 'utf8');
  const found: string[] = [];
  for (const match of text.matchAll(/^\s*(?:import|export)\b[^'"]*?from\s+['"](\.[^'"]+)['"]/gm)) {
    found.push(normalize(join(dirname(source), match[1] ?? '')));
  }
  for (const match of text.matchAll(/\bimport\(\s*['"](\.[^'"]+)['"]/g)) {
    found.push(normalize(join(dirname(source), match[1] ?? '')));
  }
  return found;
}

const roomOf = (path: string): string => path.split('/')[0] ?? '';

test('every top-level folder is a room of the table', () => {
  const folders = readdirSync(ROOT, { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && !entry.name.startsWith('.') && !NOT_ROOMS.has(entry.name))
    .map((entry) => entry.name);
  assert.deepEqual(
    folders.filter((name) => !(name in ROOMS)),
    [],
  );
});

test('a room imports only what its row allows', () => {
  const broken: string[] = [];
  for (const source of sources) {
    const room = roomOf(source);
    const isTest = source.endsWith('.test.ts');
    const part = Object.keys(PARTS).find((name) => source.startsWith(`${name}/`));
    const allowed = (part === undefined ? ROOMS[room] : PARTS[part]) ?? [];
    if (allowed.includes('*')) continue;
    for (const target of importsOf(source)) {
      const other = roomOf(target);
      if (part !== undefined && !isTest && other === room && !target.startsWith(`${part}/`)) {
        broken.push(`${source} imports ${target}: ${part}/ stands alone`);
      } else if (other !== room && !allowed.includes(other)) {
        broken.push(`${source} imports ${target}: ${room}/ may import ${allowed.join(', ') || 'no room'}`);
      }
    }
  }
  assert.deepEqual(broken, []);
});

test('private files (_name.ts) are imported only in their own room', () => {
  const broken = sources.flatMap((source) =>
    importsOf(source)
      .filter((target) => /(^|\/)_[^/]+\.ts$/.test(target) && roomOf(target) !== roomOf(source))
      .map((target) => `${source} imports ${target}`),
  );
  assert.deepEqual(broken, []);
});

test('relative imports end in .ts and name a file', () => {
  const known = new Set(sources);
  const broken = sources.flatMap((source) =>
    importsOf(source)
      .filter((target) => !known.has(target))
      .map((target) => `${source} imports ${target}`),
  );
  assert.deepEqual(broken, []);
});

/** The worker stands alone in a machine, without connections/; this one file of it starts what builds the package. */
const STARTS_PROGRAMS = 'agent/worker/spawn.ts';

test('programs are started in connections/ only', () => {
  const broken = sources.filter(
    (source) =>
      !source.startsWith('connections/') &&
      source !== STARTS_PROGRAMS &&
      !source.endsWith('.test.ts') &&
      !source.startsWith('test/') &&
      /from '(node:child_process|execa)'/.test(readFileSync(join(ROOT, source), 'utf8')),
  );
  assert.deepEqual(broken, []);
});

test('no index.ts and no default export', () => {
  const broken = sources.filter(
    (source) => source.endsWith('/index.ts') || /^export default /m.test(readFileSync(join(ROOT, source), 'utf8')),
  );
  assert.deepEqual(broken, []);
});
