/**
 * Runs tests by group: `node test/run.ts unit|system|qemu|all [FILE…]`.
 *
 *     unit    `*.test.ts` beside the code: unprivileged, milliseconds; in parallel
 *     system  test/system/: root, namespaces, loop devices, foreign peers; two files at a time
 *     qemu    test/qemu/: boots; one file at a time
 *
 * Where CI is set, a skipped test is a failure, unless its reason is in cannot-run-here.ts.
 */
import { spawn } from 'node:child_process';
import { globSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { CANNOT_RUN_HERE } from './cannot-run-here.ts';

interface Group {
  readonly name: string;
  readonly files: () => string[];
  readonly concurrency: number;
  /** Per test, unless the test says otherwise. */
  readonly timeoutMs: number;
}

const TOP = dirname(import.meta.dirname);

const find = (pattern: string): string[] =>
  globSync(pattern, { cwd: TOP, exclude: (name) => ['node_modules', 'work', 'out'].includes(name) }).sort();

const GROUPS: readonly Group[] = [
  {
    name: 'unit',
    files: () => find('**/*.test.ts').filter((file) => !/^test\/(system|qemu)\//.test(file)),
    concurrency: 4,
    timeoutMs: 60_000,
  },
  { name: 'system', files: () => find('test/system/**/*.test.ts'), concurrency: 2, timeoutMs: 300_000 },
  { name: 'qemu', files: () => find('test/qemu/**/*.test.ts'), concurrency: 1, timeoutMs: 900_000 },
];

process.exitCode = await main(process.argv.slice(2));

async function main(args: readonly string[]): Promise<number> {
  const [wanted = 'unit', ...files] = args;
  const groups = GROUPS.filter((group) => wanted === 'all' || group.name === wanted);
  if (groups.length === 0) {
    process.stderr.write(`usage: node test/run.ts ${GROUPS.map((group) => group.name).join('|')}|all [FILE...]\n`);
    return 64;
  }
  const asked = files.map((file) => resolve(file));
  const sums = new Map<string, number>();
  let failed = 0;
  let ran = 0;
  for (const group of groups) {
    const found = group.files().filter((file) => asked.length === 0 || asked.includes(join(TOP, file)));
    if (found.length === 0) continue;
    ran += 1;
    if (!(await runGroup(group, found, sums))) failed += 1;
  }
  if (ran === 0) {
    process.stderr.write('No test file fits.\n');
    return 1;
  }
  // The summary of all groups, in Node's own form, comes last.
  if (ran > 1) process.stdout.write(`\n${[...sums].map(([name, value]) => `ℹ ${name} ${value}\n`).join('')}`);
  return failed === 0 ? 0 : 1;
}

/** Runs one `node --test`, adds its summary to the sums, and looks at the skips it reports. */
async function runGroup(group: Group, files: readonly string[], sums: Map<string, number>): Promise<boolean> {
  process.stdout.write(`\n${group.name}: ${files.length} test files\n`);
  const child = spawn(
    process.execPath,
    [
      '--test',
      `--test-concurrency=${group.concurrency}`,
      `--test-timeout=${group.timeoutMs}`,
      '--test-reporter=spec',
      ...files,
    ],
    { cwd: TOP, stdio: ['ignore', 'pipe', 'inherit'], env: { ...process.env, NODE_TEST_CONTEXT: undefined } },
  );
  const skips: string[] = [];
  for await (const line of createInterface({ input: child.stdout })) {
    process.stdout.write(`${line}\n`);
    const [, name, value] = /^ℹ (\w+) ([\d.]+)$/.exec(line) ?? [];
    if (name !== undefined) sums.set(name, (sums.get(name) ?? 0) + Number(value));
    const skip = /^\s*﹣ (.*)$/.exec(line)?.[1];
    if (skip !== undefined) skips.push(skip);
  }
  const status = await new Promise<number | null>((done) => {
    if (child.exitCode === null && child.signalCode === null) child.once('exit', (code) => done(code));
    else done(child.exitCode);
  });
  return status === 0 && skipsAreFine(skips);
}

/** Names the skips that nobody has given a reason for; they fail the run where CI is set. */
function skipsAreFine(skips: readonly string[]): boolean {
  const unknown = skips.filter((skip) => !Object.keys(CANNOT_RUN_HERE).some((reason) => skip.includes(reason)));
  if (unknown.length === 0 || process.env['CI'] === undefined) return true;
  process.stdout.write('\nSkipped, which is a failure where CI is set (allowed reasons: test/cannot-run-here.ts):\n');
  for (const skip of unknown) process.stdout.write(`  ${skip}\n`);
  return false;
}
