/** Settings of a file in a folder of this machine: looked at, set, left alone, taken out. */
import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { openLocal } from '../connections/local.ts';
import { toyDefinition } from './_toy.ts';
import { unapplied } from './combinators.ts';
import { type DeployReport, deploy } from './deploy.ts';
import { hasAttributes } from './file.ts';
import { hasSettings } from './ini.ts';
import { planHost } from './plan.ts';
import type { PropertyApplication } from './property.ts';

const QUICK = { timeout: 20_000 };
const ALONE = { memory: 'none' } as const;

const folder = mkdtempSync(join(tmpdir(), 'buildos-ini-'));
after(() => rmSync(folder, { recursive: true, force: true }));

/** A file of one's own, what should hold of it, what it is then, and when that was taken back. */
interface Row {
  readonly name: string;
  readonly before: string;
  readonly make: (path: string) => PropertyApplication;
  readonly after: string;
  readonly mode?: number;
  /** Undefined: it cannot be taken back. */
  readonly back: string | undefined;
  readonly plan: RegExp;
}

const ROWS: readonly Row[] = [
  {
    name: 'two settings, one of them new',
    before: '# c\n[A]\nx=1\n',
    make: (path) => hasSettings(path, 'A', { x: 2, y: true }),
    after: '# c\n[A]\nx=2\ny=true\n',
    back: '# c\n[A]\n',
    plan: /^ *-x=1$[^]*^ *\+x=2$[^]*^ *\+y=true$/m,
  },
  {
    name: 'a section that lacks',
    before: 'z=1\n',
    make: (path) => hasSettings(path, 'B', { x: 'a b' }),
    after: 'z=1\n\n[B]\nx=a b\n',
    back: 'z=1\n\n[B]\n',
    plan: /^ *\+\[B\]$/m,
  },
  {
    name: 'a mode alone',
    before: 'text',
    make: (path) => hasAttributes(path, { mode: 0o604 }),
    after: 'text',
    mode: 0o604,
    back: undefined,
    plan: /0640 .* → 0604 /,
  },
];

const run = async (application: PropertyApplication): Promise<DeployReport> =>
  await deploy(toyDefinition(application), openLocal(), ALONE);

for (const [index, row] of ROWS.entries()) {
  test(`in a file: ${row.name}`, QUICK, async () => {
    const path = join(folder, String(index));
    writeFileSync(path, row.before);
    chmodSync(path, 0o640);
    const application = row.make(path);
    const { outcome, properties } = await planHost(toyDefinition(application), openLocal(), ALONE);
    assert.equal(outcome, 'pending');
    // What not everybody may read is not shown.
    const lines = properties.flatMap((one) => one.lines).join('\n');
    if (row.mode === undefined) assert.match(lines, /not shown: not everybody may read it/);
    else assert.match(lines, row.plan);
    assert.equal(readFileSync(path, 'utf8'), row.before);

    if (row.mode === undefined) {
      chmodSync(path, 0o644);
      const shown = await planHost(toyDefinition(application), openLocal(), ALONE);
      assert.match(shown.properties.flatMap((one) => one.lines).join('\n'), row.plan);
    }
    assert.equal((await run(application)).outcome, 'changed');
    assert.equal(readFileSync(path, 'utf8'), row.after);
    assert.equal(statSync(path).mode & 0o7777, row.mode ?? 0o644);
    const { ino, ctimeMs } = statSync(path);
    assert.equal((await run(application)).outcome, 'ok');
    assert.deepEqual([statSync(path).ino, statSync(path).ctimeMs], [ino, ctimeMs]);

    const report = await run(unapplied(application));
    assert.equal(report.outcome, row.back === undefined ? 'failed' : 'changed');
    assert.equal(readFileSync(path, 'utf8'), row.back ?? row.after);
    if (row.back !== undefined) assert.equal((await run(unapplied(application))).outcome, 'ok');
  });
}
