/**
 * One build of the small image in a process of its own, to be killed: `node _small-build.ts WORK LOCK [ram|disk]`. Prints
 * the name of each step when it begins.
 */
import { buildImage } from '../../image/build.ts';
import { readLock } from '../../image/lock.ts';
import { host } from './_small-host.ts';

const [work = '', lockFile = '', where = 'ram'] = process.argv.slice(2);
try {
  await buildImage({
    definition: () => host,
    work,
    lock: { content: await readLock(lockFile), file: lockFile },
    hardware: 'vm',
    ram: where === 'ram',
    onStep: (step) => console.log(step),
  });
} catch (error) {
  const hint = error instanceof Error && 'hint' in error ? String(error.hint) : 'none';
  console.error(`${String(error)}\nhint: ${hint}\n${error instanceof Error ? error.stack : ''}`);
  process.exitCode = 1;
}
