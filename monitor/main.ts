/**
 * The program `monitor.mjs`: arguments and environment in, {@link runMonitor}, exit status out.
 *
 * On a host it gets no arguments; everything comes from /run/buildos/host.json and systemd. The options are for
 * development: a folder that plays the host's root, and a port of one's own.
 */
import { parseArgs } from 'node:util';
import { listenFds, notify, statusLine, watchdogUsec } from '../host/sd-notify.ts';
import { pathsUnder } from './paths.ts';
import { type MonitorOptions, runMonitor } from './run.ts';
import type { Timing } from './state.ts';
import { TIMING } from './state.ts';

const HELP = `Usage: monitor.mjs [--root FOLDER] [--listen ADDRESS:PORT] [--state disk|ram] [--timing NAME=MS]...

Serves /build/tftp, bootstraps toolchains, runs agents, and follows what is published, as /run/buildos/host.json says.
Without options it is the service of a host: the UDP socket comes from systemd.

  --root FOLDER           use FOLDER/build, FOLDER/run, FOLDER/state instead of those of this host
  --listen ADDRESS:PORT   listen there instead of on the socket from systemd; port 0: any
  --state disk|ram        what FOLDER/state plays; default: what its mount is
  --timing NAME=MS        one of ${Object.keys(TIMING).join(', ')}

Exit status: 0 stopped by a signal; 1 failure; 64 wrong usage.
`;

/** The arguments are wrong. */
class UsageError extends Error {
  override readonly name = 'UsageError';
}

process.on('uncaughtException', (error) => die(error));
process.on('unhandledRejection', (error) => die(error));

const stop = new AbortController();
for (const name of ['SIGTERM', 'SIGINT'] as const) process.on(name, () => stop.abort(new Error(name)));

try {
  const options = parseOptions(process.argv.slice(2));
  if (options === 'help') process.stdout.write(HELP);
  else await runMonitor({ ...options, signal: stop.signal });
} catch (error) {
  if (!stop.signal.aborted) die(error);
}
// Sockets kept for the next fetch would keep the process; everything that matters is closed.
process.exit(0);

/** Says what happened, once, where systemd and people look; systemd starts a new monitor. */
function die(error: unknown): never {
  const isUsage = error instanceof UsageError;
  const message = error instanceof Error ? error.message : String(error);
  const hint = error instanceof Error && 'hint' in error && typeof error.hint === 'string' ? ` (${error.hint})` : '';
  notify(statusLine(`Failed: ${message}`));
  process.stderr.write(`<3>monitor: ${message}${hint}\n`);
  if (!isUsage && error instanceof Error) process.stderr.write(`<6>${(error.stack ?? '').replaceAll('\n', '\n<6>')}\n`);
  process.exit(isUsage ? 64 : 1);
}

function parseOptions(argv: readonly string[]): Omit<MonitorOptions, 'signal'> | 'help' {
  const { values } = parseOrUsage(argv);
  if (values.help === true) return 'help';
  const { state } = values;
  if (state !== undefined && state !== 'disk' && state !== 'ram')
    throw new UsageError(`--state is disk or ram, not ${state}`);
  const usec = watchdogUsec();
  return {
    paths: pathsUnder(values.root ?? ''),
    listen: parseListen(values.listen),
    timing: parseTiming(values.timing ?? []),
    watchdogMs: usec === undefined ? undefined : usec / 1000 / 2,
    print: (line) => process.stdout.write(`${line}\n`),
    ...(state === undefined ? {} : { stateStorage: state }),
  };
}

function parseOrUsage(argv: readonly string[]): ReturnType<typeof parseArguments> {
  try {
    return parseArguments(argv);
  } catch (cause) {
    throw new UsageError(`${cause instanceof Error ? cause.message : String(cause)}; --help tells the options`, {
      cause,
    });
  }
}

function parseArguments(argv: readonly string[]) {
  return parseArgs({
    args: [...argv],
    options: {
      root: { type: 'string' },
      listen: { type: 'string' },
      state: { type: 'string' },
      timing: { type: 'string', multiple: true },
      help: { type: 'boolean' },
    },
  });
}

function parseListen(text: string | undefined): MonitorOptions['listen'] {
  if (text === undefined) {
    const [fd] = listenFds();
    if (fd !== undefined) return { fd };
    throw new UsageError('systemd has passed no socket: start buildos-tftp.socket, or use --listen ADDRESS:PORT');
  }
  const match = /^(.+):(\d{1,5})$/.exec(text);
  if (match?.[1] === undefined) throw new UsageError(`--listen is ADDRESS:PORT, not ${text}`);
  return { address: match[1], port: Number(match[2]) };
}

function parseTiming(words: readonly string[]): Partial<Timing> {
  const timing: Record<string, number> = {};
  for (const word of words) {
    const match = /^([A-Za-z]+)=(\d+(?:\.\d+)?)$/.exec(word);
    if (match?.[1] === undefined || !Object.hasOwn(TIMING, match[1])) {
      throw new UsageError(`--timing is NAME=MS with a NAME of ${Object.keys(TIMING).join(', ')}, not ${word}`);
    }
    timing[match[1]] = Number(match[2]);
  }
  return timing;
}
