/** A clause of the duties, as tests: each runs once with each driver of the server. */
import { describe, test } from 'node:test';
import type { DriverName } from '../../tftp/driver.ts';
import { DRIVERS } from '../../tftp/drivers.ts';

/** Declares a duty. Its name quotes the clause. */
export type Duty = (name: string, run: (driver: DriverName) => Promise<void>) => void;

/** @param title - of the clause; @param declare - declares the duties of it; they run side by side, for they mostly wait */
export function clause(title: string, declare: (duty: Duty) => void): void {
  void describe(title, { concurrency: 2, timeout: 120_000 }, () => {
    declare((name, run) => {
      for (const driver of DRIVERS) void test(`${name} (${driver})`, { timeout: 60_000 }, () => run(driver));
    });
  });
}
