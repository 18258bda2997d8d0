/** Which driver is taken: the accelerator where it works, else the reference. */
import { dgramDriver } from './driver-dgram.ts';
import { createGsoDriver } from './driver-gso.ts';
import { openSystemCalls } from './driver-syscalls.ts';
import type { Driver, DriverName } from './driver.ts';

const calls = openSystemCalls();
const gsoDriver = calls && createGsoDriver(calls);
const found: readonly Driver[] = gsoDriver === undefined ? [dgramDriver] : [gsoDriver, dgramDriver];

/** The drivers that work here, by name; the first is the best. */
export const DRIVERS: readonly DriverName[] = found.map((driver) => driver.name);

/**
 * A driver by its name; `auto` is the best there is.
 *
 * @throws {Error} when it does not work here
 */
export function findDriver(name: DriverName | 'auto'): Driver {
  const driver = name === 'auto' ? found[0] : found.find((one) => one.name === name);
  if (driver === undefined) throw new Error(`the driver ${name} does not work here`);
  return driver;
}
