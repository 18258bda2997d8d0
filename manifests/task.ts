/** A task: what to build, from where, on which machine. */
import {
  field,
  fieldEach,
  findChoice,
  findText,
  findWord,
  orNothing,
  present,
  readWord,
  readWords,
} from './_fields.ts';
import { formatManifests, parseManifest } from './manifest.ts';
import type { Field, Manifest, ParseOptions } from './manifest.ts';

export interface Task {
  readonly name: string;
  readonly version: string;
  readonly repositoryUrl: string;
  /** `archive`: a tarball, its SHA-256 after `#sha256=` in the URL. Absent: for the worker to guess. */
  readonly repositoryType?: string;
  readonly trust?: readonly string[];
  readonly requires?: readonly string[];
  readonly tests?: readonly string[];
  readonly examples?: readonly string[];
  readonly benchmarks?: readonly string[];
  readonly dependencyChecksum?: string;
  /** A machine's name or its first dash components. */
  readonly machine: string;
  readonly auxiliaryMachines?: readonly AuxiliaryMachine[];
  /** Target triplet: `x86_64-linux-gnu`. */
  readonly target: string;
  readonly environment?: string;
  readonly auxiliaryEnvironment?: string;
  /** Words for the configuration, separated by blanks. */
  readonly targetConfig?: string;
  readonly packageConfig?: string;
  readonly host?: boolean;
  readonly warningRegex?: readonly string[];
  /** `none`, `error`, `warning` or the id of a step. */
  readonly interactive?: string;
  readonly workerChecksum?: string;
  /** Names we do not know, as they came; they are passed on. */
  readonly others?: readonly Field[];
}

export interface AuxiliaryMachine {
  /** What follows `auxiliary-machine-`; empty for `auxiliary-machine` itself. */
  readonly name: string;
  readonly machine: string;
}

const AUXILIARY_MACHINE = /^auxiliary-machine(?:-(.+))?$/;

const KNOWN = new Set([
  'name',
  'version',
  'repository-url',
  'repository-type',
  'trust',
  'requires',
  'tests',
  'examples',
  'benchmarks',
  'dependency-checksum',
  'machine',
  'target',
  'environment',
  'auxiliary-environment',
  'target-config',
  'package-config',
  'host',
  'warning-regex',
  'interactive',
  'worker-checksum',
]);

/** @throws {ManifestError} */
export function parseTask(text: string, options: ParseOptions = {}): Task {
  return readTask(parseManifest(text, { name: options.name ?? 'task manifest' }));
}

/** Reads a task out of a manifest. */
export function readTask(manifest: Manifest): Task {
  const host = findChoice(manifest, 'host', ['true', 'false']);
  return present({
    name: readWord(manifest, 'name'),
    version: readWord(manifest, 'version'),
    repositoryUrl: readWord(manifest, 'repository-url'),
    repositoryType: findWord(manifest, 'repository-type'),
    trust: orNothing(readWords(manifest, 'trust')),
    requires: orNothing(readWords(manifest, 'requires')),
    tests: orNothing(readWords(manifest, 'tests')),
    examples: orNothing(readWords(manifest, 'examples')),
    benchmarks: orNothing(readWords(manifest, 'benchmarks')),
    dependencyChecksum: findWord(manifest, 'dependency-checksum'),
    machine: readWord(manifest, 'machine'),
    auxiliaryMachines: orNothing(readAuxiliaryMachines(manifest)),
    target: readWord(manifest, 'target'),
    environment: findText(manifest, 'environment'),
    auxiliaryEnvironment: findText(manifest, 'auxiliary-environment'),
    targetConfig: findText(manifest, 'target-config'),
    packageConfig: findText(manifest, 'package-config'),
    host: host === undefined ? undefined : host === 'true',
    warningRegex: orNothing(readWords(manifest, 'warning-regex')),
    interactive: findWord(manifest, 'interactive'),
    workerChecksum: findWord(manifest, 'worker-checksum'),
    others: orNothing(readOthers(manifest)),
  });
}

export function formatTask(task: Task): string {
  return formatManifests([taskFields(task)]);
}

/** The fields of a task, to be written. */
export function taskFields(task: Task): readonly Field[] {
  return [
    ['name', task.name],
    ['version', task.version],
    ['repository-url', task.repositoryUrl],
    ...field('repository-type', task.repositoryType),
    ...fieldEach('trust', task.trust),
    ...fieldEach('requires', task.requires),
    ...fieldEach('tests', task.tests),
    ...fieldEach('examples', task.examples),
    ...fieldEach('benchmarks', task.benchmarks),
    ...field('dependency-checksum', task.dependencyChecksum),
    ['machine', task.machine],
    ...(task.auxiliaryMachines ?? []).map(({ name, machine }): Field => [
      name === '' ? 'auxiliary-machine' : `auxiliary-machine-${name}`,
      machine,
    ]),
    ['target', task.target],
    ...field('environment', task.environment),
    ...field('auxiliary-environment', task.auxiliaryEnvironment),
    ...field('target-config', task.targetConfig),
    ...field('package-config', task.packageConfig),
    ...field('host', task.host),
    ...fieldEach('warning-regex', task.warningRegex),
    ...field('interactive', task.interactive),
    ...field('worker-checksum', task.workerChecksum),
    ...(task.others ?? []),
  ];
}

function readAuxiliaryMachines(manifest: Manifest): readonly AuxiliaryMachine[] {
  const names = new Set(manifest.pairs.map((pair) => pair.name).filter((name) => AUXILIARY_MACHINE.test(name)));
  return [...names].map((name) => ({
    name: AUXILIARY_MACHINE.exec(name)?.[1] ?? '',
    machine: readWord(manifest, name),
  }));
}

function readOthers(manifest: Manifest): readonly Field[] {
  return manifest.pairs
    .filter((pair) => !KNOWN.has(pair.name) && !AUXILIARY_MACHINE.test(pair.name))
    .map((pair) => [pair.name, pair.value] as const);
}
