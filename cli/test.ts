/** `buildos test`: what CI runs, and what a developer runs before a commit. */
import { join } from 'node:path';
import { Argument, Command } from 'commander';
import { start } from '../connections/process.ts';
import { needPackages, needRoot } from './setup.ts';

const TOP = join(import.meta.dirname, '..');

/** A check, in the order in which they run: the quick ones first. */
interface Check {
  readonly name: string;
  readonly argv: readonly string[];
}

const bin = (name: string): string => join(TOP, 'node_modules/.bin', name);

const CHECKS: readonly Check[] = [
  { name: 'format', argv: [bin('oxfmt'), '--check', '.'] },
  { name: 'lint', argv: [bin('oxlint'), '--type-aware', '--deny-warnings', '.'] },
  { name: 'types', argv: [bin('tsc'), '--project', 'tsconfig.json'] },
];

/** Checks failed; what they had to say has been printed. */
export class ChecksFailedError extends Error {
  readonly hint = 'see above; "npm run format" mends the format';

  constructor(names: readonly string[]) {
    super(`Failed: ${names.join(', ')}`);
    this.name = 'ChecksFailedError';
  }
}

/** The command. */
export function testCommand(): Command {
  return new Command('test')
    .description('check format, lint and types, and run the tests')
    .addArgument(new Argument('[group]', 'which tests').choices(['unit', 'system', 'qemu', 'all']).default('all'))
    .argument('[file...]', 'only these test files')
    .addHelpText('after', '\nExit status: 0 when everything passes; a skipped test fails where CI is set.')
    .action(async (group: string, files: readonly string[]) => {
      // Unit tests need nothing of the machine.
      if (group !== 'unit') {
        needRoot('network namespaces, loop devices, containers');
        await needPackages(['image', 'uki', 'ipxe', 'pxelinux', 'grub', 'iso', 'machine', 'lab', 'sources', 'test']);
      }
      const failed: string[] = [];
      for (const check of files.length > 0 ? [] : CHECKS) {
        process.stderr.write(`${check.name} ...\n`);
        if (!(await passes(check.argv))) failed.push(check.name);
      }
      if (!(await passes([process.execPath, join(TOP, 'test/run.ts'), group, ...files]))) failed.push('tests');
      if (failed.length > 0) throw new ChecksFailedError(failed);
    });
}

/** Runs a program with its output passed on as it comes. */
async function passes(argv: readonly string[]): Promise<boolean> {
  await using child = await start(argv, { cwd: TOP, stderr: 'stdout' });
  for await (const line of child.stdout) process.stdout.write(`${line}\n`);
  return (await child.exited).status === 0;
}
