/**
 * The command line: finds the command, loads only its file, and turns what it throws into one message and an exit status
 * (0; 64 wrong usage; 130 Ctrl-C, as a shell has it; 1 anything else, unless a command's help names another).
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Command, CommanderError } from 'commander';
import { InterruptedError } from './interrupt.ts';
import { formatError } from './report-error.ts';

/** A command of the table: what `--help` says of it, and where it is. */
interface Entry {
  readonly name: string;
  readonly summary: string;
  readonly load: () => Promise<Command>;
}

/** EX_USAGE of sysexits.h. */
const EXIT_USAGE = 64;

/** Loaded one at a time: a command that needs much does not slow down the others, nor does a broken one break them. */
const COMMANDS: readonly Entry[] = [
  {
    name: 'demo',
    summary: 'build an image, boot a host from it over PXE, build a package on it, all on this machine',
    load: async () => (await import('./demo.ts')).demoCommand(),
  },
  {
    name: 'image',
    summary: 'build the image of a build host, publish it for PXE',
    load: async () => (await import('./image.ts')).imageCommand(),
  },
  {
    name: 'host',
    summary: 'show a host definition, plan and deploy it',
    load: async () => (await import('./host.ts')).hostCommand(),
  },
  {
    name: 'prop',
    summary: 'list and explain properties; check, apply or unapply one',
    load: async () => (await import('./prop.ts')).propCommand(),
  },
  {
    name: 'machine',
    summary: 'create and list build machines',
    load: async () => (await import('./machine.ts')).machineCommand(),
  },
  {
    name: 'chain',
    summary: 'read a chain of hops, say what it does, try it',
    load: async () => (await import('./chain.ts')).chainCommand(),
  },
  {
    name: 'toolchain',
    summary: 'publish a toolchain with the agent in it',
    load: async () => (await import('./toolchain.ts')).toolchainCommand(),
  },
  {
    name: 'qemu',
    summary: 'boot a published image in QEMU: exit status, console log, boot chart',
    load: async () => (await import('./qemu.ts')).qemuCommand(),
  },
  {
    name: 'controller',
    summary: 'run a controller: hands out tasks, keeps results',
    load: async () => (await import('./controller.ts')).controllerCommand(),
  },
  {
    name: 'submit',
    summary: 'give a task to a controller',
    load: async () => (await import('./submit.ts')).submitCommand(),
  },
  {
    name: 'tftp',
    summary: 'get, put or serve files over TFTP',
    load: async () => (await import('./tftp.ts')).tftpCommand(),
  },
  {
    name: 'test',
    summary: 'check format, lint and types, and run the tests',
    load: async () => (await import('./test.ts')).testCommand(),
  },
];

// A reader that has seen enough (`| head`) ends a command, as it ends others: 128 + SIGPIPE.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
  process.exit(141);
});

process.exitCode = await main(process.argv.slice(2));

/** Runs one command line. */
async function main(argv: readonly string[]): Promise<number> {
  try {
    const args = argv[0] === 'help' ? [...argv.slice(1), '--help'] : [...argv];
    const program = await programFor(args[0]);
    await program.parseAsync(args, { from: 'user' });
    return Number(process.exitCode ?? 0);
  } catch (error) {
    if (error instanceof CommanderError) {
      // Commander has said it already, help and version included.
      return error.exitCode === 0 ? 0 : EXIT_USAGE;
    }
    const interrupted = findInterrupt(error);
    if (interrupted !== undefined) {
      process.stderr.write(`${interrupted.message}\n`);
      return interrupted.exitStatus;
    }
    // A TypeError or ReferenceError without a hint is most likely a defect of ours: where it is helps.
    const stack = (error instanceof TypeError || error instanceof ReferenceError) && !('hint' in error);
    process.stderr.write(`${formatError(error, { stack })}\n`);
    return 1;
  }
}

/** What it was that ended the work, where that was a signal: which step it hit is no news. */
function findInterrupt(error: unknown): InterruptedError | undefined {
  if (error instanceof InterruptedError) return error;
  return error instanceof Error ? findInterrupt(error.cause) : undefined;
}

/** The program with the wanted command loaded, and the others by name and summary. */
async function programFor(wanted: string | undefined): Promise<Command> {
  const program = new Command('buildos')
    .description('An operating system for build hosts: booted over PXE, run from RAM, building in one-shot machines')
    .version(version(), '-V, --version')
    // Options after a command are the command's, also --version.
    .enablePositionalOptions()
    .helpCommand(false);
  for (const entry of COMMANDS) {
    const command = entry.name === wanted ? await entry.load() : new Command(entry.name);
    if (command.description() === '') command.description(entry.summary);
    program.addCommand(command.summary(entry.summary));
  }
  prepare(program);
  return program;
}

/** Errors of usage come back here from every command of the tree, instead of ending the process with status 1. */
function prepare(command: Command): void {
  command.exitOverride();
  command.showSuggestionAfterError(true);
  command.showHelpAfterError(`(${pathOf(command)} --help says more)`);
  for (const child of command.commands) prepare(child);
}

/** `buildos image build` for the command `build` of `image`. */
function pathOf(command: Command): string {
  return command.parent === null ? command.name() : `${pathOf(command.parent)} ${command.name()}`;
}

function version(): string {
  const file = join(import.meta.dirname, '..', 'package.json');
  const content: unknown = JSON.parse(readFileSync(file, 'utf8'));
  return typeof content === 'object' && content !== null && 'version' in content ? String(content.version) : 'unknown';
}
