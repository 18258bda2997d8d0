/**
 * Fuzzes a room: `npm run fuzz -- tftp [--seconds N] [--seed S] [--target requests|packets|sessions]…`.
 * Without a seed it takes a new one, and prints it.
 */
import { parseArgs } from 'node:util';
import { FUZZ_TARGETS, fuzz, fuzzCorpus } from '../tftp/fuzz.ts';

process.exitCode = main(process.argv.slice(2));

function main(args: readonly string[]): number {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      seconds: { type: 'string', default: '30' },
      seed: { type: 'string' },
      target: { type: 'string', multiple: true },
    },
  });
  const seconds = Number(values.seconds);
  const seed = Number(values.seed ?? Date.now() & 0x7fffffff);
  const targets = FUZZ_TARGETS.filter((name) => values.target?.includes(name) ?? true);
  if (positionals.join(' ') !== 'tftp' || !(seconds > 0) || !Number.isInteger(seed) || targets.length === 0) {
    process.stderr.write(
      `usage: npm run fuzz -- tftp [--seconds N] [--seed S] [--target ${FUZZ_TARGETS.join('|')}]...\n`,
    );
    return 64;
  }
  fuzzCorpus();
  let failed = 0;
  for (const { target, count, seconds: took, failure } of fuzz({ seconds, seed, targets })) {
    const rate = Math.round(count / took).toLocaleString('en');
    process.stdout.write(`${target}: ${count.toLocaleString('en')} in ${took.toFixed(1)} s, ${rate}/s, seed ${seed}\n`);
    if (failure === undefined) continue;
    failed += 1;
    process.stdout.write(`${target} failed: ${String(failure.error)}\n  smallest input: ${failure.input}\n`);
  }
  return failed === 0 ? 0 : 1;
}
