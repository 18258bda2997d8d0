/** The machines that we know how to make. */
import type { HostDefinition } from '../properties/host-definition.ts';
import { linuxDebian13Gcc14 } from './definitions/linux-debian-13-gcc-14.ts';

export const MACHINE_DEFINITIONS: readonly HostDefinition[] = [linuxDebian13Gcc14];

/** There is no machine of that name to make. */
export class UnknownMachineError extends Error {
  override readonly name = 'UnknownMachineError';
  readonly machine: string;
  readonly hint: string;

  constructor(machine: string) {
    super(`Cannot make the machine "${machine}": there is no definition of that name`);
    this.machine = machine;
    this.hint = `there are: ${MACHINE_DEFINITIONS.map(({ name }) => name).join(', ')}`;
  }
}

/** @throws {UnknownMachineError} */
export function readMachineDefinition(name: string): HostDefinition {
  const found = MACHINE_DEFINITIONS.find((definition) => definition.name === name);
  if (found === undefined) throw new UnknownMachineError(name);
  return found;
}
