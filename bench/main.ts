/**
 * `npm run bench -- NAME`: measures a part of Build OS against its goals, side by side with what others use. Loads only the
 * file of the bench that is asked for.
 *
 * Exit status: 0 every floor is met; 2 a floor is missed; 1 it could not be measured; 64 wrong usage.
 */
import { Command, CommanderError } from 'commander';
import { formatError } from '../cli/report-error.ts';

/** A bench of the table. */
interface Entry {
  readonly name: string;
  readonly summary: string;
  readonly load: () => Promise<Command>;
}

const EXIT_FAILED = 1;
const EXIT_USAGE = 64;

const BENCHES: readonly Entry[] = [
  {
    name: 'tftp',
    summary: 'the TFTP server and client, against tftpd-hpa, dnsmasq and atftpd',
    load: async () => (await import('./tftp.ts')).tftpBench(),
  },
  {
    name: 'image',
    summary: 'building an image, against mkosi, and mmdebstrap with cpio and zstd',
    load: async () => (await import('./image.ts')).imageBench(),
  },
  {
    name: 'boot',
    summary: 'what the boot of an image costs, in instructions, against its budgets',
    load: async () => (await import('./boot.ts')).bootBench(),
  },
];

process.exitCode = await main(process.argv.slice(2));

async function main(argv: readonly string[]): Promise<number> {
  try {
    const program = new Command('bench').description('measure a part of Build OS against its goals').helpCommand(false);
    for (const { name, summary, load } of BENCHES) {
      const command = name === argv[0] ? await load() : new Command(name);
      program.addCommand(command.description(summary));
    }
    for (const command of [program, ...program.commands]) command.exitOverride();
    await program.parseAsync([...argv], { from: 'user' });
    return Number(process.exitCode ?? 0);
  } catch (error) {
    // Commander has said it already, help included.
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : EXIT_USAGE;
    process.stderr.write(`${formatError(error)}\n`);
    return EXIT_FAILED;
  }
}
