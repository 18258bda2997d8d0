/** What tests with TFTP programs of others share: files of every size, and a test for each of our drivers. */
import { randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempDisposableSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test as nodeTest } from 'node:test';

import type { DriverName } from '../../tftp/driver.ts';
import { DRIVERS } from '../../tftp/drivers.ts';
import { findProgram } from './_tftp-programs.ts';

/** Sizes around the borders of blocks of 512 and 1428, and one of many blocks. */
export const SIZES = [0, 1, 511, 512, 513, 1024, 1428, 2856, 65_464, 3_000_001] as const;

/** A test that needs programs; without them it is skipped with the reason. Once with each driver of our server. */
export function test(
  name: string,
  programs: readonly string[],
  run: (dir: string, driver: DriverName) => Promise<void>,
  drivers: readonly DriverName[] = DRIVERS,
): void {
  const missing = programs.filter((program) => findProgram(program) === undefined);
  const skip = missing.length > 0 ? `needs ${missing.join(', ')}` : false;
  for (const driver of drivers) {
    const title = drivers.length > 1 ? `${name} (${driver})` : name;
    void nodeTest(title, { timeout: 60_000, skip }, async () => {
      using dir = mkdtempDisposableSync(join(tmpdir(), 'tftp-peers-'));
      await run(dir.path, driver);
    });
  }
}

/** Two folders: `root` is served and has a file of each size, `work` is the client's. */
export function makeFolders(dir: string): { readonly root: string; readonly work: string } {
  const [root, work] = [join(dir, 'root'), join(dir, 'work')];
  mkdirSync(root);
  mkdirSync(work);
  for (const size of SIZES) writeFileSync(join(root, `f${size}`), randomBytes(size));
  writeFileSync(join(root, 'text'), 'one\ntwo\rthree\n'.repeat(300));
  return { root, work };
}
