/** A result: what became of a task, and the log of each operation. */
import { field, findChoice, findOne, findWord, missing, orNothing, present, readWord, wrongValue } from './_fields.ts';
import { cleanText, formatManifests, ManifestError, parseManifest } from './manifest.ts';
import type { Field, Manifest, ParseOptions } from './manifest.ts';

/** From the lightest to the heaviest; `abort` is by time, user or policy, `abnormal` a crash. */
export const RESULT_STATUSES = ['skip', 'interrupt', 'success', 'warning', 'error', 'abort', 'abnormal'] as const;
export type ResultStatus = (typeof RESULT_STATUSES)[number];

export interface OperationResult {
  /** `configure`, `build`, …: lower case letters, digits and dashes. */
  readonly operation: string;
  readonly status: ResultStatus;
  readonly log: string;
}

export interface Result {
  readonly name: string;
  readonly version: string;
  /** At least as heavy as that of each operation. */
  readonly status: ResultStatus;
  /** In the order in which they ran. */
  readonly operations: readonly OperationResult[];
  readonly dependencyChecksum?: string;
  readonly workerChecksum?: string;
  /** Names we do not know, as they came. */
  readonly others?: readonly Field[];
}

const OPERATION_STATUS = /^([a-z0-9][a-z0-9.-]*)-status$/;
const OPERATION_LOG = /^([a-z0-9][a-z0-9.-]*)-log$/;
const KNOWN = new Set(['name', 'version', 'status', 'dependency-checksum', 'worker-checksum']);

/** @throws {ManifestError} */
export function parseResult(text: string, options: ParseOptions = {}): Result {
  return readResult(parseManifest(text, { name: options.name ?? 'result manifest' }));
}

/** Reads a result out of a manifest. */
export function readResult(manifest: Manifest): Result {
  const status = findChoice(manifest, 'status', RESULT_STATUSES);
  if (status === undefined) throw missing(manifest, 'status');
  const operations = readOperations(manifest);
  const worst = worstStatus(operations.map((operation) => operation.status));
  const pair = findOne(manifest, 'status');
  if (pair !== undefined && operations.length > 0 && isWorse(worst, status)) {
    throw wrongValue(manifest, pair, `at least ${worst} is expected, as an operation ended so`);
  }
  return present({
    name: readWord(manifest, 'name'),
    version: readWord(manifest, 'version'),
    status,
    operations,
    dependencyChecksum: findWord(manifest, 'dependency-checksum'),
    workerChecksum: findWord(manifest, 'worker-checksum'),
    others: orNothing(
      manifest.pairs
        .filter(({ name }) => !KNOWN.has(name) && !OPERATION_STATUS.test(name) && !OPERATION_LOG.test(name))
        .map(({ name, value }) => [name, value] as const),
    ),
  });
}

/** Writes a result; what a manifest cannot hold is replaced in the logs by `?` (see {@link cleanText}). */
export function formatResult(result: Result): string {
  return formatManifests([resultFields(result)]);
}

/** The fields of a result, to be written. */
export function resultFields(result: Result): readonly Field[] {
  return [
    ['name', result.name],
    ['version', result.version],
    ['status', result.status],
    ...result.operations.flatMap(({ operation, status, log }): readonly Field[] => [
      [`${operation}-status`, status],
      [`${operation}-log`, cleanText(log)],
    ]),
    ...field('dependency-checksum', result.dependencyChecksum),
    ...field('worker-checksum', result.workerChecksum),
    ...(result.others ?? []),
  ];
}

/** The heaviest of the statuses; of none, `success`. */
export function worstStatus(statuses: readonly ResultStatus[]): ResultStatus {
  const [first, ...rest] = statuses;
  if (first === undefined) return 'success';
  return rest.reduce((worst, status) => (isWorse(status, worst) ? status : worst), first);
}

/** Whether one status is heavier than another. */
export function isWorse(status: ResultStatus, than: ResultStatus): boolean {
  return RESULT_STATUSES.indexOf(status) > RESULT_STATUSES.indexOf(than);
}

/** Operations stand in the order of their statuses; a log may be absent, and may come before or after its status. */
function readOperations(manifest: Manifest): readonly OperationResult[] {
  const operations = manifest.pairs.flatMap((pair): readonly OperationResult[] => {
    const operation = OPERATION_STATUS.exec(pair.name)?.[1];
    if (operation === undefined) return [];
    const status = findChoice(manifest, pair.name, RESULT_STATUSES);
    if (status === undefined) return [];
    return [{ operation, status, log: findOne(manifest, `${operation}-log`)?.value ?? '' }];
  });
  for (const pair of manifest.pairs) {
    const operation = OPERATION_LOG.exec(pair.name)?.[1];
    if (operation !== undefined && !operations.some((known) => known.operation === operation)) {
      throw new ManifestError(`"${pair.name}" has no "${operation}-status"`, {
        source: manifest.source,
        line: pair.line,
        column: pair.column,
      });
    }
  }
  return operations;
}
