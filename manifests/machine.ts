/**
 * A machine: the header an agent offers to controllers, and the manifest in a machine's directory, which is the
 * header and how to run it.
 */
import {
  field,
  fieldEach,
  findChoice,
  findInteger,
  findMatch,
  findWord,
  missing,
  orNothing,
  present,
  readWord,
} from './_fields.ts';
import { all, formatManifests, parseManifest } from './manifest.ts';
import type { Field, Manifest, ParseOptions } from './manifest.ts';

const MACHINE_ROLES = ['build', 'auxiliary'] as const;
export type MachineRole = (typeof MACHINE_ROLES)[number];

const MACHINE_TYPES = ['kvm', 'nspawn'] as const;
export type MachineType = (typeof MACHINE_TYPES)[number];

/** What a controller is told of a machine. */
export interface MachineHeader {
  /** Changes whenever something changes that can influence a build. */
  readonly id: string;
  /** Dash components: `linux_debian_13-gcc_14.2`. Safe as a name of a directory. */
  readonly name: string;
  readonly summary: string;
  /** Absent: `build`. */
  readonly role?: MachineRole;
  readonly ramMinimumKiB?: number;
  readonly ramMaximumKiB?: number;
}

/** What stands in the file `manifest` of a machine's directory. */
export interface MachineManifest extends MachineHeader {
  readonly type: MachineType;
  /** Absent: the host makes one. */
  readonly mac?: string;
  /** Words for the program that runs the machine; `ifname=?` and `mac=?` in them are filled in. */
  readonly options?: string;
  readonly changes?: readonly string[];
}

/** Dash components of letters, digits, `_`, `.` and `+`. */
const MACHINE_NAME = {
  pattern: /^[A-Za-z0-9][A-Za-z0-9_.+]*(?:-[A-Za-z0-9_.+]+)*$/,
  expected: 'a machine name (dash components of letters, digits, "_", "." and "+")',
};

const MAC = { pattern: /^(?:[0-9a-f]{2}:){5}[0-9a-f]{2}$/i, expected: 'a MAC address' };

/** Reads a machine header out of a manifest; other names in it are ignored. */
export function readMachineHeader(manifest: Manifest): MachineHeader {
  const name = findMatch(manifest, 'name', MACHINE_NAME);
  if (name === undefined) throw missing(manifest, 'name');
  return present({
    id: readWord(manifest, 'id'),
    name,
    summary: readWord(manifest, 'summary'),
    role: findChoice(manifest, 'role', MACHINE_ROLES),
    ramMinimumKiB: findInteger(manifest, 'ram-minimum'),
    ramMaximumKiB: findInteger(manifest, 'ram-maximum'),
  });
}

/** The fields of a machine header, to be written. */
export function machineHeaderFields(machine: MachineHeader): readonly Field[] {
  return [
    ['id', machine.id],
    ['name', machine.name],
    ['summary', machine.summary],
    ...field('role', machine.role),
    ...field('ram-minimum', machine.ramMinimumKiB),
    ...field('ram-maximum', machine.ramMaximumKiB),
  ];
}

/** @throws {ManifestError} */
export function parseMachineManifest(text: string, options: ParseOptions = {}): MachineManifest {
  const manifest = parseManifest(text, { name: options.name ?? 'machine manifest' });
  const type = findChoice(manifest, 'type', MACHINE_TYPES);
  if (type === undefined) throw missing(manifest, 'type');
  return {
    ...readMachineHeader(manifest),
    type,
    ...present({
      mac: findMatch(manifest, 'mac', MAC),
      options: findWord(manifest, 'options'),
      changes: orNothing(all(manifest, 'changes')),
    }),
  };
}

export function formatMachineManifest(machine: MachineManifest): string {
  return formatManifests([
    [
      ...machineHeaderFields(machine),
      ['type', machine.type],
      ...field('mac', machine.mac),
      ...field('options', machine.options),
      ...fieldEach('changes', machine.changes),
    ],
  ]);
}
