/**
 * Fuzzes a room: `npm run fuzz -- tftp [--seconds N] [--seed S] [--target requests|packets|sessions]…`.
 * Without a seed it takes a new one, and prints it.
 */
import { parseArgs } from 'node:util';
import { FUZZ_TARGETS, fuzz, fuzzCorpus } from '../tftp/fuzz.ts';

process.exitCode = main(process.argv.slice(2));

function main(args: readonly string[]): number {
  const asked = parseFlags(args);
  if (typeof asked === 'string') {
    process.stderr.write(
      `error: ${asked}\nusage: npm run fuzz -- tftp [--seconds N] [--seed S] [--target ${FUZZ_TARGETS.join('|')}]...\n`,
    );
    return 64;
  }
  const { seed } = asked;
  fuzzCorpus();
  let failed = 0;
  for (const { target, count, seconds: took, failure } of fuzz(asked)) {
    const rate = Math.round(count / took).toLocaleString('en');
    process.stdout.write(`${target}: ${count.toLocaleString('en')} in ${took.toFixed(1)} s, ${rate}/s, seed ${seed}\n`);
    if (failure === undefined) continue;
    failed += 1;
    process.stdout.write(`${target} failed: ${String(failure.error)}\n  smallest input: ${failure.input}\n`);
  }
  return failed === 0 ? 0 : 1;
}

/** @returns what to do, or what is wrong with the arguments */
function parseFlags(args: readonly string[]): Parameters<typeof fuzz>[0] | string {
  let parsed;
  try {
    parsed = parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        seconds: { type: 'string', default: '30' },
        seed: { type: 'string' },
        target: { type: 'string', multiple: true },
      },
    });
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
  const { values, positionals } = parsed;
  const seconds = Number(values.seconds);
  const seed = Number(values.seed ?? Date.now() & 0x7fffffff);
  const unknown = values.target?.find((name) => !FUZZ_TARGETS.some((target) => target === name));
  if (positionals.join(' ') !== 'tftp') return 'name the room to fuzz: tftp';
  if (!(seconds > 0)) return `--seconds ${values.seconds} is no number above 0`;
  if (!Number.isInteger(seed)) return `--seed ${values.seed} is no whole number`;
  if (unknown !== undefined) return `--target ${unknown} is unknown`;
  return { seconds, seed, targets: FUZZ_TARGETS.filter((name) => values.target?.includes(name) ?? true) };
}
